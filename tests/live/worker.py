"""One worker of a flow as a process: `python -m tests.live.worker FILE SETTINGS` (JSON of FlowSettings).

What `headrace run FILE` does for one worker, with one thing more: the variable HEADRACE_TEST_CLOCK names a file of the
seconds by which this process's wall clock is wrong.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path


def main(file: str, settings: str) -> None:
    if wrong := os.environ.get("HEADRACE_TEST_CLOCK"):
        _wrong_clock(Path(wrong))
    # After the clock: whoever keeps `time.time_ns` keeps the wrong one.
    from headrace.cli.loading import load
    from headrace.flows.worker.running import run_worker
    from headrace.flows.worker.settings import FlowSettings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    print(run_worker(load(Path(file)).views, FlowSettings(**json.loads(settings))), flush=True)


def _wrong_clock(file: Path) -> None:
    right = time.time_ns

    def wrong_ns() -> int:
        return right() + int(float(file.read_text() or 0) * 1e9)

    time.time_ns = wrong_ns
    time.time = lambda: wrong_ns() / 1e9


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
