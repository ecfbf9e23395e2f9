"""Reading a source again, to give state to features that a checkpoint does not know.

A throw-away flow of the same views is fed everything from the oldest message left up to exactly the offsets at which
the checkpoint stands; it then has every feature's state there, and the task takes over that of the new ones. Features
that were there before keep the state they have, which may know of messages that were deleted since.

How far it has come can be saved in between, so that nearly all of it is done before the task stands still for it
(preparing.py).

    PartitionHistory   of a task beside a partition of the source
    TargetHistory      of a task after re-keying: all partitions of the source, of each what goes to this target
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.flows.batch import EventBatch
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.pipeline import SourceFlow
from headrace.flows.worker.exchange import targets
from headrace.flows.worker.seam import Seam
from headrace.flows.worker.task import judged_source

BATCH = 20_000
SILENT_S = 60.0
"""How long no message may come before the end is reached, until the broker is taken for gone."""

JUDGE = "judge-"
"""How the parts of a saved `TargetHistory` begin that tell what was let in of a source partition."""

Progress = Callable[[int], None]
"""Called with the number of messages read since the last call."""


class DeletedError(DataError):
    """What follows an earlier reading of history is no longer in the topic."""


@dataclass(frozen=True)
class Topic:
    """How a source's messages are read.

    config: of a consumer. overrides: settings of the run, for the decoder.
    """

    source: KafkaSource
    config: Mapping[str, Any]
    overrides: Mapping[str, Any]

    def batches(self, number: int, first: int | None, upto: int, progress: Progress | None = None
                ) -> Iterator[EventBatch]:  # fmt: skip
        """The events of a partition at offsets [first, upto), from the oldest left where `first` is None.

        What cannot be decoded was a dead letter then already.

        Raises:
            DeletedError: messages from `first` on were deleted. DataError: the broker gives nothing.
        """
        topic, partition = self.source.place(number)
        decoder = MessageDecoder(self.source, self.overrides)
        consumer = Consumer(
            {**self.config, "group.id": f"{self.config['group.id']}.history", "enable.partition.eof": True}
        )
        try:
            low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30.0)
            if first is not None and first < low and first < upto:
                raise DeletedError(
                    f"Topic '{topic}', partition {partition}: offsets {first:,} to {low:,} were deleted before the "
                    "history of a new feature came to them. Prepare it again (headrace prepare)."
                )
            at, heard = low if first is None else first, time.monotonic()
            consumer.assign([TopicPartition(topic, partition, at)])
            while at < upto:
                messages = consumer.consume(BATCH, 0.2)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENT_S:
                    raise DataError(
                        f"Topic '{topic}', partition {partition}: no message for {SILENT_S:.0f} s at offset {at:,}, on "
                        f"the way to {upto:,}, while the history of a new feature was read. Is the broker there?"
                    )
                good = []
                for message in messages:
                    offset = int(message.offset() or 0)
                    if message.error() is None and offset < upto:
                        good.append(message)
                        at = offset + 1
                    else:  # the end of the partition, or a message beyond ours
                        at = max(at, offset)
                if good:
                    yield decoder.decode(good, np.full(len(good), number, dtype=np.int32))[0]
                    if progress is not None:
                        progress(len(good))
        finally:
            consumer.close()


def never_silent(source: KafkaSource) -> KafkaSource:
    """The source with partitions that always count: they are read one after the other, and in two goes, so that the
    wall's clock says nothing of their silence. A history then never settles further than the flow itself."""
    made = copy(source)
    object.__setattr__(made, "idle_after_us", None)
    return made


