"""The newest messages of a source's topics, read once without a group: nothing is committed and nobody is moved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.flows.batch import EventBatch
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.settings import consumer_config
from headrace.flows.kafka.topics import Cluster

BATCH = 10_000
SILENT_S = 15.0


def newest_batches(
    source: KafkaSource, overrides: Mapping[str, Any] | None = None, *, rows: int, silent_s: float = SILENT_S
) -> Iterator[tuple[EventBatch, int]]:
    """The newest messages as events, each partition's in order, and how many of a batch could not be read.

    Args:
        overrides: settings of the run. rows: how many messages in all, an equal share of each partition.
        silent_s: how long the broker may say nothing before it is given up.

    Raises:
        ClusterError: Kafka cannot be reached, refuses, or has no such topic.
        DataError: it stopped answering half way.
    """
    cluster = Cluster.of(source, overrides)
    counts = cluster.partitions(source.topics)
    ends, begins = cluster.offsets(counts, "latest"), cluster.offsets(counts, "earliest")
    share = max(1, rows // max(1, len(ends)))
    left = {place: max(begins[place], end - share) for place, end in ends.items() if end > begins[place]}
    if not left:
        return
    decoder = MessageDecoder(source, overrides)
    consumer = Consumer({**consumer_config(source, "headrace.advise", overrides), "enable.partition.eof": True})
    heard = time.monotonic()
    try:
        consumer.assign([TopicPartition(topic, number, at) for (topic, number), at in left.items()])
        while left:
            messages = consumer.consume(BATCH, 0.5)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > silent_s:
                raise DataError(
                    f"Source '{source.name}': Kafka sent no message for {silent_s:.0f} s, with "
                    f"{sum(ends[place] - at for place, at in left.items()):,} left to read. Is the broker there?"
                )
            good: list[Message] = []
            for message in messages:
                place = (str(message.topic()), int(message.partition() or 0))
                if place not in left:  # beyond what was there at the start
                    continue
                offset = int(message.offset() or 0)
                if message.error() is None:
                    if offset < ends[place]:
                        good.append(message)
                    offset += 1
                if offset >= ends[place]:  # also the end of a partition whose last offsets hold no message
                    del left[place]
            if good:
                batch, dead, _ = decoder.decode(good)
                yield batch, len(dead)
    finally:
        consumer.close()
