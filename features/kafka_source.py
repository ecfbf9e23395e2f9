"""Kafka topics as sources: where their messages lie, how they are written, which parts of one make an event.

KafkaSource("rides", Ride, keyed_by="driver_id", lateness="10s", bootstrap_servers="kafka:9092")

A definition only: nothing here knows a broker, and no secret is in it. Secrets are named,
`sasl_password="${PASSWORD}"`, and read from the environment when a flow starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike, fspath
from typing import Any, ClassVar

from headrace.features.columns import Column
from headrace.features.errors import DefinitionError, did_you_mean
from headrace.features.events import EventSchema
from headrace.features.kafka_history import checked_history, checked_partitioner, checked_position
from headrace.features.message_parts import MessageBody, MessageHeader, MessageKey, MessageTime, Part
from headrace.features.sources import (
    Duration,
    FileSource,
    FrameSource,
    Source,
    column_name,
    instant_rules,
    one_of,
    set_fields,
)
from headrace.features.time import format_instant, instant_us

MESSAGE_FORMATS = ("json", "avro", "protobuf", "raw")
MAX_TOPICS = 32
PARTITION_BITS = 10
"""A source of several topics numbers its partitions `topic index << 10 | partition`."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SECRET = re.compile(r"password|passphrase|secret|auth_token|key_pem|basic_auth|oauthbearer_config")
_NAMED = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


