"""When a store does not answer: how often a call is made again, and which views an answer goes without."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from headrace.features.errors import DataError
from headrace.serving.asking import Part
from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.lookups import Ask, Looked
from headrace.stores.online import Clock


class RetryBudget:
    """At most a share of the calls of a window is made again, so that retries never multiply the load of a store that
    is in trouble. Thread-safe; several clients may share one.

    Args:
        share: of the calls of the window. at_least: so many retries in a window are always allowed.
        window_s: seconds. now: clock, for tests.
    """

    def __init__(
        self,
        share: float = 0.1,
        *,
        at_least: int = 3,
        window_s: float = 10.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 <= share <= 1:
            raise DataError(f"RetryBudget: share is {share}, expected 0 to 1.")
        self.share, self.at_least, self.window_s, self._now = share, at_least, window_s, now
        self._lock = threading.Lock()
        self._calls: deque[list[float]] = deque()
        self._retries: deque[float] = deque()

    def called(self) -> None:
        """Count a call."""
        at = self._now()
        with self._lock:
            # Counted by hundredths of the window, so memory does not grow with the load.
            if self._calls and at - self._calls[-1][0] < self.window_s / 100:
                self._calls[-1][1] += 1
            else:
                self._calls.append([at, 1.0])

    def take(self) -> bool:
        """Whether a call may be made again now; counts it when it may."""
        at = self._now()
        with self._lock:
            while self._calls and self._calls[0][0] <= at - self.window_s:
                self._calls.popleft()
            while self._retries and self._retries[0] <= at - self.window_s:
                self._retries.popleft()
            allowed = max(self.at_least, self.share * sum(count for _, count in self._calls))
            if len(self._retries) + 1 > allowed:
                return False
            self._retries.append(at)
            return True


def worth_another_try(error: Exception) -> bool:
    """Whether the same call may succeed when it is made again."""
    return isinstance(error, UnreachableError)


def alone(asks: Sequence[Ask], error: StoreError) -> bool:
    """Whether asking for each view by itself may find some of them."""
    return len(asks) > 1 and not isinstance(error, UnreachableError)


def failed(asks: Sequence[Ask], error: StoreError) -> list[Part]:
    """All views failed."""
    return [error] * len(asks)


def parts_of(asks: Sequence[Ask], look_up: Callable[[Sequence[Ask]], Looked]) -> tuple[Clock | None, list[Part]]:
    """What can be had of several views: rows, or why there are none. A store that fails for one view is asked for the
    others again, one by one; one that does not answer at all is not."""
    try:
        clock, rows = look_up(asks)
        return clock, list(rows)
    except StoreError as error:
        if not alone(asks, error):
            return None, failed(asks, error)
    found: list[Part] = []
    clock = None
    for ask in asks:
        try:
            clock, (mine,) = look_up([ask])
            found.append(mine)
        except StoreError as error:
            found.append(error)
    return clock, found
