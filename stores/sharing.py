"""Work of asyncio that several tasks need at the same time and that is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """One run of a coroutine for all who want its result while it runs; who comes later begins another one.

    Args:
        work: makes the coroutine.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def start(self) -> asyncio.Task[T]:
        """The run, begun if there is none. Who waits for it shields it: it is not theirs to cancel."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())
            self._task.add_done_callback(_seen)
        return self._task

    async def result(self, deadline: float) -> T:
        """Its result.

        Args:
            deadline: when the caller gives up, time of the event loop.

        Raises:
            TimeoutError: there is none by then; the run goes on.
        """
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(self.start())

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # those who waited have seen it; if there were none, it is nobody's
