"""A line in the log for a request: its route, status and time, and the trace id that its other lines have."""

from __future__ import annotations

import random
from typing import Literal

import structlog

from headrace.ops.logs import Repeats
from headrace.serving.http.watching import ServerWatcher

AccessLines = Literal["none", "errors", "some", "all"]

# A caller that goes on asking wrongly is not to fill the disk: as many lines a second for each route and status.
ERRORS_EVERY_S = 0.2


class AccessLog:
    """A `ServerWatcher` that writes lines and tells another watcher. A line costs about as much as a small request, so
    by default only errors have one, at most five a second for each route and status.

    Args:
        lines: which requests have a line. share: of "some": of those without error. beside: is told of everything.
    """

    def __init__(
        self, lines: AccessLines, share: float = 0.01, *, beside: ServerWatcher, seed: int | None = None
    ) -> None:
        self._all, self._none = lines == "all", lines == "none"
        self._share = share if lines == "some" else 0.0
        self._well = self._all or self._share > 0
        self._random = random.Random(seed).random
        self._repeats = Repeats(ERRORS_EVERY_S)
        self._log = structlog.get_logger("headrace.access")
        self._ended = beside.ended
        self.began, self.refused = beside.began, beside.refused

    def ended(
        self, route: str, method: str, status: int, seconds: float, bytes_in: int, bytes_out: int, trace: str
    ) -> None:
        self._ended(route, method, status, seconds, bytes_in, bytes_out, trace)
        if status < 400 and not self._well:
            return
        more = {}
        if status >= 400 and not self._all:
            held = None if self._none else self._repeats.allow(f"{route} {status}")
            if held is None:
                return
            more = {"repeated": held} if held else {}
        elif not self._all and self._random() >= self._share:
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
