"""The command `headrace` as a process with a clock that may be wrong: `python -m tests.live.worker run FILE ...`

The variable HEADRACE_TEST_CLOCK names a file of the seconds by which this process's wall clock is wrong. SIGUSR1 has
it print where each of its threads stands.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from pathlib import Path


def main() -> None:
    faulthandler.register(signal.SIGUSR1)
    if wrong := os.environ.get("HEADRACE_TEST_CLOCK"):
        _wrong_clock(Path(wrong))
    # After the clock: whoever keeps `time.time_ns` keeps the wrong one.
    import headrace.cli

    headrace.cli.main()


def _wrong_clock(file: Path) -> None:
    right = time.time_ns

    def wrong_ns() -> int:
        return right() + int(float(file.read_text() or 0) * 1e9)

    time.time_ns = wrong_ns
    time.time = lambda: wrong_ns() / 1e9


if __name__ == "__main__":
    main()
