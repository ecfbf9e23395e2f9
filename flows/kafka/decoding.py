"""Messages of a Kafka source to events: one batch of whatever topics, partitions and offsets they have.

    messages -> tombstones aside -> payloads -> fields of the body, by format  \
                                 -> keys, headers, timestamps                   -> EventBatch | dead letters

Nothing raises on data. Parts of a message cost a call each and are only fetched where the event needs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from headrace.features.events import Field
from headrace.features.kafka_source import KafkaSource
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import MALFORMED, DeadLetter, payload_of_bytes
from headrace.flows.decode import Partitions, assemble, reading_of
from headrace.flows.fit import Cast
from headrace.flows.jsonlines import cast_json
from headrace.flows.kafka.messages import Message, part_column
from headrace.flows.kafka.registry import Registry
from headrace.flows.kafka.settings import registry_config
from headrace.flows.values import Reading

Body: TypeAlias = Callable[[Sequence[bytes]], tuple[dict[str, Cast], dict[int, str]]]
"""Reads n payloads: the fields of the body by their names, and what is wrong with payloads that cannot be read."""

Decoded: TypeAlias = tuple[EventBatch, list[DeadLetter], int]

TOMBSTONE = "a tombstone: the message has no payload"


class MessageDecoder:
    """Decodes the messages of one source.

    overrides: settings of the run, for the connection to a Schema Registry.

    Raises:
        DefinitionError: the source's schema cannot be read or does not fit its event, or a setting is missing.
    """

    def __init__(self, source: KafkaSource, overrides: Mapping[str, Any] | None = None) -> None:
        self._source = source
        self._schema = source.schema
        self._how = reading_of(source)
        self._parts = {n: part for n, part in source.columns.items() if not isinstance(part, str)}
        fields = tuple(f for f in self._schema.fields if f.name not in self._parts)
        self._body = _body(source, fields, self._how, overrides) if fields else None
        self._numbers = {topic: source.number(topic, 0) for topic in source.topics}
        self._empty = EventBatch.empty({f.name: f.dtype for f in self._schema.fields})

    def decode(self, messages: Sequence[Message], partition: Partitions | None = None) -> Decoded:
        """The events of n messages, dead letters for those that cannot be read, and how many were tombstones.

        The messages are without errors (`error()` is None). `EventBatch.partition` is the source's partition number,
        in a dead letter the partition is Kafka's own.

        partition: (n,) the partition numbers, where the caller has them already.
        """
        payloads = [m.value() for m in messages]
        where = self._partitions(messages) if partition is None else partition
        offset = np.array([m.offset() for m in messages], dtype=np.int64)
        dead: list[DeadLetter] = []
        gone = 0
        if None in payloads:
            alive = np.array([p is not None for p in payloads])
            gone = int((~alive).sum())
            if self._source.tombstones == "dead_letter":
                dead = [self._tombstone(int(where[i]), int(offset[i])) for i in np.flatnonzero(~alive)]
            messages = [m for m, p in zip(messages, payloads, strict=True) if p is not None]
            payloads = [p for p in payloads if p is not None]
            where, offset = where[alive], offset[alive]
        if not payloads:
            return self._empty, dead, gone
        casts, whole = self._body(payloads) if self._body is not None else ({}, {})  # type: ignore[arg-type]
        for name, part in self._parts.items():
            casts[name] = part_column(self._schema.field(name), part, messages, payloads)
        batch, broken = assemble(
            self._schema, casts, whole, lambda row: payload_of_bytes(payloads[row] or b""), where, offset, self._how
        )
        return batch, placed(self._source, [*dead, *broken]), gone

    def _partitions(self, messages: Sequence[Message]) -> Partitions:
        if len(self._numbers) == 1:
            return np.array([m.partition() for m in messages], dtype=np.int32)
        base = self._numbers
        return np.array([base[m.topic()] + m.partition() for m in messages], dtype=np.int32)  # type: ignore[index,operator]

    def _tombstone(self, partition: int, offset: int) -> DeadLetter:
        return DeadLetter(MALFORMED, TOMBSTONE, self._source.name, partition, offset, None, "null")


def placed(source: KafkaSource, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Dead letters that name the topic and Kafka's own partition; those that do already stay as they are."""
    return [letter if letter.topic is not None else _placed(source, letter) for letter in letters]


def _placed(source: KafkaSource, letter: DeadLetter) -> DeadLetter:
    topic, partition = source.place(letter.partition)
    return replace(letter, topic=topic, partition=partition)


def _body(source: KafkaSource, fields: tuple[Field, ...], how: Reading, overrides: Mapping[str, Any] | None) -> Body:
    """The decoder of a source's format; only that format's library is loaded."""
    if source.format == "json":
        return lambda payloads: cast_json(fields, payloads, how)
    if source.format == "avro":
        from headrace.flows.kafka.avro import AvroBody

        # With a schema given the registry is still what says how messages begin: with the id of their own schema.
        registry = None if source.registry is None else Registry(registry_config(source, overrides))
        return AvroBody(fields, how, source.message_schema, registry)
    from headrace.flows.kafka.protobuf import ProtobufBody

    return ProtobufBody(fields, how, source.message_schema, source.registry is not None)
