"""To wait with a deadline, which costs nothing where there is nothing to wait for.

`asyncio.timeout` takes 3 µs also for what is there at once, as the body of a small request is: a tenth of a lookup.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def at_once_or_within(coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """What a coroutine returns. Raises TimeoutError when it takes longer than that; it is cancelled then."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(timeout_s):
        return await _rest(coroutine, waits_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """The rest of a coroutine that has begun; `yield from` (PEP 380) from its first step on."""
    while True:
        try:
            given = yield waits_for
        except BaseException as error:
            try:
                waits_for = coroutine.throw(error)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
        else:
            try:
                waits_for = coroutine.send(given)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
