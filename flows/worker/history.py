"""Reading a source again from its start, to give state to features that a checkpoint does not know.

A throw-away flow of the same views is fed everything from the oldest message left up to exactly the offsets at which
the checkpoint stands; it then has every feature's state there, and the task takes over that of the new ones. Features
that were there before keep the state they have, which may know of messages that were deleted since.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
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

BATCH = 20_000
SILENT_S = 60.0
"""How long no message may come before the end is reached, until the broker is taken for gone."""


def history_of_partition(
    source: KafkaSource,
    views: Sequence[ViewDefinition],
    config: Mapping[str, Any],
    overrides: Mapping[str, Any],
    number: int,
    upto: int,
    *,
    live: bool,
    now_us: int,
) -> SourceFlow:
    """A flow of `views` that has taken partition `number` of a source from its oldest message up to offset `upto`.

    config: of a consumer. overrides: settings of the run, for the decoder.
    """
    flow = SourceFlow(source, views, live=live, partitions=[number])
    for batch in _batches(source, config, overrides, number, upto):
        flow.push(batch, now_us if live else None, now_us)
    return flow


def history_of_target(
    source: KafkaSource,
    judged: KafkaSource,
    views: Sequence[ViewDefinition],
    config: Mapping[str, Any],
    overrides: Mapping[str, Any],
    upto: Mapping[int, int],
    mine: tuple[Sequence[str], int, int],
    *,
    live: bool,
    now_us: int,
) -> SourceFlow:
    """The same for a partition of a repartition topic: all partitions of the source, each up to its offset in `upto`.

    mine: key columns, number of partitions of the repartition topic, and which of them this is.
    """
    keys, partitions, target = mine
    flow = SourceFlow(judged, views, live=live, partitions=list(upto))
    clock = now_us if live else None
    judges = {number: SourceFlow(source, [], live=live, partitions=[number]) for number in upto}
    reading = {number: _batches(source, config, overrides, number, end) for number, end in upto.items()}
    while reading:
        # Always the partition that is furthest behind: what waits for the watermark stays little.
        number = min(reading, key=lambda each: judges[each].newest_us or 0)
        batch = next(reading[number], None)
        if batch is None:
            del reading[number]
            continue
        taken = judges[number].push(batch, clock, now_us).batch
        newest = judges[number].newest_us
        if taken is not None and newest is not None:
            its = taken.take(np.flatnonzero(targets(taken, keys, partitions) == target))
            flow.push_judged(its if len(its) else None, {number: newest}, clock)
    return flow


def _batches(
    source: KafkaSource, config: Mapping[str, Any], overrides: Mapping[str, Any], number: int, upto: int
) -> Iterator[EventBatch]:
    """The events of a partition before offset `upto`; what cannot be decoded was a dead letter then already."""
    topic, partition = source.place(number)
    decoder = MessageDecoder(source, overrides)
    consumer = Consumer({**config, "group.id": f"{config['group.id']}.history", "enable.partition.eof": True})
    try:
        low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30.0)
        consumer.assign([TopicPartition(topic, partition, low)])
        at, heard = low, time.monotonic()
        while at < upto:
            messages = consumer.consume(BATCH, 0.2)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_S:
                raise DataError(
                    f"Topic '{topic}', partition {partition}: no message for {SILENT_S:.0f} s at offset {at:,}, on the "
                    f"way to {upto:,}, while the history of a new feature was read. Is the broker there?"
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
    finally:
        consumer.close()
