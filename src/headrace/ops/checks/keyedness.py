"""Whether a topic is keyed as its source says, judged by a sample: the one mistake that gives wrong values in silence.

A view's state lives with a partition. If events of one driver come by two partitions and the source says
keyed_by="driver_id", each partition counts its own half. So the doctor looks: do message keys equal the column, does
any entity of the sample come by two partitions?
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Message

from headrace.features.kafka_source import KafkaSource
from headrace.flows.deadletter import DeadLetter
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.worker.stages import Route, Stages
from headrace.ops.checks.finding import Finding

AREA = "kafka"


@dataclass(frozen=True)
class Sample:
    """Messages of a source, decoded.

    Attributes:
        messages: how many. rows: of those that can be read, column -> value. partition: of each row. key: of each row
            the message's, None where it has none. broken: the others.
    """

    messages: int
    rows: Sequence[Mapping[str, Any]]
    partition: Sequence[int]
    key: Sequence[bytes | None]
    broken: Sequence[DeadLetter]

    @classmethod
    def of(cls, source: KafkaSource, messages: Sequence[Message], overrides: Mapping[str, str]) -> Sample:
        batch, broken, _ = MessageDecoder(source, overrides).decode(messages)
        names = list(batch.columns)
        values = [batch.columns[name].arrow().to_pylist() for name in names]
        keys = {
            (source.number(str(message.topic()), int(message.partition() or 0)), message.offset()): message.key()
            for message in messages
        }
        places = list(zip(batch.partition.tolist(), batch.offset.tolist(), strict=True))
        return cls(
            len(messages),
            [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)],
            [partition for partition, _ in places],
            [_bytes(keys.get(place)) for place in places],
            broken,
        )


def _bytes(key: str | bytes | None) -> bytes | None:
    return key.encode() if isinstance(key, str) else key


def check_keys(stages: Stages, sample: Sample, partitions: int) -> Iterator[Finding]:
    """For the views of a source, whether its topics are keyed by their entities and the source says so."""
    source = stages.source
    if partitions == 1:
        yield Finding("ok", AREA, source.name, "has one partition, so no view needs its messages to be keyed")
        return
    if stages.direct:
        yield _declared(source, sample)
    for route in stages.routes:
        yield _undeclared(source, route, sample)


def _declared(source: KafkaSource, sample: Sample) -> Finding:
    columns = source.keyed_by or ()
    shown = " and ".join(columns)
    apart = _apart(columns, sample)
    if apart is not None:
        entity, where = apart
        return Finding(
            "fail",
            AREA,
            source.name,
            f"says keyed_by {shown}, and {entity} comes by partitions {', '.join(map(str, where))}: each partition "
            "would count its own share of it",
            f"Take keyed_by= away, and the flow re-keys the events; or let the producer key its messages by {shown}.",
        )
    equal = _equal(columns, sample)
    says = f"keyed by {shown} as it says: no entity of the sample comes by two partitions"
    return Finding("ok", AREA, source.name, f"{says}; {equal}" if equal else says)


def _undeclared(source: KafkaSource, route: Route, sample: Sample) -> Finding:
    keys, shown = route.keys, " and ".join(route.keys)
    views = " and ".join(f"'{view.name}'" for view in route.views)
    apart = _apart(keys, sample)
    if apart is not None or len(source.topics) > 1:
        seen = "" if apart is None else f" ({apart[0]} comes by partitions {', '.join(map(str, apart[1]))})"
        return Finding(
            "ok",
            AREA,
            source.name,
            f"is not keyed by {shown}{seen}; the events of {views} are re-keyed through the topic {route.topic}",
        )
    equal = _equal(keys, sample)
    written = repr(keys[0]) if len(keys) == 1 else repr(list(keys))
    return Finding(
        "warn",
        AREA,
        source.name,
        f"may be keyed by {shown}: no entity of the sample comes by two partitions{f', and {equal}' if equal else ''}; "
        f"the events of {views} are re-keyed all the same, through the topic {route.topic}",
        f"If the producer does key its messages so, say keyed_by={written} and spare the way through another topic.",
    )


def _apart(columns: Sequence[str], sample: Sample) -> tuple[str, list[int]] | None:
    """An entity that comes by several partitions, and which; None when none of the sample does."""
    found: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    for row, partition in zip(sample.rows, sample.partition, strict=True):
        found[tuple(row[column] for column in columns)].add(partition)
    for entity, where in found.items():
        if len(where) > 1 and None not in entity:
            shown = " ".join(f"{column}={value}" for column, value in zip(columns, entity, strict=True))
            return shown, sorted(where)
    return None


def _equal(columns: Sequence[str], sample: Sample) -> str:
    """How many message keys are the column's value as text; empty where that cannot be said."""
    if len(columns) != 1 or not sample.rows:
        return ""
    equal = sum(
        key is not None and key == str(row[columns[0]]).encode()
        for row, key in zip(sample.rows, sample.key, strict=True)
    )
    return f"{equal:,} of {len(sample.rows):,} message keys equal {columns[0]}"