@dataclass(frozen=True, init=False, repr=False)
class KafkaSource(Source):
    """One Kafka topic or several, whose messages are events. The same for Redpanda, which speaks the same protocol.

    Attributes:
        topics: their names. topic: the name of the only one; of several, all of them with commas.
        keyed_by: the columns that decide a message's partition, because the producer's key is made of them; None:
            unknown. A view of an entity with these keys needs no exchange between workers.
        start: where a flow without a checkpoint begins: "earliest", "latest" or an instant in microseconds.
        format: "json", "avro", "protobuf" or "raw" (the payload is one column).
        message_schema: Avro: a schema as JSON text, or the path of a file of it. Protobuf: a message class, or
            "PATH:MESSAGE" of a file descriptor set that `protoc --descriptor_set_out --include_imports` writes. None:
            from the registry, and for JSON and raw.
        registry: URL of a Schema Registry; the messages are in its wire format then.
        columns: event column -> field of the message, or the part of it that the column is read from.
        zone, ambiguous, nonexistent, unit: as of a FileSource, for instants written without a zone or as numbers.
        tombstones: messages without a payload: "skip" them (they are counted) or "dead_letter".
        on_gap: messages that were deleted before they were read: "fail", or "skip" to go on with the oldest left.
        history: files or a frame with the same event from before the topic, for a backfill; a run does not look at it.
        history_position: columns of the history with the Kafka partition and offset of each row; None: it has none.
        partitioner: how producers find a key's partition: "murmur2", "crc32" or "fnv1a"; None: a backfill looks.
        options: settings of librdkafka, with `_` or `.` between the words, such as `bootstrap_servers="kafka:9092"`;
            `schema_registry_...` are of the registry's client. `${NAME}` is read from the environment at run time.
    """

    topics: tuple[str, ...]
    keyed_by: tuple[str, ...] | None
    start: str | int
    format: str
    message_schema: Any = field(hash=False)
    registry: str | None
    columns: Mapping[str, str | Part] = field(hash=False)
    zone: str | None
    ambiguous: str
    nonexistent: str
    unit: str | None
    tombstones: str
    on_gap: str
    history: FileSource | FrameSource | None = field(hash=False)
    history_position: tuple[str, str] | None
    partitioner: str | None
    options: Mapping[str, Any] = field(hash=False)

    kind: ClassVar[str] = "kafka"

    def __init__(
        self,
        topic: str | Sequence[str],
        event: Any,
        *,
        name: str | None = None,
        keyed_by: str | Column[Any] | Sequence[str | Column[Any]] | None = None,
        start: str | datetime = "earliest",
        format: str = "json",
        schema: Any = None,
        registry: str | None = None,
        columns: Mapping[str, str | Part] | None = None,
        zone: str | None = None,
        ambiguous: str = "refuse",
        nonexistent: str = "refuse",
        unit: str | None = None,
        tombstones: str = "skip",
        on_gap: str = "fail",
        history: FileSource | FrameSource | None = None,
        history_position: Sequence[str] | None = None,
        partitioner: str | None = None,
        lateness: Duration = "0s",
        max_ahead: Duration | None = None,
        dedup: str | Column[Any] | None = None,
        idle_after: Duration | None = None,
        late: str = "dead_letter",
        **options: Any,
    ) -> None:
        topics = _topics(topic)
        self._common(name or "-".join(topics), event, lateness, max_ahead, dedup, idle_after, late)
        shown = f"KafkaSource '{self.name}'"
        one_of("format", format, MESSAGE_FORMATS, shown)
        set_fields(
            self,
            topics=topics,
            keyed_by=_keyed_by(self.schema, keyed_by, shown),
            start=_start(start, shown),
            format=format,
            message_schema=_message_schema(format, schema, registry, shown),
            registry=_registry(registry, format, shown),
            columns=_columns(self.schema, columns, format, shown),
            **instant_rules(zone, ambiguous, nonexistent, unit, shown),
            tombstones=one_of("tombstones", tombstones, ("skip", "dead_letter"), shown),
            on_gap=one_of("on_gap", on_gap, ("fail", "skip"), shown),
            history=checked_history(history, event, shown),
            history_position=checked_position(history_position, history, len(topics), shown),
            partitioner=checked_partitioner(partitioner, shown),
            options=_options(options, shown),
        )

    @property
    def topic(self) -> str:
        return ",".join(self.topics)

    def place(self, number: int) -> tuple[str, int]:
        """Topic and Kafka partition of a partition number as batches and positions have it.

        >>> from headrace.features import Event, EventTime
        >>> class Ride(Event):
        ...     at: EventTime
        >>> KafkaSource(["rides", "trips"], Ride).place(1 << 10 | 7)
        ('trips', 7)
        """
        if len(self.topics) == 1:
            return self.topics[0], number
        return self.topics[number >> PARTITION_BITS], number & ((1 << PARTITION_BITS) - 1)

    def number(self, topic: str, partition: int) -> int:
        """The partition number of a topic's partition, the inverse of `place`.

        Raises:
            DefinitionError: it is no topic of this source, or its partition cannot be numbered.
        """
        if topic not in self.topics:
            raise DefinitionError(f"KafkaSource '{self.name}' does not read topic '{topic}', but {self.topic}.")
        if len(self.topics) == 1:
            limit, number = 1 << 15, partition
        else:
            limit, number = 1 << PARTITION_BITS, self.topics.index(topic) << PARTITION_BITS | partition
        if not 0 <= partition < limit:
            raise DefinitionError(
                f"KafkaSource '{self.name}': partition {partition} of topic '{topic}' is beyond the {limit} that a "
                f"source of {'one topic' if len(self.topics) == 1 else 'several topics'} can hold."
            )
        return number

    def __repr__(self) -> str:
        shown = super().__repr__()[: -len(")")]
        topics = repr(self.topics[0] if len(self.topics) == 1 else list(self.topics))
        parts = [shown.replace(f"({self.name!r}", f"({topics}", 1)]
        if self.name != "-".join(self.topics):
            parts.append(f"name={self.name!r}")
        if self.keyed_by is not None:
            keys = self.keyed_by[0] if len(self.keyed_by) == 1 else list(self.keyed_by)
            parts.append(f"keyed_by={keys!r}")
        if self.start != "earliest":
            begun = format_instant(self.start) if isinstance(self.start, int) else self.start
            parts.append(f"start={begun!r}")
        parts += [f"{n}={v!r}" for n, v, usual in self._spoken() if v != usual]
        return ", ".join(parts) + ")"

    def _spoken(self) -> list[tuple[str, Any, Any]]:
        """What else a reader of the definition may care about: argument, value, default."""
        return [
            ("format", self.format, "json"),
            ("columns", self.columns, {}),
            ("zone", self.zone, None),
            ("unit", self.unit, None),
            ("tombstones", self.tombstones, "skip"),
            ("on_gap", self.on_gap, "fail"),
            ("history", self.history, None),
            ("history_position", self.history_position, None),
            ("partitioner", self.partitioner, None),
        ]


