"""What a source's topic holds when a backfill of its history begins: offsets, oldest events, keys."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import Consumer, Message, TopicPartition

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.flows.batch import EventBatch
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.settings import consumer_config
from headrace.flows.kafka.topics import Cluster
from headrace.flows.worker.settings import FlowSettings

SILENT_S = 30.0
"""How long the broker may say nothing before it is given up."""
KEYS = 500
"""Newest messages of each partition whose keys are looked at."""
OLDEST = 20
"""Oldest messages of a partition among which one can be read."""


@dataclass(frozen=True)
class Keyed:
    """A batch of a partition's events and the keys of their messages, one each."""

    batch: EventBatch
    keys: list[bytes | None]


class TopicNow(Protocol):
    """What a handover has to know of a topic.

    numbers: of all partitions. begins, ends: by number, the offsets of the oldest message and of the next one.
    """

    @property
    def numbers(self) -> tuple[int, ...]:
        """Ascending."""

    @property
    def begins(self) -> Mapping[int, int]: ...

    @property
    def ends(self) -> Mapping[int, int]: ...

    def sample(self) -> Iterator[tuple[int, Keyed]]:
        """Some of the messages of each partition."""

    def oldest_us(self, number: int) -> int | None:
        """Time of the oldest event of a partition that can be read, microseconds; None: there is none."""

    def stamped_after(self, us: int) -> dict[int, int]:
        """By number, the offset of the first message with a timestamp after the instant, or where the next will be."""

    def repartitioned(self, topic: str) -> tuple[int, dict[int, int]]:
        """Make a repartition topic unless it is there; how many partitions it has, and where each of them ends."""


class KafkaNow:
    """The topics of a source as Kafka tells of them."""

    def __init__(self, source: KafkaSource, settings: FlowSettings) -> None:
        self._source, self._settings = source, settings
        self._cluster = Cluster.of(source, settings.kafka)
        self._counts = self._cluster.partitions(source.topics)
        self.begins = self._numbered(self._cluster.offsets(self._counts, "earliest"))
        self.ends = self._numbered(self._cluster.offsets(self._counts, "latest"))
        self.numbers = tuple(sorted(self.ends))

    def _numbered(self, offsets: Mapping[tuple[str, int], int]) -> dict[int, int]:
        return {self._source.number(*place): offset for place, offset in offsets.items()}

    def sample(self) -> Iterator[tuple[int, Keyed]]:
        for number in self.numbers:
            first = max(self.begins[number], self.ends[number] - KEYS)
            yield from ((number, keyed) for keyed in self._read(number, first, self.ends[number]))

    def oldest_us(self, number: int) -> int | None:
        first = self.begins[number]
        for keyed in self._read(number, first, min(self.ends[number], first + OLDEST)):
            if len(keyed.batch):
                return int(keyed.batch.time[0])
        return None

    def stamped_after(self, us: int) -> dict[int, int]:
        return self._numbered(self._cluster.offsets(self._counts, us + 1))

    def repartitioned(self, topic: str) -> tuple[int, dict[int, int]]:
        there = topic in self._cluster.topics()
        partitions = self._cluster.ensure_repartition_topic(topic, len(self.numbers))
        if not there:  # brokers may not tell its offsets yet
            return partitions, dict.fromkeys(range(partitions), 0)
        ends = self._cluster.offsets({topic: partitions}, "latest")
        return partitions, {number: offset for (_, number), offset in ends.items()}

    def _read(self, number: int, first: int, upto: int) -> Iterator[Keyed]:
        """The messages of a partition at offsets [first, upto) that can be decoded."""
        if first >= upto:
            return
        topic, partition = self._source.place(number)
        decoder = MessageDecoder(self._source, self._settings.kafka)
        config: dict[str, Any] = consumer_config(self._source, "headrace.backfill", self._settings.kafka)
        consumer = Consumer({**config, "enable.partition.eof": True})
        try:
            consumer.assign([TopicPartition(topic, partition, first)])
            heard, at = time.monotonic(), first
            while at < upto:
                messages = consumer.consume(KEYS, 0.2)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENT_S:
                    raise DataError(
                        f"Topic '{topic}', partition {partition}: no message for {SILENT_S:.0f} s at offset {at:,}, of "
                        f"{upto:,}. Is the broker there?"
                    )
                good: list[Message] = []
                for message in messages:
                    offset = int(message.offset() or 0)
                    if message.error() is None and offset < upto:
                        good.append(message)
                        at = offset + 1
                    else:  # the end of the partition, or a message beyond
                        at = max(at, offset)
                if good:
                    batch, _, _ = decoder.decode(good)
                    keys = {message.offset(): message.key() for message in good}
                    yield Keyed(batch, [keys[offset] for offset in batch.offset.tolist()])
        finally:
            consumer.close()
