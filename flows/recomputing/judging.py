"""The judges of a history: one for each partition that its rows say they came by (contract C7).

A connector writes files by partition, one after the other. As one stream, whatever the second holds would be late.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from headrace.flows.admission import Admission
from headrace.flows.batch import EventBatch

Ints = npt.NDArray[np.int64]


class Judges:
    """Admission by partition; partitions do not know of each other.

    Args:
        make: a new judge. column: of the events, their partition; None: all are of one.
    """

    def __init__(self, make: Callable[[], Admission], column: str | None) -> None:
        self._make = make
        self._column = column
        self._judges: dict[int, Admission] = {}

    def take(self, batch: EventBatch, wall_us: int | None) -> tuple[EventBatch, Counter[str]]:
        """Those let in, in order of offset as they were, and how many of the others were refused for each reason.

        Args:
            batch: the next events of the source. wall_us: see `Admission.admit`.
        """
        taken: list[EventBatch] = []
        dead: Counter[str] = Counter()
        for number, some in self._parts(batch):
            if number not in self._judges:
                self._judges[number] = self._make()
            judge = self._judges[number]
            made = judge.admit(some, None, judge.watermark(), wall_us=wall_us)
            taken.append(made.batch)
            dead.update(letter.reason for letter in made.dead)
        if not taken:
            return batch, dead
        joined = EventBatch.concat(taken)
        return joined if len(taken) == 1 else joined.take(np.argsort(joined.offset)), dead

    def _parts(self, batch: EventBatch) -> Iterator[tuple[int, EventBatch]]:
        if self._column is None:
            yield 0, batch
            return
        numbers = batch.values(self._column)
        for number in np.unique(numbers).tolist():
            yield number, batch.take(np.flatnonzero(numbers == number))
