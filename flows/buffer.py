"""Events between the online reading and the settled log: held in columns until the watermark passes them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.flows.ordering import in_order

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
GATHERED = 512
"""Events up to which batches are gathered in one chunk."""


@dataclass(frozen=True)
class Prepared:
    """n events of one view, ready for the kernels.

    slot: (n,) int64. time, effective: (n,) int64 microseconds. position: (n,) int64, orders events of one instant.
    inputs: (n, inputs) float64, or int64 bits. masks: (n, masks) uint8.
    objects: (n, object columns) object: values for features whose state is a Python object, None where missing.
    """

    slot: Ints
    time: Ints
    effective: Ints
    position: Ints
    inputs: Array
    masks: Array
    objects: Array

    def __len__(self) -> int:
        return len(self.slot)

    def take(self, chosen: Array | slice) -> "Prepared":
        """The chosen events, in the order given."""
        return Prepared(**{f.name: np.ascontiguousarray(getattr(self, f.name)[chosen]) for f in fields(self)})

    def on_slots(self, numbers: Ints) -> "Prepared":
        """The same events after slot s got the number `numbers[s]`."""
        return Prepared(**{**self.arrays(), "slot": numbers[self.slot]})

    def arrays(self) -> dict[str, Array]:
        """Every column by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def concat(cls, parts: Sequence["Prepared"]) -> "Prepared":
        """All events of one or more parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


class SettlingBuffer:
    """Events that have not settled, in chunks as they came.

    A chunk is touched again only when the watermark reaches its earliest event, so that a long lateness does not make
    every batch pay for all that waits.
    """

    def __init__(self) -> None:
        self._chunks: list[tuple[int, int, Prepared]] = []  # (least effective instant, greatest, events)
        self._fresh: list[bool] = []  # whether each chunk came after the last snapshot
        self._small: list[Prepared] = []  # batches that will be one chunk
        self._gathered = 0  # events in them

    def __len__(self) -> int:
        return sum(len(events) for _, _, events in self._chunks) + self._gathered

    def add(self, events: Prepared) -> None:
        """Hold a batch of events back. Small ones are gathered: a live flow brings hundreds a second."""
        if self._gathered + len(events) > GATHERED:
            self._close()
        if len(events) > GATHERED:
            self._chunks.append((int(events.effective.min()), int(events.effective.max()), events))
            self._fresh.append(True)
        elif len(events):
            self._small.append(events)
            self._gathered += len(events)

    def _close(self) -> None:
        """Make one chunk of the small batches, and of the chunk before where that is small too."""
        if not self._small:
            return
        before = self._chunks[-1][2] if self._chunks and self._fresh[-1] else None
        if before is not None and len(before) + self._gathered <= GATHERED:
            self._small.insert(0, before)
            self._chunks.pop()
            self._fresh.pop()
        events = Prepared.concat(self._small)
        self._small, self._gathered = [], 0
        self._chunks.append((int(events.effective.min()), int(events.effective.max()), events))
        self._fresh.append(True)

    def take(self, upto: int) -> Prepared | None:
        """Remove and return the events effective at or before instant `upto`; None if there are none.

        They are sorted by effective instant, event time and source position: a total order, so that what is
        computed from them is the same to the last bit for any batches and arrival.
        """
        self._close()
        due: list[Prepared] = []
        kept: list[tuple[int, int, Prepared]] = []
        still_fresh: list[bool] = []
        for (least, greatest, events), fresh in zip(self._chunks, self._fresh, strict=True):
            if greatest > upto:
                still_fresh.append(fresh)
            if least > upto:
                kept.append((least, greatest, events))
            elif greatest <= upto:
                due.append(events)
            else:
                now = events.effective <= upto
                due.append(events.take(now))
                rest = events.take(~now)
                kept.append((int(rest.effective.min()), greatest, rest))
        self._chunks, self._fresh = kept, still_fresh
        if not due:
            return None
        events = Prepared.concat(due)
        return events.take(in_order(events.effective, lambda at: (events.time[at], events.position[at])))

    def all(self) -> list[Prepared]:
        """The chunks in the order in which they came."""
        self._close()
        return [events for _, _, events in self._chunks]

    def joined(self) -> Prepared | None:
        """All that waits, in the order in which it came; None if nothing does."""
        return Prepared.concat(self.all()) if len(self) else None

    def slots(self) -> Ints:
        """Slots of which an event waits, with repetitions."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(events.slot for events in self.all())])

    def renumber(self, numbers: Ints) -> None:
        """Slot s has got the number `numbers[s]`."""
        self._close()
        self._chunks = [(a, b, events.on_slots(numbers)) for a, b, events in self._chunks]

    def copy(self) -> "SettlingBuffer":
        """The same events; chunks are never written into, so they are shared."""
        self._close()
        made = SettlingBuffer()
        made._chunks, made._fresh = list(self._chunks), list(self._fresh)
        return made

    def unsaved(self) -> list[Prepared]:
        """The chunks that came after the last call of `saved`, or what is left of them."""
        self._close()
        return [events for (_, _, events), fresh in zip(self._chunks, self._fresh, strict=True) if fresh]

    def saved(self) -> None:
        """Everything that waits is in a snapshot."""
        self._close()
        self._fresh = [False] * len(self._chunks)
