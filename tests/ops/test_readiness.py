"""`/readyz` says what the store said last, also of one that fails, hangs and comes back."""

from __future__ import annotations

import asyncio
import threading

from headrace.ops.readiness import Readiness
from headrace.stores.errors import UnreachableError


class Store:
    """Answers, fails or hangs as it is told. asked: how often it was."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = 0

    def clock(self) -> None:
        self.asked += 1
        self.go_on.wait(30)
        if self.error is not None:
            raise self.error


def test_it_is_ready_once_the_store_has_answered_and_until_it_is_asked_to_stop() -> None:
    stopping = [False]
    ready = Readiness(Store(), lambda: stopping[0])
    assert ready.because() == ("The store was not asked yet.",)
    asyncio.run(ready.look())
    assert ready.because() == ()
    stopping[0] = True
    assert ready.because() == ("The server is stopping.",)


def test_a_store_that_fails_is_told_without_its_password_and_recovers() -> None:
    store = Store()
    ready = Readiness(store, lambda: False)
    store.error = UnreachableError("redis://flow:hunter2-PLANTED@cache:6379/0 does not answer.")
    asyncio.run(ready.look())
    assert ready.because() == ("The store fails: redis://flow:***@cache:6379/0 does not answer.",)
    store.error = None
    asyncio.run(ready.look())
    assert ready.because() == ()


def test_a_store_that_hangs_is_asked_once_and_waited_for() -> None:
    store = Store()
    store.go_on.clear()
    ready = Readiness(store, lambda: False, within_s=0.05)

    async def scene() -> None:
        for _ in range(3):
            await ready.look()
            assert ready.because() == ("The store did not answer within 0.05 s.",)
        assert store.asked == 1
        store.go_on.set()
        while ready.because():
            await ready.look()

    asyncio.run(scene())
    assert store.asked <= 2
