"""Writers of one file take turns: tasks of a process, and processes, of a machine."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_S = 0.02
SAID_AFTER_S = 10.0
"""A turn takes milliseconds; how long one waits before the log says so."""


@contextmanager
def turn(file: Path, give_up: threading.Event, waited: Callable[[], None]) -> Iterator[None]:
    """Held by one at a time; the system ends the turn of a process that is killed.

    Args:
        file: what is locked, of no other use; it stays. waited: called when the turn does not come for `SAID_AFTER_S`,
            and when `give_up` is set, where it raises.
    """
    import fcntl

    held = os.open(file, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        looks = 0
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                looks += 1
                if give_up.wait(LOOK_S) or looks * LOOK_S >= SAID_AFTER_S:
                    looks = 0
                    waited()
        yield
    finally:
        os.close(held)
