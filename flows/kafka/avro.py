"""Avro messages to the fields of an event, with the schema they were written with: the registry's or one given.

A field is read from the field of that name; the others are decoded and left aside. Values are then judged as everywhere
(casting.py): an enum is its symbol, a fixed its bytes, a decimal the number it is, a UUID its text, and timestamps are
instants whose unit the schema says.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.errors import DefinitionError, did_you_mean
from headrace.features.events import Field
from headrace.flows.decode import cast_columns, cast_rows
from headrace.flows.fit import Cast, Unreadable, interleaved, shown
from headrace.flows.instants import TimeReading
from headrace.flows.kafka.avro_program import Program
from headrace.flows.kafka.registry import HEADER, RegisteredSchema, Registry, schema_id
from headrace.flows.values import Reading

_UNITS = {"timestamp-millis": "ms", "timestamp-micros": "us", "timestamp-nanos": "ns"}


@dataclass(frozen=True)
class Writer:
    """A schema that messages were written with, ready for use.

    name: for messages, "the given schema" or "schema 17". parsed: fastavro's form. units: field -> unit of its
    instants, which are read as plain integers. program: reads many messages at once, None where it cannot. misfit: what
    is wrong with every message of it, None if the event can be read.
    """

    name: str
    parsed: Any
    units: Mapping[str, str]
    misfit: str | None = None
    program: Program | None = None


class AvroBody:
    """Decodes payloads: of the plain schema `given`, or of the wire format of a registry.

    Raises:
        DefinitionError: the given schema is no Avro record, or has no field for a field of the event.
    """

    def __init__(self, fields: tuple[Field, ...], how: Reading, given: Any, registry: Registry | None) -> None:
        self._fields = fields
        self._how = how
        self._registry = registry
        self._writers: dict[int, Writer] = {}
        self._given = None
        if registry is None:
            self._given = _writer("the given schema", _loaded(given, how.source), {}, fields, how)
            if self._given.misfit is not None:
                raise DefinitionError(f"KafkaSource '{how.source}': {self._given.misfit}")

    def __call__(self, payloads: Sequence[bytes]) -> tuple[dict[str, Cast], dict[int, str]]:
        whole: dict[int, str] = {}
        groups: dict[str, tuple[Writer, list[int]]] = {}
        for i, payload in enumerate(payloads):
            writer = self._given or self._of(payload)
            if isinstance(writer, str):
                whole[i] = writer
            else:
                groups.setdefault(writer.name, (writer, []))[1].append(i)
        start = 0 if self._registry is None else HEADER
        parts = []
        for writer, at in groups.values():
            casts, broken = self._read(writer, [payloads[i] for i in at], start)
            whole |= {at[i]: why for i, why in broken.items()}
            parts.append((at, casts))
        if not parts:
            nothing = cast_rows(self._fields, [Unreadable("")] * len(payloads), self._how)[0]
            return {name: Cast(cast.array) for name, cast in nothing.items()}, whole
        n = len(payloads)
        return {f.name: interleaved([(at, casts[f.name]) for at, casts in parts], n) for f in self._fields}, whole

    def _of(self, payload: bytes) -> Writer | str:
        """The schema of a message in the wire format, or why it has none."""
        id = schema_id(payload)
        if isinstance(id, str):
            return id
        writer = self._writers.get(id)
        if writer is None:
            assert self._registry is not None
            found = self._registry.schema(id)
            if found is None:
                return f"schema {id} is not in the registry"
            writer = self._writers[id] = self._registered(found)
        return writer.misfit or writer

    def _registered(self, found: RegisteredSchema) -> Writer:
        name = f"schema {found.id}"
        if found.kind != "AVRO":
            return Writer(name, None, {}, f"{name} is of type {found.kind}, expected AVRO")
        try:
            named: dict[str, Any] = {}
            _learn(found, named)
            return _writer(name, json.loads(found.text), named, self._fields, self._how)
        except Exception as error:  # fastavro's errors on schemas have no common base
            return Writer(name, None, {}, f"{name} is no Avro schema that can be read: {error}")

    def _read(self, writer: Writer, payloads: list[bytes], start: int) -> tuple[dict[str, Cast], dict[int, str]]:
        """Messages of one schema: in columns, and those that stumble one by one."""
        if writer.program is None:
            return self._named(writer, *self._rows(writer, [_datum(p, start, writer) for p in payloads]))
        columns, bad = writer.program.columns(payloads, start)
        casts = self._columns(writer, columns, len(payloads))
        if not bad.any():
            return self._named(writer, casts, {})
        odd, usual = np.flatnonzero(bad).tolist(), np.flatnonzero(~bad)
        slow, broken = self._rows(writer, [_datum(payloads[i], start, writer) for i in odd])
        fast = {name: _taken(cast, usual) for name, cast in casts.items()}
        n, at = len(payloads), usual.tolist()
        joined = {name: interleaved([(at, fast[name]), (odd, slow[name])], n) for name in fast}
        return self._named(writer, joined, {odd[i]: why for i, why in broken.items()})

    def _columns(self, writer: Writer, columns: Mapping[str, pa.Array], n: int) -> dict[str, Cast]:
        casts: dict[str, Cast] = {}
        for field in self._fields:
            name = self._how.column(field.name)
            casts |= cast_columns([field], columns, n, self._timed(writer.units.get(name)))
        return casts

    def _rows(self, writer: Writer, rows: list[Any]) -> tuple[dict[str, Cast], dict[int, str]]:
        casts: dict[str, Cast] = {}
        broken: dict[int, str] = {}
        for field in self._fields:
            how = self._timed(writer.units.get(self._how.column(field.name)))
            cast, broken = cast_rows([field], rows, how)
            casts |= cast
        return casts, broken

    def _timed(self, unit: str | None) -> Reading:
        return self._how if unit is None else replace(self._how, time=TimeReading(self._how.time.clock, unit))

    def _named(
        self, writer: Writer, casts: dict[str, Cast], broken: dict[int, str]
    ) -> tuple[dict[str, Cast], dict[int, str]]:
        """The same, with the schema's id in what is wrong with a value."""
        if self._registry is None:
            return casts, broken
        told = {n: {i: f"{why} ({writer.name})" for i, why in c.unfit.items()} for n, c in casts.items()}
        return {n: Cast(cast.array, told[n]) for n, cast in casts.items()}, broken


