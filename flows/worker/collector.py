"""Python's garbage collector, kept out of a worker's way.

A batch makes tens of thousands of message objects that are freed by their reference counts. At the usual thresholds the
collector looks through the young ones 1,400 times per million events, and again and again through the whole program,
0.1 to 0.3 s each time: half the time of a worker, and most of what makes a row late.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 50)
"""New objects until the young are looked through; how often so until the middle-aged are; and then the old."""


@contextmanager
def calm_collector() -> Iterator[None]:
    """Collect rarely, and never what is there already, for the time of a `with` statement.

    Cycles are still found, only later: some ten thousand objects may wait.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
