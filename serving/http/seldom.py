"""A log that stays readable when every request fails of the same cause."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


class SeldomLog:
    """Writes an error when it is the first of its class in `every_s` seconds, and counts those it leaves out.

    Args:
        now: clock in seconds, for tests.
    """

    def __init__(
        self, logger: logging.Logger, every_s: float = 10.0, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger, self._every_s, self._now = logger, every_s, now
        self._known: dict[type[BaseException], tuple[float, int]] = {}

    def write(self, level: int, said: str, error: BaseException, *, traceback: bool = False) -> None:
        """Log `said` and the error, in words or with its traceback."""
        at = self._now()
        last, left_out = self._known.get(type(error), (-self._every_s, 0))
        if at - last < self._every_s:
            self._known[type(error)] = last, left_out + 1
            return
        self._known[type(error)] = at, 0
        since = f" ({left_out:,} more since the last line of its kind)" if left_out else ""
        if traceback:
            self._logger.log(level, "%s%s", said, since, exc_info=error)
        else:
            self._logger.log(level, "%s%s: %s", said, since, error)