def _taken(cast: Cast, rows: npt.NDArray[np.int64]) -> Cast:
    back = {int(row): i for i, row in enumerate(rows)} if cast.unfit else {}
    return Cast(cast.array.take(pa.array(rows)), {back[i]: why for i, why in cast.unfit.items() if i in back})


def _datum(payload: bytes, start: int, writer: Writer) -> Any:
    stream = io.BytesIO(payload)
    stream.seek(start)
    try:
        row = fastavro.schemaless_reader(stream, writer.parsed, None)
    except (EOFError, IndexError):
        return Unreadable(f"the message is no datum of {writer.name}: it ends too early")
    except Exception as error:  # on bytes that are no datum fastavro raises whatever it stumbles over
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return Unreadable(f"the message is no datum of {writer.name}: {told}")
    left = len(payload) - stream.tell()
    if left:
        return Unreadable(f"the message is no datum of {writer.name}: {left} bytes are left over")
    return row


def _learn(schema: RegisteredSchema, named: dict[str, Any]) -> None:
    """Parse the schemas that one refers to, so that their names are known."""
    for referred in schema.references.values():
        _learn(referred, named)
        fastavro.parse_schema(json.loads(referred.text), named_schemas=named)


def _loaded(given: Any, source: str) -> Any:
    """A schema as Python, from itself, its JSON text or a file of it."""
    try:
        if not isinstance(given, str):
            return given
        return json.loads(given if given.lstrip()[:1] in ("{", "[") else Path(given).read_text())
    except (OSError, ValueError) as error:
        raise DefinitionError(
            f"KafkaSource '{source}': schema={shown(given)} is neither Avro's JSON nor a file of it: {error}."
        ) from None


def _writer(name: str, schema: Any, named: dict[str, Any], fields: Sequence[Field], how: Reading) -> Writer:
    """A schema made ready, with instants of the event's fields as integers."""
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        return Writer(name, None, {}, f"{name} is no Avro record: {shown(schema)}")
    wanted = {how.column(f.name): f for f in fields}
    known = [column["name"] for column in schema["fields"]]
    for column, field in wanted.items():
        if column not in known and not field.nullable:
            return Writer(
                name, None, {}, f"{name} ('{schema.get('name')}') has no field '{column}'{did_you_mean(column, known)}"
            )
    plain, units = [], {}
    for column in schema["fields"]:
        kind, unit = column["type"], None
        if column["name"] in wanted:
            kind, unit = _plain(kind, wanted[column["name"]].dtype)
        plain.append({**column, "type": kind})
        if unit is not None:
            units[column["name"]] = unit
    parsed: Any = fastavro.parse_schema({**schema, "fields": plain}, named_schemas=named)
    return Writer(name, parsed, units, program=Program.of(parsed, named, [c for c in wanted if c in known]))


def _plain(kind: Any, dtype: str) -> tuple[Any, str | None]:
    """A type as it is to be read for a column of the event, and the unit of its instants if it has some.

    fastavro would make a datetime of each timestamp and a UUID of each UUID, which cost more than all the rest.
    """
    if isinstance(kind, list):
        branches = [_plain(each, dtype) for each in kind]
        units = {unit for _, unit in branches if unit is not None}
        return ([each for each, _ in branches], units.pop() if units else None) if len(units) < 2 else (kind, None)
    logical = kind.get("logicalType") if isinstance(kind, Mapping) else None
    if dtype == "timestamp" and logical in _UNITS and kind["type"] == "long":
        return "long", _UNITS[logical]
    return ("string", None) if dtype == "string" and logical == "uuid" and kind["type"] == "string" else (kind, None)