def option_name(name: str) -> str:
    """The name of a librdkafka setting from that of an option.

    >>> option_name("bootstrap_servers"), option_name("sasl.password"), option_name("stats_cb")
    ('bootstrap.servers', 'sasl.password', 'stats_cb')
    """
    return name if name.endswith("_cb") or name.startswith("on_") else name.replace("_", ".")


def is_secret(name: str) -> bool:
    """Whether the value of an option must not be shown, nor written in a definition.

    >>> is_secret("sasl.password"), is_secret("sasl_username")
    (True, False)
    """
    return _SECRET.search(name.replace(".", "_")) is not None


def _topics(topic: str | Sequence[str]) -> tuple[str, ...]:
    given = (topic,) if isinstance(topic, str) else topic
    if not isinstance(given, (tuple, list)) or not given or not all(isinstance(t, str) and t for t in given):
        raise DefinitionError(
            f"KafkaSource: the topic must be a name, got {topic!r}. Write KafkaSource('rides', Ride), or a list "
            "of names."
        )
    for each in given:
        if not _TOPIC.fullmatch(each) or each in (".", ".."):
            raise DefinitionError(
                f"KafkaSource: {each!r} is no topic name. Those have letters, digits, '.', '_' and '-', at most 249."
            )
    if len(set(given)) < len(given) or len(given) > MAX_TOPICS:
        raise DefinitionError(f"KafkaSource: expected up to {MAX_TOPICS} different topics, got {', '.join(given)}.")
    return tuple(given)


