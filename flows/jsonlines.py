"""JSON messages or lines to events.

    lines --compiled, json_columns.py--> a column for each field                the usual line, of many
    line --typed decoder--> one small struct -> a column for each field         of few lines, or in an unusual spelling
         '--it stumbles--> any JSON value -> casting.py, value by value         a whole float for an integer, NaN as
                                                                                Python writes it, or a dead letter
Every line is judged by itself, so the verdict does not depend on its neighbours. What a line says in fields that the
event does not have is skipped, and only its syntax is looked at.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from headrace.features.events import EventSchema, Field
from headrace.flows.batch import ARROW_TYPES, Ints
from headrace.flows.casting import cast_column
from headrace.flows.deadletter import payload_of_bytes
from headrace.flows.decode import Decoded, Partitions, assemble, cast_rows
from headrace.flows.fit import Cast, Unreadable, interleaved
from headrace.flows.json_columns import SMALL, json_columns
from headrace.flows.values import Reading

_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES: dict[str, Any] = {"int64": _INT64, "float64": float, "bool": bool, "string": str, "bytes": bytes}

Row: TypeAlias = Any  # a msgspec struct with the fields v0, v1, ...
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decode_json(
    schema: EventSchema,
    lines: Sequence[bytes],
    partition: int | Partitions = 0,
    first_offset: int | Ints = 0,
    how: Reading | None = None,
) -> Decoded:
    """The events of n JSON texts, one object each. See `decode_table` for the places."""
    how = how or Reading(base64=True)
    casts, whole = cast_json(schema.fields, lines, how)
    return assemble(schema, casts, whole, lambda row: payload_of_bytes(lines[row]), partition, first_offset, how)


def cast_json(
    fields: tuple[Field, ...], lines: Sequence[bytes], how: Reading
) -> tuple[dict[str, Cast], dict[int, str]]:
    """The fields of n JSON texts, by their names, and what is wrong with the texts that are no object at all."""
    names = tuple(how.column(f.name) for f in fields)
    compiled = json_columns(fields, names, how.time) if len(lines) > SMALL else None
    if compiled is None:
        return _struct_by_struct(fields, lines, how)
    columns, bad = compiled.read(lines)
    if bad.all():
        return _struct_by_struct(fields, lines, how)
    if not bad.any():
        return _cast(fields, columns, how), {}
    usual, odd = np.flatnonzero(~bad), np.flatnonzero(bad).tolist()
    fast = _cast(fields, [column.take(pa.array(usual)) for column in columns], how)
    return _joined(len(lines), usual.tolist(), fast, odd, *_struct_by_struct(fields, [lines[i] for i in odd], how))


def _struct_by_struct(
    fields: tuple[Field, ...], lines: Sequence[bytes], how: Reading
) -> tuple[dict[str, Cast], dict[int, str]]:
    """Lines that the typed decoder reads in columns, the others value by value."""
    decoder = _typed(fields, tuple(how.column(f.name) for f in fields), how.time.unit is not None, how.base64)
    if decoder is None:
        return cast_rows(fields, [_object(line) for line in lines], how)
    decode, columns = decoder
    try:
        return _cast(fields, columns([decode(line) for line in lines]), how), {}
    except _NOT_JSON:
        pass  # some lines: which ones?
    rows, usual, odd = [], [], []
    for i, line in enumerate(lines):
        try:
            rows.append(decode(line))
            usual.append(i)
        except _NOT_JSON:
            odd.append(i)
    slow, whole = cast_rows(fields, [_object(lines[i]) for i in odd], how)
    if not rows:
        return slow, whole
    return _joined(len(lines), usual, _cast(fields, columns(rows), how), odd, slow, whole)


def _joined(
    n: int, usual: list[int], fast: Mapping[str, Cast], odd: list[int], slow: Mapping[str, Cast], whole: dict[int, str]
) -> tuple[dict[str, Cast], dict[int, str]]:
    """n lines, of which some were read in one way and the others in another."""
    casts = {name: interleaved([(usual, cast), (odd, slow[name])], n) for name, cast in fast.items()}
    return casts, {odd[i]: why for i, why in whole.items()}


def _cast(fields: Sequence[Field], columns: Sequence[pa.Array], how: Reading) -> dict[str, Cast]:
    """Columns of the type that each field expects; instants may be integers or text."""
    return {
        field.name: cast_column(field, column, how) if field.dtype == "timestamp" else Cast(column)
        for field, column in zip(fields, columns, strict=True)
    }


@lru_cache(maxsize=256)
def _typed(
    fields: tuple[Field, ...], names: tuple[str, ...], counted: bool, base64: bool
) -> tuple[Callable[[bytes], Row], Callable[[list[Row]], list[pa.Array]]] | None:
    """A decoder of one line to a struct and a function from n structs to the columns of the fields.

    names: of the fields in the text. counted: instants are integers. None where two fields are read from one name or
    bytes are not written in base64: no struct says that.
    """
    if len(set(names)) < len(names) or (not base64 and any(f.dtype == "bytes" for f in fields)):
        return None
    declared = []
    for i, field in enumerate(fields):
        kind = _TYPES.get(field.dtype, _INT64 if counted else str)
        declared.append((f"v{i}", kind | None, None) if field.nullable else (f"v{i}", kind))
    # gc=False: no row can be part of a cycle, and thousands of them would set the collector off.
    struct = msgspec.defstruct(
        "Row", declared, rename={f"v{i}": name for i, name in enumerate(names)}, kw_only=True, gc=False
    )
    # A comprehension with the attribute written out is twice as fast as `map(attrgetter(...))`.
    values = eval(f"lambda rows: ({''.join(f'[r.v{i} for r in rows], ' for i in range(len(fields)))})")
    types = [
        (pa.int64() if counted else pa.string()) if f.dtype == "timestamp" else ARROW_TYPES[f.dtype] for f in fields
    ]

    def columns(rows: list[Row]) -> list[pa.Array]:
        return [pa.array(each, type=type) for each, type in zip(values(rows), types, strict=True)]

    return msgspec.json.Decoder(struct).decode, columns


def _object(line: bytes) -> Any:
    """One line as Python."""
    try:
        return msgspec.json.decode(line)
    except _NOT_JSON as error:
        problem = f"the line is no JSON: {error}"
    try:  # Python's own writer puts NaN and Infinity, which strict JSON has no word for
        return json.loads(line, parse_float=_finite)
    except (ValueError, RecursionError):
        return Unreadable(problem)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is beyond float64")
    return value
