"""Protobuf messages to the fields of an event, by a class that protoc made or a descriptor file.

| field of the message                            | column                                                        |
|-------------------------------------------------|---------------------------------------------------------------|
| number, bool, string, bytes                     | as it is; without `optional` one that is not set is 0 or ""   |
| `optional`, oneof                               | null where it is not set                                      |
| enum                                            | its name in a `str` column, its number in an `int` column     |
| google.protobuf.Timestamp                       | an instant; null where it is not set                          |
| google.protobuf wrappers (DoubleValue, ...)     | the value; null where it is not set                           |

In the wire format of a registry a message is preceded by its schema's id and by which message of that schema it is.
Neither is needed: Protobuf's own rules of evolution let the given message read what another version wrote.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from headrace.features.errors import DefinitionError, did_you_mean
from headrace.features.events import Field
from headrace.flows.casting import cast_values
from headrace.flows.fit import MISSING, Cast
from headrace.flows.instants import TimeReading
from headrace.flows.kafka.registry import HEADER, schema_id
from headrace.flows.values import Reading

_TIMESTAMP = "google.protobuf.Timestamp"
_WRAPPERS = {
    *("google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int64Value"),
    *("google.protobuf.UInt64Value", "google.protobuf.Int32Value", "google.protobuf.UInt32Value"),
    *("google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue"),
}
_MICROS = Reading(TimeReading(unit="us"))

Read = Callable[[Message], Any]


class ProtobufBody:
    """Decodes payloads of one message type.

    framed: whether they are in the wire format of a registry.

    Raises:
        DefinitionError: the message cannot be found, lacks a field of the event or has it as a list, map or message.
    """

    def __init__(self, fields: tuple[Field, ...], how: Reading, given: Any, framed: bool) -> None:
        self._type: type[Message] = _loaded(given, how.source) if isinstance(given, str) else given
        self._framed = framed
        self._columns = [self._column(field, how) for field in fields]

    def __call__(self, payloads: Sequence[bytes]) -> tuple[dict[str, Cast], dict[int, str]]:
        whole: dict[int, str] = {}
        parse = self._type.FromString
        empty = self._type()
        rows = []
        for i, payload in enumerate(payloads):
            row = empty
            try:
                body = _unframed(payload) if self._framed else payload
                if isinstance(body, str):
                    whole[i] = body
                else:
                    row = parse(body)
            except DecodeError as error:
                whole[i] = f"the message is no {self._type.DESCRIPTOR.full_name}: {error}"
            rows.append(row)
        return {
            field.name: cast_values(field, [read(row) for row in rows], how) for field, read, how in self._columns
        }, whole

    def _column(self, field: Field, how: Reading) -> tuple[Field, Read, Reading]:
        message = self._type.DESCRIPTOR
        name = how.column(field.name)
        found = message.fields_by_name.get(name)
        shown = f"KafkaSource '{how.source}': column '{field.name}'"
        if found is None:
            if field.nullable:
                return field, lambda row: MISSING, how
            near = did_you_mean(name, message.fields_by_name)
            raise DefinitionError(f"{shown}: message {message.full_name} has no field '{name}'{near}")
        if _is_repeated(found):
            raise DefinitionError(
                f"{shown}: field '{name}' of {message.full_name} is repeated, and a column holds one value."
            )
        kind = found.message_type.full_name if found.message_type is not None else None
        if kind == _TIMESTAMP:
            return field, _timestamp(name), _MICROS if field.dtype == "timestamp" else how
        if kind in _WRAPPERS:
            return field, _wrapped(name), how
        if kind is not None:
            raise DefinitionError(
                f"{shown}: field '{name}' of {message.full_name} is a {kind}, and a column holds one value."
            )
        if found.enum_type is not None and field.dtype == "string":
            return field, _optional(found, _enum(name, found.enum_type)), how
        return field, _optional(found, attrgetter(name)), how


def _is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _optional(field: FieldDescriptor, read: Read) -> Read:
    name = field.name
    return (lambda row: read(row) if row.HasField(name) else None) if field.has_presence else read


def _timestamp(name: str) -> Read:
    def read(row: Message) -> int | None:
        if not row.HasField(name):
            return None
        at = getattr(row, name)
        return int(at.seconds) * 1_000_000 + int(at.nanos) // 1_000

    return read


def _wrapped(name: str) -> Read:
    return lambda row: getattr(row, name).value if row.HasField(name) else None


def _enum(name: str, kind: Any) -> Read:
    names = {value.number: value.name for value in kind.values}
    return lambda row: names.get(number := getattr(row, name), str(number))  # a later version's symbol has no name here


def _unframed(payload: bytes) -> bytes | str:
    """A message without what the registry's wire format puts before it, or what is wrong with that."""
    id = schema_id(payload)
    if isinstance(id, str):
        return id
    # Which message of the schema: a count and as many indexes, each a zigzag varint; a single 0 for the first message.
    at, count = _zigzag(payload, HEADER)
    if count is None or count < 0:
        return f"the list of message indexes of schema {id} cannot be read"
    for _ in range(count):
        at, index = _zigzag(payload, at)
        if index is None:
            return f"the list of message indexes of schema {id} cannot be read"
    return payload[at:]


def _zigzag(payload: bytes, at: int) -> tuple[int, int | None]:
    value = shift = 0
    while at < len(payload) and shift < 35:
        byte = payload[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return at, (value >> 1) ^ -(value & 1)
        shift += 7
    return at, None


def _loaded(given: str, source: str) -> type[Message]:
    """The class of "PATH:MESSAGE", from a file descriptor set."""
    path, _, name = given.rpartition(":")
    described = descriptor_pb2.FileDescriptorSet()
    try:
        described.ParseFromString(Path(path).read_bytes())
    except (OSError, DecodeError) as error:
        raise DefinitionError(
            f"KafkaSource '{source}': schema={given!r}: {path} is no file descriptor set: {error}. Make one with "
            "`protoc --include_imports --descriptor_set_out=FILE ...`."
        ) from None
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in described.file:
            pool.Add(file)
        found = pool.FindMessageTypeByName(name)
    except (KeyError, TypeError) as error:
        known = [f"{f.package}.{m.name}".lstrip(".") for f in described.file for m in f.message_type]
        raise DefinitionError(
            f"KafkaSource '{source}': {path} has no message '{name}'{did_you_mean(name, known)} It has: "
            f"{', '.join(known)} ({error})."
        ) from None
    return message_factory.GetMessageClass(found)
