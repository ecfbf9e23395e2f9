"""A line in the log for a request: its route, status and time, and the trace id that its other lines have."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import structlog

from headrace.ops.logs import Repeats
from headrace.serving.http.watching import ServerWatcher

AccessLines = Literal["none", "errors", "some", "all"]

# A caller that goes on asking wrongly is not to fill the disk: as many lines a second for each route and status.
ERRORS_EVERY_S = 0.2


class AccessLog:
    """A `ServerWatcher` that writes lines. A line costs about as much as a small request, so by default only errors
    have one, at most five a second for each route and status.

    Args:
        lines: which requests have a line. share: of "some": of those without error.
    """

    def __init__(self, lines: AccessLines = "errors", share: float = 0.01, *, seed: int | None = None) -> None:
        self._all = lines == "all"
        self._errors = lines != "none"
        self._share = share if lines == "some" else 0.0
        self._random = random.Random(seed).random
        self._repeats = Repeats(ERRORS_EVERY_S)
        self._log = structlog.get_logger("headrace.access")

    def began(self, route: str) -> None:
        """No line is written before the end."""

    def ended(
        self, route: str, method: str, status: int, seconds: float, bytes_in: int, bytes_out: int, trace: str
    ) -> None:
        more = {}
        if status >= 400 and not self._all:
            held = self._repeats.allow(f"{route} {status}") if self._errors else None
            if held is None:
                return
            more = {"repeated": held} if held else {}
        elif not self._all and not (self._share and self._random() < self._share):
            return
        write = self._log.warning if status >= 500 else self._log.info
        write(
            "request",
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 3),
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            trace=trace,
            **more,
        )

    def refused(self, reason: str) -> None:
        """The status says it."""


class Several:
    """A `ServerWatcher` that tells several."""

    def __init__(self, watchers: Sequence[ServerWatcher]) -> None:
        self._watchers = tuple(watchers)

    def began(self, route: str) -> None:
        for each in self._watchers:
            each.began(route)

    def ended(
        self, route: str, method: str, status: int, seconds: float, bytes_in: int, bytes_out: int, trace: str
    ) -> None:
        for each in self._watchers:
            each.ended(route, method, status, seconds, bytes_in, bytes_out, trace)

    def refused(self, reason: str) -> None:
        for each in self._watchers:
            each.refused(reason)