class History(ABC):
    """A flow that is fed the events of a task again.

    live: whether the task's clock is the wall's. flow: of the views that lack state. next: by source partition, the
    offset behind the events that it has had; one that is not there has had none. seams: by source partition, where the
    topic joins history from files that it has had too.
    """

    def __init__(self, topic: Topic, live: bool) -> None:
        self.topic, self.live = topic, live
        self.flow: SourceFlow
        self.next: dict[int, int] = {}
        self.seams: dict[int, Seam] = {}

    @abstractmethod
    def read(self, upto: Mapping[int, int], now_us: int, progress: Progress | None = None) -> None:
        """Take the events of each partition before these offsets. Raises DataError as `Topic.batches`."""

    def save(self) -> dict[str, bytes]:
        """All that it knows, for `load` of another one of the same task and views."""
        return {name: part.data for name, part in self.flow.save(full=True).items()}

    def load(self, parts: Mapping[str, bytes], following: Mapping[int, int], seams: Mapping[int, Seam]) -> None:
        """Go on from what another one saved, behind these offsets. Raises SnapshotError: it is not of these views."""
        self.flow.load({name: [data] for name, data in parts.items()})
        self.next, self.seams = dict(following), dict(seams)

    def _unseen(self, number: int, batch: EventBatch) -> EventBatch:
        seam = self.seams.get(number)
        return batch if seam is None else seam.unseen(batch, self.topic.source.dedup)


class PartitionHistory(History):
    """Of partition `number` of the source."""

    def __init__(self, topic: Topic, views: Sequence[ViewDefinition], number: int, *, live: bool) -> None:
        super().__init__(topic, live)
        self._number = number
        self.flow = SourceFlow(never_silent(topic.source), views, live=live, partitions=[number])

    def read(self, upto: Mapping[int, int], now_us: int, progress: Progress | None = None) -> None:
        number = self._number
        for batch in self.topic.batches(number, self.next.get(number), upto[number], progress):
            self.flow.push(self._unseen(number, batch), now_us if self.live else None, now_us)
        self.next[number] = upto[number]


class TargetHistory(History):
    """Of partition `target` of a repartition topic.

    numbers: of the source's partitions. mine: key columns, number of partitions of the repartition topic, and which of
    them this is.
    """

    def __init__(
        self,
        topic: Topic,
        views: Sequence[ViewDefinition],
        numbers: Sequence[int],
        mine: tuple[Sequence[str], int, int],
        *,
        live: bool,
    ) -> None:
        super().__init__(topic, live)
        self._mine = mine
        source = never_silent(topic.source)
        self.flow = SourceFlow(judged_source(source), views, live=live, partitions=list(numbers))
        self._judges = {number: SourceFlow(source, [], live=live, partitions=[number]) for number in numbers}

    def read(self, upto: Mapping[int, int], now_us: int, progress: Progress | None = None) -> None:
        keys, partitions, target = self._mine
        clock = now_us if self.live else None
        reading = {
            number: self.topic.batches(number, self.next.get(number), end, progress) for number, end in upto.items()
        }
        while reading:
            # Always the partition that is furthest behind: what waits for the watermark stays little.
            number = min(reading, key=lambda each: self._judges[each].newest_us or 0)
            batch = next(reading[number], None)
            if batch is None:
                del reading[number]
                continue
            judge = self._judges[number]
            taken = judge.push(self._unseen(number, batch), clock, now_us).batch
            newest = judge.newest_us
            if taken is not None and newest is not None:
                its = taken.take(np.flatnonzero(targets(taken, keys, partitions) == target))
                self.flow.push_judged(its if len(its) else None, {number: newest}, clock)
        self.next.update(upto)

    def save(self) -> dict[str, bytes]:
        judges = {f"{JUDGE}{number}": judge.judgement() for number, judge in self._judges.items()}
        return {**super().save(), **judges}

    def load(self, parts: Mapping[str, bytes], following: Mapping[int, int], seams: Mapping[int, Seam]) -> None:
        super().load({name: data for name, data in parts.items() if not name.startswith(JUDGE)}, following, seams)
        for name, data in parts.items():
            if name.startswith(JUDGE):
                self._judges[int(name.removeprefix(JUDGE))].take_judgement(data)
