"""Events into a source's topic: written as the source reads them, judged by its own decoder, acknowledged.

    event, column -> JSON value | its parts: payload, key, headers, record time -> MessageDecoder -> refused | produced

The caller writes events with the columns of the event class; `columns=` of the source says which part of a message
each one is.
"""

import base64
import binascii
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import KafkaException, Producer

from headrace.features.errors import DataError, did_you_mean
from headrace.features.events import Field
from headrace.features.kafka_source import KafkaSource
from headrace.features.message_parts import MessageBody, MessageHeader, MessageKey, MessageTime
from headrace.features.time import EPOCH, format_instant, instant_us
from headrace.flows.fit import shown
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.errors import UnknownTopicError, UnreachableClusterError, explained
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.settings import producer_config
from headrace.flows.kafka.topics import Cluster
from headrace.stores.errors import UnreachableError

POLL_S = 0.01
# Beyond the producer's own limit, after which it tells of each message that it gave up.
GRACE_S = 1.0

_MILLI_US = 1_000


class _Refused(Exception):
    """An event that cannot be written as the source reads it."""


@dataclass(slots=True)
class Made:
    """A message that is not sent yet, for the decoder like one that was read; `place` stands for its offset."""

    of: str
    place: int
    payload: bytes
    made_key: bytes | None
    made_headers: list[tuple[str, bytes]]
    millis: int | None

    def value(self) -> bytes:
        return self.payload

    def key(self) -> bytes | None:
        return self.made_key

    def headers(self) -> list[tuple[str, bytes]]:
        return self.made_headers

    def timestamp(self) -> tuple[int, int]:
        return (0, 0) if self.millis is None else (1, self.millis)

    def topic(self) -> str:
        return self.of

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.place

    def error(self) -> None:
        return None


