"""The seam between a history that was read from files and the topic that goes on after it."""

import msgspec
import numpy as np

from headrace.flows.batch import EventBatch

BEFORE_TOPIC = 1 << 47
"""What is taken from a row's number, to have the offset of an event that has none: all of them, in the order of their
rows, come before the topic's at the same instant (contract C4)."""


class Seam(msgspec.Struct, frozen=True):
    """What the history holds of a partition of the source.

    An event of the topic is in the history if it stands before `end`, where the topic ended when the history was read,
    and its time is not after `until`. Where events have ids those of the last `lateness` are told by them instead, from
    `ids_from` on: who exports a topic while late events still come has not all of them.

    end: offset. until, ids_from: microseconds; None: nothing is in the history; no event is told by its id.
    """

    end: int
    until: int | None
    ids_from: int | None = None

    def unseen(self, batch: EventBatch, dedup: str | None) -> EventBatch:
        """The events of a batch of the partition that are not in the history.

        dedup: the column of ids.
        """
        if self.until is None or not len(batch) or int(batch.offset[0]) >= self.end:
            return batch
        known = (batch.offset < self.end) & (batch.time <= self.until)
        if self.ids_from is not None and dedup is not None:
            known &= (batch.time < self.ids_from) | ~batch.valid(dedup)
        return batch if not known.any() else batch.take(np.flatnonzero(~known))
