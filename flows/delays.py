"""How late the events of a source come, and what each choice of `lateness` would make of them.

An event's delay is how much older it is than the newest event that its partition had taken before it; 0 for one that is
newest itself. An event is late exactly if its delay is greater than `lateness` (contract C7), and a late one never is
the newest, so delays do not depend on the lateness in force: one pass says of every choice how many would be late.
What is refused for another reason (broken, beyond `max_ahead`, a repeated id) has no delay and is counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.features.sources import Source
from headrace.features.time import DAY, HOUR, MINUTE, SECOND, format_duration
from headrace.flows.admission import Admission
from headrace.flows.lanes import NEVER

if TYPE_CHECKING:
    import numpy.typing as npt

    from headrace.flows.batch import EventBatch

CHOICES_US = (
    0,
    *(1_000 * each for each in (1, 10, 100)),
    *(SECOND * each for each in (1, 2, 5, 10, 20, 30)),
    *(MINUTE * each for each in (1, 2, 5, 10, 15, 30)),
    *(HOUR * each for each in (1, 2, 3, 6, 12)),
    *(DAY * each for each in (1, 2, 3, 7, 14, 30, 90, 365)),
)
"""Microseconds: what `lateness` is chosen from."""


@dataclass(frozen=True)
class Choice:
    """What a choice of `lateness` would do.

    Attributes:
        lateness_us: the choice, microseconds; the log settles that long after the newest event.
        late: events that would go to dead letter. share: of all that were judged.
        held: events that wait for the log to settle at any time, on average.
    """

    lateness_us: int
    late: int
    share: float
    held: int


@dataclass(frozen=True)
class Advice:
    """The delays of a source and what they suggest.

    Attributes:
        source: its name. current_us: its `lateness` now.
        events: that were judged. in_order: of them, those that were the newest of their partition, or as new.
        longest_us: the longest delay. first_us, last_us: instants of the oldest and the newest event; None without any.
        partitions: that sent any. broken, ahead, repeated: messages that have no delay: unreadable, beyond
            `max_ahead`, with an id seen before.
        target: the share of late events that is put up with.
        choices: by lateness; how many events have a delay between two of them is the difference of their `late`.
        recommended_us: the least choice that keeps to the target; None without events.
    """

    source: str
    current_us: int
    events: int
    in_order: int
    longest_us: int
    first_us: int | None
    last_us: int | None
    partitions: int
    broken: int
    ahead: int
    repeated: int
    target: float
    choices: tuple[Choice, ...]
    recommended_us: int | None

    def choice(self, lateness_us: int) -> Choice:
        """The choice of this lateness; raises KeyError if it is none of `choices`."""
        for each in self.choices:
            if each.lateness_us == lateness_us:
                return each
        raise KeyError(format_duration(lateness_us))


class Delays:
    """Counts the delays of a source's events, batch by batch in the order of arrival. Memory: a cell per partition.

    Args:
        live: events are judged by the wall clock for being ahead, else by the stream's own.
        also: choices of lateness, microseconds, beside `CHOICES_US` and the source's own.
    """

    def __init__(self, source: Source, *, live: bool = False, also: Sequence[int] = ()) -> None:
        self.source = source
        # With repair nothing is late, so that what is left are all events that have a delay.
        self._judge = Admission(source, live=live, repair=True)
        self._limits = np.array(sorted({*CHOICES_US, source.lateness_us, *also}), dtype=np.int64)
        self._counts = np.zeros(len(self._limits) + 1, dtype=np.int64)  # (limit before, limit]; the last: beyond all
        self._newest: dict[int, int] = {}
        self._events = self._in_order = self._broken = self._ahead = self._repeated = 0
        self._longest = 0
        self._oldest: int | None = None

    def add(self, batch: EventBatch, broken: int = 0, *, clock_us: int | None = None) -> None:
        """Take a batch, and how many messages among it could not be read. clock_us: the wall clock of a live flow."""
        self._broken += broken
        judged = self._judge.admit(batch, clock_us, wall_us=clock_us)
        self._ahead += len(judged.dead)
        self._repeated += judged.duplicates
        taken = judged.batch
        if not len(taken):
            return
        delay = np.empty(len(taken), dtype=np.int64)
        for partition in np.unique(taken.partition).tolist():
            its = taken.partition == partition
            delay[its] = self._behind(int(partition), taken.time[its])
        np.add.at(self._counts, np.searchsorted(self._limits, delay), 1)
        self._events += len(delay)
        self._in_order += int((delay == 0).sum())
        self._longest = max(self._longest, int(delay.max()))
        oldest = int(taken.time.min())
        self._oldest = oldest if self._oldest is None else min(self._oldest, oldest)

    def advice(self, target: float = 0.001) -> Advice:
        """What the delays so far suggest.

        Args:
            target: the share of events that may be late, 0 to 1.
        """
        newest = max(self._newest.values(), default=None)
        span = (newest - self._oldest) if newest is not None and self._oldest is not None else 0
        late = self._events - np.cumsum(self._counts)[:-1]
        limits, counts = self._limits.tolist(), late.tolist()
        if counts[-1]:  # nothing that is offered is enough: whole days beyond the longest
            limits.append(-(-self._longest // DAY) * DAY)
            counts.append(0)
        choices = tuple(
            Choice(
                limit,
                count,
                count / self._events if self._events else 0.0,
                min(self._events, round(self._events * limit / span)) if span else self._events,
            )
            for limit, count in zip(limits, counts, strict=True)
        )
        fitting = [each.lateness_us for each in choices if each.share <= target]
        return Advice(
            source=self.source.name,
            current_us=self.source.lateness_us,
            events=self._events,
            in_order=self._in_order,
            longest_us=self._longest,
            first_us=self._oldest,
            last_us=newest,
            partitions=len(self._newest),
            broken=self._broken,
            ahead=self._ahead,
            repeated=self._repeated,
            target=target,
            choices=choices,
            recommended_us=fitting[0] if self._events else None,
        )

    def _behind(self, partition: int, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        before = self._newest.get(partition, NEVER)
        newest = np.maximum.accumulate(np.maximum(times, before))
        self._newest[partition] = int(newest[-1])
        behind: npt.NDArray[np.int64] = newest - times
        return behind


def delays_of(
    source: Source,
    batches: Iterable[tuple[EventBatch, int]],
    *,
    live_clock_us: int | None = None,
    also: Sequence[int] = (),
) -> Delays:
    """The delays of batches, each with the number of broken messages among it; live_clock_us: the wall clock."""
    found = Delays(source, live=live_clock_us is not None, also=also)
    for batch, broken in batches:
        found.add(batch, broken, clock_us=live_clock_us)
    return found
