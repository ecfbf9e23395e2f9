"""Whether a worker lives and whether it is ready, judged from its `Observer` calls; what /healthz and /readyz answer.

Alive: the main loop has turned within `stalled_after`. Ready: tasks are assigned and none restores, none is further
behind than `ready_lag` messages, and nothing the worker depends on is failing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.flows.worker.observing import Silent


@dataclass(frozen=True)
class Verdict:
    """Yes or no, and why not: one sentence for each thing in the way."""

    yes: bool
    because: tuple[str, ...] = ()


class Health(Silent):
    """An `Observer` that answers for its worker. Its dictionaries are replaced, not changed, while others read them.

    Args:
        stalled_after_s: seconds without a turn of the main loop after which the worker counts as dead.
        ready_lag: messages that a task may be behind. now: seconds of a clock that never goes back.
    """

    def __init__(self, stalled_after_s: float, ready_lag: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._stalled_after_s = stalled_after_s
        self._ready_lag = ready_lag
        self._now = now
        self._turned = now()
        self._is_ready = False
        self._lags: dict[str, int] = {}
        self._failing: dict[str, str] = {}

    def alive(self) -> None:
        self._turned = self._now()

    def ready(self, yes: bool) -> None:
        self._is_ready = yes

    def assigned(self, part: str, topic: str, partition: int) -> None:
        self._turned = self._now()  # taking tasks over takes a while

    def revoked(self, part: str) -> None:
        self._lags = {each: lag for each, lag in self._lags.items() if each != part}

    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None:
        if lag is not None:
            self._lags = {**self._lags, part: lag}

    def trouble(self, what: str, message: str) -> None:
        self._failing = {**self._failing, what: message}

    def recovered(self, what: str) -> None:
        self._failing = {each: message for each, message in self._failing.items() if each != what}

    def is_alive(self) -> Verdict:
        """Whether the main loop turns."""
        since = self._now() - self._turned
        if since <= self._stalled_after_s:
            return Verdict(True)
        return Verdict(False, (f"The main loop has not turned for {since:.0f} s.",))

    def is_ready(self) -> Verdict:
        """Whether rows in the online store can be relied on as far as this worker goes."""
        reasons = list(self.is_alive().because)
        if not self._is_ready:
            reasons.append("No task is assigned yet, or one is still restoring.")
        behind = {part: lag for part, lag in self._lags.items() if lag > self._ready_lag}
        if behind:
            worst = max(behind, key=lambda part: behind[part])
            reasons.append(
                f"{len(behind)} task(s) are more than {self._ready_lag:,} messages behind, "
                f"{worst} by {behind[worst]:,}."
            )
        reasons += [f"{what} fails: {message}" for what, message in sorted(self._failing.items())]
        return Verdict(not reasons, tuple(reasons))
