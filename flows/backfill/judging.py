"""The events of a history, judged as the tasks of a live flow would have judged them, into the parts of its log.

batch of the file -> by source partition -> its judge -+-> views beside the partition        rides-0003
                                                       '-> by entity -> the target's judge   rides.by.city-0001
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from headrace.features.errors import DataError
from headrace.features.views import ViewDefinition
from headrace.flows.admission import Admission
from headrace.flows.backfill.seams import Reached
from headrace.flows.backfill.sharing import Sharing
from headrace.flows.backfill.site import Counts
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.pipeline import by_effect, by_time
from headrace.flows.worker.exchange import targets
from headrace.flows.worker.seam import BEFORE_TOPIC
from headrace.flows.worker.stages import Route, Stages
from headrace.flows.worker.task import judged_source


@dataclass(frozen=True)
class Part:
    """A part of the flow's log.

    name: of the part. offsets: under which a checkpoint keeps the offset. number: of the source's partition, or of the
    repartition topic's. route: None beside the source's partitions. partitions: of the topic(s) that its task reads.
    """

    name: str
    offsets: str
    number: int
    views: tuple[ViewDefinition, ...]
    route: Route | None
    partitions: int


def parts_of(stages: Stages, numbers: Sequence[int], route_partitions: Mapping[str, int]) -> Iterator[Part]:
    """As a worker divides the views of a source."""
    source = stages.source
    for number in numbers:
        yield Part(f"{source.name}-{number:04d}", source.name, number, stages.direct, None, len(numbers))
    for route in stages.routes:
        partitions = route_partitions[route.topic]
        for target in range(partitions):
            yield Part(f"{route.name}-{target:04d}", route.name, target, route.views, route, partitions)


class Judges:
    """One for each part, and who an event is passed to.

    Args:
        live: whether the flow's clock is the wall's. now_us: the wall clock, microseconds. repair: no event is late.
        to_us: later events are left for the topic; None: none is.
    """

    def __init__(
        self,
        stages: Stages,
        numbers: Sequence[int],
        parts: Sequence[Part],
        sharing: Sharing,
        *,
        live: bool,
        now_us: int,
        repair: bool,
        to_us: int | None,
    ) -> None:
        source = self._source = stages.source
        self._numbers, self._parts, self._sharing = tuple(numbers), tuple(parts), sharing
        self._clock = now_us if live else None
        self._now, self._to = now_us, to_us
        judged = judged_source(source)
        own = numbers if sharing.known else numbers[:1]
        self._own = {number: Admission(source, [number], live=live) for number in own}
        self._targets = {part.name: Admission(judged, numbers, live=live) for part in parts if part.route is not None}
        self._lenient: dict[object, Admission] = {}
        if repair:
            self._lenient = {number: Admission(source, [number], live=live, repair=True) for number in own}
            for part in parts:
                if part.route is not None:
                    self._lenient[part.name] = Admission(judged, numbers, live=live, repair=True)
        self._direct = {part.number: part.name for part in parts if part.route is None}
        self._following: dict[int, int] = {}
        self._columns = sorted({name for part in parts for view in part.views for name in view.event_columns})
        self.counts = Counts()

    def take(self, batch: EventBatch) -> Iterator[tuple[str, EventBatch | None, list[DeadLetter]]]:
        """What a batch of the history, in its order, brings to each part: its name, events and dead letters."""
        numbers = self._sharing.numbers(batch)
        placed = self._placed(batch, numbers)
        if self._to is not None:
            later = placed.time > self._to
            self.counts.left += int(later.sum())
            placed = placed if not later.any() else placed.take(np.flatnonzero(~later))
        for number in np.unique(placed.partition).tolist():
            yield from self._judged(number, placed.take(np.flatnonzero(placed.partition == number)))

    @property
    def end(self) -> int | None:
        """All of a history is read: what is after the last instant asked for is left one by one."""
        return None

    def save(self) -> dict[str, bytes]:
        """What another judge has to know to go on from here."""
        judges = {**_named("own", self._own), **_named("target", self._targets), **_named("lenient", self._lenient)}
        following = msgspec.msgpack.encode(self._following)
        return {"following": following, **{name: each.save(full=True).data for name, each in judges.items()}}

    def load(self, saved: Mapping[str, bytes]) -> None:
        """Go on from what another has saved."""
        judges = {**_named("own", self._own), **_named("target", self._targets), **_named("lenient", self._lenient)}
        for name, each in judges.items():
            each.load([saved[name]])
        self._following = msgspec.msgpack.decode(saved["following"], type=dict[int, int])

    def _judged(self, number: int, batch: EventBatch) -> Iterator[tuple[str, EventBatch | None, list[DeadLetter]]]:
        strict = self._own[number]
        admitted = strict.admit(batch, self._clock, strict.watermark(self._clock), wall_us=self._now)
        if number in self._lenient:
            admitted = self._lenient[number].admit(batch, self._clock, wall_us=self._now)
        taken, letters = admitted.batch, [self._lettered(letter) for letter in admitted.dead]
        counts = self.counts
        counts.taken, counts.duplicates = counts.taken + len(taken), counts.duplicates + admitted.duplicates
        counts.dead.update(letter.reason for letter in letters)
        for name in self._columns:
            missing = len(taken) - int(taken.valid(name).sum())
            if missing:
                counts.missing[name] += missing
        yield self._direct[number], taken if len(taken) else None, letters
        if len(taken):
            yield from self._passed_on(taken)

    def _passed_on(self, batch: EventBatch) -> Iterator[tuple[str, EventBatch | None, list[DeadLetter]]]:
        where: dict[tuple[str, ...], np.ndarray] = {}
        for part in self._parts:
            if part.route is None:
                continue
            keys = part.route.keys
            if keys not in where:
                where[keys] = targets(batch, keys, part.partitions)
            its = batch.take(np.flatnonzero(where[keys] == part.number))
            if not len(its):
                continue
            strict = self._targets[part.name]
            admitted = strict.admit(by_effect(its), self._clock, strict.watermark(self._clock), judged=True)
            if part.name in self._lenient:
                admitted = self._lenient[part.name].admit(by_effect(its), self._clock, judged=True)
            self.counts.duplicates += admitted.duplicates
            letters = [self._lettered(letter) for letter in admitted.dead]
            self.counts.dead.update(letter.reason for letter in letters)
            taken = by_time(admitted.batch, self._source.schema.time_field)
            yield part.name, taken if len(taken) else None, letters

    def _placed(self, batch: EventBatch, numbers: np.ndarray) -> EventBatch:
        """The events with the event's own columns, and a place each: before the topic's, or at their own offset."""
        columns = {name: batch.columns[name] for name in self._source.schema.names}
        offset = batch.offset - BEFORE_TOPIC
        if self._sharing.exact:
            assert self._source.history_position is not None
            offset = batch.values(self._source.history_position[1])
            self._follow(numbers, offset, batch.offset)
        return EventBatch(columns, batch.time, np.ascontiguousarray(numbers), np.ascontiguousarray(offset), batch.time)

    def _follow(self, numbers: np.ndarray, offset: np.ndarray, rows: np.ndarray) -> None:
        """Offsets of a partition must rise, as verdicts depend on its order and each event counts once."""
        for number in np.unique(numbers).tolist():
            at = np.flatnonzero(numbers == number)
            its = offset[at]
            before = np.append(self._following.get(number, 0) - 1, its[:-1])
            wrong = np.flatnonzero(its <= before)
            if len(wrong):
                first = int(wrong[0])
                raise DataError(
                    f"Source '{self._source.name}': row {int(rows[at[first]])} of its history is offset "
                    f"{int(its[first])} of partition {number}, after offset {int(before[first])}. Order its rows by "
                    "partition and offset, in the order of the files' names, each once."
                )
            self._following[number] = int(its[-1]) + 1

    def _lettered(self, letter: DeadLetter) -> DeadLetter:
        """A dead letter of the history: its place is a row, or that of the topic."""
        if letter.offset < 0:
            assert self._source.history is not None
            return replace(letter, source=self._source.history.name, partition=0, offset=letter.offset + BEFORE_TOPIC)
        topic, partition = self._source.place(letter.partition)
        return replace(letter, topic=topic, partition=partition)

    def end_all(self) -> tuple[dict[str, Admission], dict[int, Reached]]:
        """The judge of each part, and how far each partition has come: once everything was taken."""
        own = dict(self._own)
        if not self._sharing.known:
            only = self._own[self._numbers[0]]
            own = {number: only.of_partition(number) for number in self._numbers}
        reached = {
            number: Reached(judge.newest, judge.watermark(self._clock), self._following.get(number))
            for number, judge in own.items()
        }
        made: dict[str, Admission] = {}
        for part in self._parts:
            if part.route is None:
                made[part.name] = own[part.number]
                continue
            target = made[part.name] = self._targets[part.name]
            for number, each in reached.items():
                if each.newest is not None:
                    target.hear(number, each.newest, self._clock)
            target.watermark(self._clock)
        return made, reached


def _named(kind: str, judges: Mapping[Any, Admission]) -> dict[str, Admission]:
    return {f"{kind} {name}": each for name, each in judges.items()}
