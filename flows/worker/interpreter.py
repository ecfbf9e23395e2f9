"""The interpreter, tuned for a worker: a garbage collector that keeps out of the way, threads that soon take turns.

A batch makes tens of thousands of message objects that are freed by their reference counts. At the usual thresholds the
collector looks through the young ones 1,400 times per million events, and again and again through the whole program,
0.1 to 0.3 s each time: half the time of a worker, and most of what made a row late.

A thread that waits for the interpreter's lock gets it after 5 ms by default. The flow and the online writer wait for
each other all the time, and 5 ms is what a row takes on its whole way.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 50)
"""New objects until the young are looked through; how often so until the middle-aged are; and then the old."""
TURN_S = 0.0005
"""How long a thread may go on while another waits."""


@contextmanager
def tuned_interpreter() -> Iterator[None]:
    """Collect rarely and never what is there already, and take turns soon, for the time of a `with` statement.

    Cycles are still found, only later: some ten thousand objects may wait.
    """
    turn = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(TURN_S)
    try:
        with rare_collection():
            yield
    finally:
        sys.setswitchinterval(turn)
        gc.unfreeze()


@contextmanager
def rare_collection() -> Iterator[None]:
    """Collect rarely, for the time of a `with` statement."""
    thresholds = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
