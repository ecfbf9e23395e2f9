"""An event loop that stands still answers nobody, and only its own process sees it: its siblings answer the probes."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable

import structlog

from headrace.ops.errors import FAILED

AFTER_S = 30.0


class Standstill:
    """Ends a process whose loop has not turned for long, so that its supervisor starts another.

    Looks are counted, not seconds: a process that was stopped, or a machine that slept, has not been looking either.

    Args:
        turns: changes with every turn of the loop; 0 before the first. every_s: how often `look` is called, in another
            thread than the loop's. after_s: how long the loop may stand. end: what to do then.
    """

    def __init__(
        self,
        turns: Callable[[], float],
        every_s: float,
        *,
        after_s: float = AFTER_S,
        end: Callable[[], None] | None = None,
    ) -> None:
        self._turns, self._every_s, self._after_s = turns, every_s, after_s
        self._end = end or _end
        self._seen = 0.0
        self._looks = 0

    def look(self) -> None:
        """Has it turned since the last look?"""
        turns = self._turns()
        if turns != self._seen or not turns:
            self._seen, self._looks = turns, 0
            return
        self._looks += 1
        if self._looks * self._every_s > self._after_s:
            structlog.get_logger("headrace.server").error(
                "the loop stands still; the process ends, where it stands is told below", seconds=self._after_s
            )
            self._end()


def _end() -> None:
    faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
    os._exit(FAILED)