def _keyed_by(schema: EventSchema, given: Any, shown: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    columns = given if isinstance(given, (tuple, list)) else (given,)
    if not columns:
        raise DefinitionError(f"{shown}: keyed_by is empty. Name the columns of the message's key, or leave it out.")
    return tuple(column_name(schema, each, "keyed_by", shown) for each in columns)


def _start(start: str | datetime, shown: str) -> str | int:
    if start in ("earliest", "latest"):
        return str(start)
    if isinstance(start, str) and not start[:1].isdigit():
        raise DefinitionError(
            f"{shown}: start={start!r} is unknown. Choose 'earliest', 'latest' or an instant such as "
            "'2026-05-01T12:00:00Z'."
        )
    return instant_us(start, f"{shown}: start")


def _message_schema(format: str, schema: Any, registry: str | None, shown: str) -> Any:
    if format in ("json", "raw"):
        if schema is not None:
            raise DefinitionError(f"{shown}: schema= is for format='avro' and 'protobuf', and this is {format!r}.")
        return None
    if schema is None:
        if registry is None and format == "avro":
            raise DefinitionError(
                f"{shown}: Avro is read with the schema it was written with: give registry='http://...', or schema= "
                "with its JSON text or file."
            )
        if format == "protobuf":
            raise DefinitionError(
                f"{shown}: Protobuf needs the message: schema=RideMessage (a class that protoc made), or "
                "schema='rides.desc:RideMessage' of a descriptor file."
            )
        return None
    if format == "avro":
        if registry is not None:
            raise DefinitionError(
                f"{shown}: with a registry each message names its own Avro schema; leave out schema=."
            )
        if isinstance(schema, Mapping):
            return dict(schema)
        if isinstance(schema, (str, PathLike)) and fspath(schema):
            return str(fspath(schema))
        raise DefinitionError(f"{shown}: schema= is a {type(schema).__name__}; give Avro's JSON text or its file.")
    if isinstance(schema, type) and hasattr(schema, "DESCRIPTOR"):
        return schema
    if isinstance(schema, str) and schema.rpartition(":")[0] and schema.rpartition(":")[2]:
        return schema
    raise DefinitionError(
        f"{shown}: schema={schema!r} is no Protobuf message: give a class that protoc made, or "
        "'rides.desc:RideMessage'."
    )


def _registry(registry: str | None, format: str, shown: str) -> str | None:
    if registry is None:
        return None
    if format not in ("avro", "protobuf"):
        raise DefinitionError(f"{shown}: registry= is for format='avro' and 'protobuf', and this is {format!r}.")
    if not isinstance(registry, str) or not re.match(r"https?://|\$\{", registry):
        raise DefinitionError(f"{shown}: registry={registry!r} is no URL such as 'http://registry:8081'.")
    if re.search(r"://[^/@]*:[^/@]*@", _NAMED.sub("", registry).replace("://:@", "://")):
        raise DefinitionError(
            f"{shown}: registry= has a password in it. Name it instead: "
            "schema_registry_basic_auth_user_info='${REGISTRY_AUTH}'."
        )
    return registry


def _columns(
    schema: EventSchema, columns: Mapping[str, str | Part] | None, format: str, shown: str
) -> dict[str, str | Part]:
    made = dict(columns or {})
    for name, origin in made.items():
        dtype = schema.field(column_name(schema, name, "columns=", shown)).dtype
        if isinstance(origin, MessageTime) and dtype != "timestamp":
            raise DefinitionError(f"{shown}: column '{name}' is {dtype}, and MessageTime() gives instants.")
        if isinstance(origin, MessageBody) and dtype not in ("bytes", "string"):
            raise DefinitionError(f"{shown}: column '{name}' is {dtype}, and MessageBody() gives bytes or str.")
        if isinstance(origin, MessageKey) and origin.encoding == "int" and dtype != "int64":
            raise DefinitionError(f"{shown}: column '{name}' is {dtype}, and MessageKey('int') gives integers.")
        if not isinstance(origin, (str, MessageKey, MessageHeader, MessageTime, MessageBody)):
            raise DefinitionError(
                f"{shown}: columns= maps '{name}' to {origin!r}; expected the name of a field of the message, "
                "MessageKey(), MessageHeader('name'), MessageTime() or MessageBody()."
            )
    if format != "raw":
        return made
    left = [f.name for f in schema.fields if f.name not in made]
    if len(left) == 1 and schema.field(left[0]).dtype in ("bytes", "string"):
        made[left.pop()] = MessageBody()
    if left or any(isinstance(origin, str) for origin in made.values()):
        raise DefinitionError(
            f"{shown}: a raw message has no fields, so where do {', '.join(left) or 'its columns'} come from? One "
            "bytes or str column is the payload; map the others with columns={'at': MessageTime(), 'id': MessageKey()}."
        )
    return made


_OWN = (
    *("name", "keyed_by", "start", "format", "schema", "registry", "columns", "zone", "ambiguous", "nonexistent"),
    *("unit", "tombstones", "on_gap", "history", "history_position", "partitioner"),
    *("lateness", "max_ahead", "dedup", "idle_after", "late"),
)


def _options(options: Mapping[str, Any], shown: str) -> dict[str, Any]:
    for name, value in options.items():
        near = did_you_mean(name, _OWN) if "." not in name else "."
        if near != "." and _alike(name, near):
            raise DefinitionError(f"{shown}: unknown argument {name!r}{near}")
        if is_secret(name) and not (isinstance(value, str) and _NAMED.search(value)):
            raise DefinitionError(
                f"{shown}: {name} is a secret, which no definition holds. Name it: {name}='${{KAFKA_PASSWORD}}', and "
                "set that variable where the flow runs."
            )
    return dict(options)


def _alike(name: str, near: str) -> bool:
    """Whether a name is so near to an argument of ours that it is a slip rather than a setting of librdkafka."""
    import difflib

    return difflib.SequenceMatcher(None, name, near.split("'")[1]).ratio() > 0.75
