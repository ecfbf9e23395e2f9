"""JSON messages or lines to events: each is read by a typed decoder straight into the event's fields.

    line --typed decoder--> one small struct -> a column for each field        the usual line
         '--it stumbles--> any JSON value -> casting.py, value by value        a whole float for an integer, NaN as
                                                                               Python writes it, or a dead letter
Every line is judged by itself, so the verdict does not depend on its neighbours. What a line says in fields that the
event does not have is skipped, and only its syntax is looked at.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import msgspec
import pyarrow as pa

from headrace.features.events import EventSchema, Field
from headrace.flows.batch import ARROW_TYPES, Ints
from headrace.flows.casting import cast_column
from headrace.flows.deadletter import payload_of_bytes
from headrace.flows.decode import Decoded, Partitions, assemble, cast_rows
from headrace.flows.fit import Cast, Unreadable, interleaved
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
    decoder = _typed(fields, tuple(how.column(f.name) for f in fields), how.time.unit is not None, how.base64)
    if decoder is None:
        return cast_rows(fields, [_object(line) for line in lines], how)
    decode, columns = decoder
    try:
        rows = [decode(line) for line in lines]
    except _NOT_JSON:
        return _mixed(fields, lines, how, decode, columns)
    return _cast(fields, columns(rows), how), {}


def _mixed(
    fields: tuple[Field, ...],
    lines: Sequence[bytes],
    how: Reading,
    decode: Callable[[bytes], Row],
    columns: Callable[[list[Row]], Sequence[list[Any]]],
) -> tuple[dict[str, Cast], dict[int, str]]:
    """Lines of which the typed decoder reads some: those in columns, the others one by one."""
    rows, usual, odd = [], [], []
    for i, line in enumerate(lines):
        try:
            rows.append(decode(line))
            usual.append(i)
        except _NOT_JSON:
            odd.append(i)
    slow, whole = cast_rows(fields, [_object(lines[i]) for i in odd], how)
    places = {i: why for i, why in zip(odd, map(whole.get, range(len(odd))), strict=True) if why is not None}
    if not rows:
        return slow, whole
    fast = _cast(fields, columns(rows), how)
    n = len(lines)
    return {f.name: interleaved([(usual, fast[f.name]), (odd, slow[f.name])], n) for f in fields}, places


def _cast(fields: Sequence[Field], columns: Sequence[list[Any]], how: Reading) -> dict[str, Cast]:
    """Columns of values of the type that each field expects."""
    casts = {}
    for field, values in zip(fields, columns, strict=True):
        if field.dtype != "timestamp":
            casts[field.name] = Cast(pa.array(values, type=ARROW_TYPES[field.dtype]))
        else:
            written = pa.string() if how.time.unit is None else pa.int64()
            casts[field.name] = cast_column(field, pa.array(values, type=written), how)
    return casts


@lru_cache(maxsize=256)
def _typed(
    fields: tuple[Field, ...], names: tuple[str, ...], counted: bool, base64: bool
) -> tuple[Callable[[bytes], Row], Callable[[list[Row]], Sequence[list[Any]]]] | None:
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
    columns = eval(f"lambda rows: ({''.join(f'[r.v{i} for r in rows], ' for i in range(len(fields)))})")
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
