"""The parts of Kafka messages besides their payload: keys, headers and timestamps as columns, places, errors."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa

from headrace.features.events import Field
from headrace.features.message_parts import MessageBody, MessageHeader, MessageKey, MessageTime, Part
from headrace.flows.batch import ARROW_TYPES
from headrace.flows.casting import cast_values
from headrace.flows.fit import MISSING, Cast, Unfit, shown
from headrace.flows.instants import TimeReading
from headrace.flows.values import Reading, cast_value

_TIMELESS = "the record has no timestamp"
_TEXT = Reading(text=True)
_PLAIN = Reading()
_MILLIS = Reading(TimeReading(unit="ms"))


class Message(Protocol):
    """What is used of `confluent_kafka.Message`."""

    def value(self) -> bytes | None: ...
    def key(self) -> bytes | None: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...
    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def error(self) -> Any: ...


def part_column(field: Field, part: Part, messages: Sequence[Message], payloads: Sequence[bytes | None]) -> Cast:
    """The column of an event that is a part of its message, one value per message; what does not fit is refused."""
    if isinstance(part, MessageTime):
        return _times(field, messages)
    if isinstance(part, MessageBody):
        return _bytes_or_text(field, payloads)
    if isinstance(part, MessageHeader):
        return _bytes_or_text(field, [_header(m, part.name) for m in messages])
    keys = [m.key() for m in messages]
    if part.encoding == "text":
        return _bytes_or_text(field, keys)
    decode = _big_endian if part.encoding == "int" else _json(part)
    return _one_by_one(field, keys, decode)


def _times(field: Field, messages: Sequence[Message]) -> Cast:
    stamps = [m.timestamp() for m in messages]
    at = cast_values(field, [int(ms) if kind else None for kind, ms in stamps], _MILLIS)
    return Cast(at.array, {**at.unfit, **{i: _TIMELESS for i, (kind, _) in enumerate(stamps) if not kind}})


def _header(message: Message, name: str) -> bytes | str | None:
    found = None
    for header, value in message.headers() or ():
        if header == name:
            found = value
    return found


def _bytes_or_text(field: Field, values: Sequence[Any]) -> Cast:
    """Bytes as they are, text from UTF-8, other types from their text."""
    if field.dtype == "bytes":
        return Cast(pa.array([v.encode() if isinstance(v, str) else v for v in values], type=pa.binary()))
    if field.dtype == "string":
        try:
            raw = pa.array(values, type=pa.binary()).cast(pa.string())
        except (pa.ArrowException, TypeError):
            return _one_by_one(field, values, _utf8)
        return Cast(raw)
    return _one_by_one(field, values, _utf8, _TEXT)


def _one_by_one(field: Field, values: Sequence[Any], decode: Callable[[Any], Any], reading: Reading = _PLAIN) -> Cast:
    out: list[Any] = []
    unfit: dict[int, str] = {}
    for row, value in enumerate(values):
        fit = None
        if value is not None:
            try:
                fit = cast_value(field, decode(value), reading)
            except Unfit as refusal:
                unfit[row] = str(refusal)
        out.append(fit)
    if field.dtype == "timestamp":
        return Cast(pa.array(out, type=pa.int64()).cast(ARROW_TYPES["timestamp"]), unfit)
    return Cast(pa.array(out, type=ARROW_TYPES[field.dtype], from_pandas=False), unfit)


def _utf8(value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unfit(f"{shown(value)} is no UTF-8 text") from None


def _big_endian(value: bytes) -> int:
    if len(value) not in (4, 8):
        raise Unfit(f"the key {shown(value)} has {len(value)} bytes; an integer has 4 or 8")
    return int.from_bytes(value, "big", signed=True)


def _json(part: MessageKey) -> Callable[[bytes], Any]:
    import msgspec

    def decode(value: bytes) -> Any:
        try:
            found = msgspec.json.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Unfit(f"the key {shown(value)} is no JSON: {error}") from None
        if part.field is None:
            return found
        if not isinstance(found, dict):
            raise Unfit(f"the key {shown(value)} is no JSON object, so it has no '{part.field}'")
        return found.get(part.field, MISSING)

    return decode
