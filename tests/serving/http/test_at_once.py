"""A deadline for what is not there at once."""

import asyncio
import contextlib

import pytest

from headrace.serving.http.at_once import at_once_or_within


async def add(*waits: "asyncio.Future[int]") -> int:
    total = 0
    for each in waits:
        with contextlib.suppress(ZeroDivisionError):
            total += await each
    return total


def done(value: int) -> "asyncio.Future[int]":
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def test_what_is_there_at_once() -> None:
    async def main() -> None:
        assert await at_once_or_within(add(), 0.0) == 0
        assert await at_once_or_within(add(done(1), done(2)), 0.0) == 3
        with pytest.raises(KeyError):
            await at_once_or_within(wrong(), 0.0)

    async def wrong() -> None:
        raise KeyError

    asyncio.run(main())


def test_what_comes_later_in_several_steps_and_with_errors_on_the_way() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second, third = (loop.create_future() for _ in range(3))
        loop.call_soon(first.set_result, 1)
        loop.call_later(0.001, second.set_exception, ZeroDivisionError())
        loop.call_later(0.002, third.set_result, 3)
        assert await at_once_or_within(add(first, second, third), 30.0) == 4
        assert await at_once_or_within(asyncio.sleep(0, 5), 30.0) == 5

    asyncio.run(main())


def test_what_comes_too_late_and_what_is_cancelled() -> None:
    cleaned: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await at_once_or_within(forever("late"), 0.001)
        task = asyncio.create_task(at_once_or_within(forever("cancelled"), 30.0))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert cleaned == ["late", "cancelled"]