class SourcePublisher:
    """Publishes events of one source. Thread-safe. The first event connects.

    Args:
        overrides: settings of the run, as for a flow; of a producer among them `partitioner`, which must be that of the
            topic's other producers: by default "murmur2_random", Java's; librdkafka's own is "consistent_random".
        timeout_s: how long Kafka may take to acknowledge; what it has not by then is given up.
    """

    def __init__(self, source: KafkaSource, overrides: Mapping[str, Any] | None = None, timeout_s: float = 4.0) -> None:
        self._source, self._overrides, self._timeout = source, dict(overrides or {}), timeout_s
        self._schema = source.schema
        self._parts = {name: origin for name, origin in source.columns.items() if not isinstance(origin, str)}
        self._names = {f.name: source.columns.get(f.name, f.name) for f in self._schema.fields}
        self._decoder: MessageDecoder | None = None
        self._producer: Any = None
        self._lock = threading.Lock()
        self._told: list[str] = []

    def prepared(self, events: Sequence[Any]) -> tuple[list[Made], dict[int, str]]:
        """The events as messages, and what is wrong with those that a flow could not read, by place.

        Raises:
            DataError: events of this source cannot be written here.
        """
        self._check_source()
        messages, wrong = [], {}
        for place, event in enumerate(events):
            try:
                messages.append(self._made(place, event))
            except _Refused as refusal:
                wrong[place] = str(refusal)
        if messages:
            with self._lock:
                if self._decoder is None:
                    self._decoder = MessageDecoder(self._source, self._overrides)
            _, letters, _ = self._decoder.decode(messages, np.zeros(len(messages), dtype=np.int32))
            wrong |= {letter.offset: letter.detail for letter in letters}
        return messages, wrong

    def publish(self, messages: Sequence[Made]) -> None:
        """Send messages; returns when brokers have all of them on every replica in sync.

        Raises:
            UnreachableError: not all of them were acknowledged in time; some may be in the topic.
            DataError: a message is too large. ClusterError: Kafka refuses them.
        """
        if not messages:
            return
        until = time.monotonic() + self._timeout + GRACE_S
        producer = self._connected()
        told: list[Any] = []  # by whichever thread polls

        def delivered(error: Any, _message: Any) -> None:
            told.append(error)

        for each in messages:
            self._produce(producer, each, delivered, until)
        while len(told) < len(messages) and time.monotonic() < until:
            producer.poll(POLL_S)
        failures = [error for error in told if error is not None]
        if failures:
            raise self._failed(producer, failures[0])
        if len(told) < len(messages):
            raise self._late(f"{len(told)} of {len(messages)} events were acknowledged")

    def close(self) -> None:
        """Wait for what is under way, at most as long as a message may take."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(self._timeout)

    def _produce(self, producer: Any, message: Made, delivered: Any, until: float) -> None:
        options = {} if message.millis is None else {"timestamp": message.millis}
        while True:
            try:
                producer.produce(
                    message.of,
                    message.payload,
                    key=message.made_key,
                    headers=message.made_headers,
                    on_delivery=delivered,
                    **options,
                )
                return
            except BufferError:  # full of what other requests sent: Kafka is away, or slower than they are
                if time.monotonic() >= until:
                    raise self._late("the queue of events that wait for Kafka is full") from None
                producer.poll(POLL_S)
            except KafkaException as error:
                if error.args[0].name() == "MSG_SIZE_TOO_LARGE":
                    raise DataError(
                        f"events[{message.place}]: its message of {len(message.payload)} bytes is larger than Kafka "
                        "takes. Split it, or raise message.max.bytes in [kafka] and for the topic."
                    ) from None
                raise self._failed(producer, error.args[0]) from None

    def _connected(self) -> Any:
        with self._lock:
            if self._producer is None:
                config = producer_config(self._source, self._overrides)
                try:
                    # A producer makes a topic that is not there; a name written wrongly would look like success.
                    Cluster(self._cluster_config(), self._timeout).partitions(self._source.topics)
                except UnreachableClusterError as error:
                    raise UnreachableError(str(error)) from None
                except UnknownTopicError as error:
                    raise DataError(f"Source '{self._source.name}': {error}") from None
                # Java's, that of most producers: events of one key have to lie in one partition, whoever sends them.
                config.setdefault("partitioner", "murmur2_random")
                own = {
                    "acks": "all",
                    "enable.idempotence": True,
                    "message.timeout.ms": int(self._timeout * 1000),
                    "error_cb": self._hear,
                    "logger": logger_of(config),
                }
                self._producer = Producer({**config, **own})
            return self._producer

    def _cluster_config(self) -> dict[str, Any]:
        from headrace.flows.kafka.settings import admin_config

        return admin_config(self._source, self._overrides)

    def _failed(self, producer: Any, error: Any) -> Exception:
        if error.fatal():  # of an idempotent producer: it sends nothing any more, and another has to
            with self._lock:
                if self._producer is producer:
                    self._producer = None
        if error.name() in ("_MSG_TIMED_OUT", "_PURGE_QUEUE", "_PURGE_INFLIGHT") or error.fatal():
            return self._late(error.str())
        found = explained(error, producer_config(self._source, self._overrides), self._task(), self._told)
        return UnreachableError(str(found)) if isinstance(found, UnreachableClusterError) else found

    def _late(self, said: str) -> UnreachableError:
        reasons = f" librdkafka says: {'; '.join(dict.fromkeys(self._told))}." if self._told else ""
        return UnreachableError(f"Cannot {self._task()} within {self._timeout:g} s: {said}.{reasons}")

    def _task(self) -> str:
        return f"send events to topic '{self._source.topic}'"

    def _hear(self, error: Any) -> None:
        self._told = [*self._told[-3:], error.str()]

    def _check_source(self) -> None:
        source = self._source
        if len(source.topics) > 1:
            raise DataError(
                f"Source '{source.name}' reads {len(source.topics)} topics, and which of them events belong to is not "
                "known here. Produce to the topic itself."
            )
        if source.format not in ("json", "raw"):
            raise DataError(
                f"Source '{source.name}' reads {source.format}, which is not written here. Produce to topic "
                f"'{source.topic}' itself, with the serializer of its other producers."
            )
        whole = [name for name, part in self._parts.items() if isinstance(part, MessageBody)]
        if source.format == "json" and whole:
            raise DataError(
                f"Source '{source.name}' reads '{whole[0]}' from the whole payload, and other columns from its fields. "
                f"Produce to topic '{source.topic}' itself."
            )

    def _made(self, place: int, event: Any) -> Made:
        if not isinstance(event, Mapping):
            raise _Refused(f"got {shown(event)}, expected an object with the columns of {self._schema.name}")
        for name in event:
            if name not in self._names:
                raise _Refused(
                    f"event '{self._schema.name}' has no column '{name}'{did_you_mean(name, self._names)} Its columns "
                    f"are: {', '.join(self._names)}"
                )
        payload: bytes | None = None
        body: dict[str, Any] = {}
        keyed: dict[str, Any] = {}
        key: bytes | None = None
        headers: list[tuple[str, bytes]] = []
        millis: int | None = None
        for field in self._schema.fields:
            if field.name not in event:
                continue
            value, origin = event[field.name], self._names[field.name]
            if isinstance(origin, str):
                if origin in body and body[origin] != value:
                    raise _Refused(f"field '{field.name}': '{origin}' of the message has another value already")
                body[origin] = value
            elif value is None:
                continue
            elif isinstance(origin, MessageTime):
                millis = _millis(field, value)
            elif isinstance(origin, MessageBody):
                payload = _text(field, value)
            elif isinstance(origin, MessageHeader):
                headers.append((origin.name, _text(field, value)))
            else:
                key = _key(field, origin, value, keyed)
        if payload is None and self._source.format == "raw":
            raise _Refused("the column that is the message's payload is missing or null")
        if keyed:
            key = msgspec.json.encode(keyed)
        if key is None and not any(isinstance(part, MessageKey) for part in self._parts.values()):
            key = self._key_of_columns(event)
        return Made(
            self._source.topic, place, msgspec.json.encode(body) if payload is None else payload, key, headers, millis
        )

    def _key_of_columns(self, event: Mapping[str, Any]) -> bytes | None:
        """The key that `keyed_by` names: one column as text, several as a JSON array."""
        names = self._source.keyed_by
        if names is None or any(event.get(name) is None for name in names):
            return None
        if len(names) == 1:
            return _text(self._schema.field(names[0]), event[names[0]])
        return msgspec.json.encode([event[name] for name in names])


def _key(field: Field, part: MessageKey, value: Any, keyed: dict[str, Any]) -> bytes | None:
    if part.encoding == "text":
        return _text(field, value)
    if part.encoding == "int":
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise _Refused(f"field '{field.name}': got {shown(value)}, expected int64")
        return value.to_bytes(8, "big", signed=True)
    if part.field is None:
        return msgspec.json.encode(value)
    keyed[part.field] = value
    return None


def _text(field: Field, value: Any) -> bytes:
    """A value as the part of a message that is text; bytes as they are."""
    dtype = field.dtype
    fits = {"int64": int, "float64": (int, float), "bool": bool}.get(dtype, str)
    if not isinstance(value, fits) or (isinstance(value, bool) and dtype != "bool"):  # type: ignore[arg-type]
        raise _Refused(f"field '{field.name}': got {shown(value)}, expected {dtype}")
    if dtype == "bytes":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise _Refused(f"field '{field.name}': got {shown(value)}, expected bytes as text in base64") from None
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _Refused(f"field '{field.name}': {shown(value)} is no text") from None


def _millis(field: Field, value: Any) -> int:
    """The record's timestamp."""
    try:
        us = instant_us(value, f"field '{field.name}'")
    except ValueError as error:
        raise _Refused(str(error).rstrip(".")) from None
    if us % _MILLI_US or us < 0:
        raise _Refused(
            f"field '{field.name}': {format_instant(us)} is no record time: those are whole milliseconds since "
            f"{EPOCH.isoformat()}"
        )
    return us // _MILLI_US
