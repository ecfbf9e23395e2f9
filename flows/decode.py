"""Decoding: rows and tables of any origin to one `EventBatch`, and a dead letter for each row that does not fit.

    table or rows -> one Arrow column per field -> cast, row by row refusals -> nullability -> good rows | dead letters

Nothing raises on data and nothing is dropped: good rows around a bad one survive, and the bad one is kept whole with the reason.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.events import EventSchema
from headrace.features.sources import Source
from headrace.flows.batch import ARROW_TYPES, BatchColumn, EventBatch, Ints
from headrace.flows.casting import Reading, cast_column, cast_values
from headrace.flows.deadletter import MALFORMED, DeadLetter, payload_text
from headrace.flows.fit import MISSING, Cast, cell, shown
from headrace.flows.instants import TimeReading
from headrace.flows.zones import LocalClock

Decoded = tuple[EventBatch, list[DeadLetter]]

_SCALARS = (type(None), bool, int, float, complex, str, bytes, bytearray, list, set, frozenset)


def reading_of(source: Source, required: Iterable[str] = ()) -> Reading:
    """How a source's rows are read, from its definition. `required`: fields that may not be null (entity keys)."""
    zone, unit = getattr(source, "zone", None), getattr(source, "unit", None)
    clock = None
    if zone is not None:
        clock = LocalClock(zone, getattr(source, "ambiguous", "refuse"), getattr(source, "nonexistent", "refuse"))
    format = getattr(source, "format", None)
    return Reading(
        TimeReading(clock, unit),
        text=format == "csv",
        base64=format == "jsonl",
        columns=getattr(source, "columns", {}),
        required=frozenset(required),
        source=source.name,
    )


def decode_table(
    schema: EventSchema,
    table: pa.Table | pa.RecordBatch,
    partition: int = 0,
    first_offset: int | Ints = 0,
    how: Reading | None = None,
) -> Decoded:
    """The events of an Arrow table of n rows. Columns that are no field of the event are left aside.

    first_offset: the offset of the first row, the others following, or (n,) the offset of each.
    """
    how = how or Reading()
    n = table.num_rows
    casts: dict[str, Cast] = {}
    present = set(table.schema.names)
    for field in schema.fields:
        name = how.column(field.name)
        if name in present:
            casts[field.name] = cast_column(field, _one_array(table.column(table.schema.names.index(name))), how)
        else:
            casts[field.name] = cast_values(field, [MISSING] * n, how)
    return _assemble(schema, casts, n, {}, lambda row: payload_text(_row_of(table, row)), partition, first_offset, how)


def decode_rows(
    schema: EventSchema,
    rows: Iterable[Any],
    partition: int = 0,
    first_offset: int | Ints = 0,
    how: Reading | None = None,
    payload: Callable[[int], str] | None = None,
) -> Decoded:
    """The events of n Python rows: mappings, or objects with an attribute per field (dataclasses, msgspec structs, ...).

    A field that a row does not have is null where the field may be null; keys that are no field are left aside.
    payload: text of a bad row for its dead letter; by default the row as JSON.
    """
    how = how or Reading()
    given = rows if isinstance(rows, list) else list(rows)
    whole = _no_rows(given)
    casts: dict[str, Cast] = {}
    for field in schema.fields:
        casts[field.name] = cast_values(field, _field_values(given, how.column(field.name), whole), how)
    shown_row = payload or (lambda row: payload_text(_plain(given[row], schema, how)))
    return _assemble(schema, casts, len(given), whole, shown_row, partition, first_offset, how)


def _no_rows(rows: list[Any]) -> dict[int, str]:
    """Rows that have no fields at all, such as a number or a list."""
    if set(map(type, rows)) <= {dict}:
        return {}
    return {
        i: f"the row is {shown(row)} ({type(row).__name__}), expected a mapping or an object with the event's fields"
        for i, row in enumerate(rows)
        if isinstance(row, _SCALARS) or type(row) is tuple
    }


def _field_values(rows: list[Any], name: str, whole: Mapping[int, str]) -> list[Any]:
    if not whole:
        try:
            return [row[name] for row in rows] if all(type(row) is dict for row in rows) else _each(rows, name)
        except KeyError:
            return [row.get(name, MISSING) for row in rows]
    return _each(rows, name)


def _each(rows: list[Any], name: str) -> list[Any]:
    return [_one_value(row, name) for row in rows]


def _one_value(row: Any, name: str) -> Any:
    try:
        value = row.get(name, MISSING) if isinstance(row, Mapping) else getattr(row, name, MISSING)
    except Exception:  # a property of an object of the user's own may raise anything
        return MISSING
    return MISSING if type(value).__name__ == "UnsetType" else value


def _plain(row: Any, schema: EventSchema, how: Reading) -> Any:
    """A row as its dead letter shows it: all of a mapping, the event's fields of another object."""
    if isinstance(row, (Mapping, *_SCALARS)) or type(row) is tuple:
        return row
    values = {field.name: _one_value(row, how.column(field.name)) for field in schema.fields}
    return {name: value for name, value in values.items() if value is not MISSING}


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _row_of(table: pa.Table | pa.RecordBatch, row: int) -> dict[str, Any]:
    one = table.slice(row, 1)
    try:
        return dict(one.to_pylist()[0])
    except (ValueError, OverflowError, ArithmeticError, pa.ArrowException):  # an instant that Python cannot hold
        return {name: cell(_one_array(one.column(i)), 0) for i, name in enumerate(table.schema.names)}


def _assemble(
    schema: EventSchema,
    casts: Mapping[str, Cast],
    n: int,
    whole: Mapping[int, str],
    payload: Callable[[int], str],
    partition: int,
    first_offset: int | Ints,
    how: Reading,
) -> Decoded:
    """Good rows to a batch and bad ones to dead letters; a row is bad for its first field that is."""
    offset = np.arange(first_offset, first_offset + n) if isinstance(first_offset, int) else first_offset
    bad: dict[int, str] = dict(whole)
    for field in schema.fields:
        cast = casts[field.name]
        for row, why in cast.unfit.items():
            bad.setdefault(row, f"field '{field.name}': {why}")
        if cast.array.null_count and (not field.nullable or field.name in how.required):
            why = "null, but an entity's key may not be" if field.nullable else "null, but not declared `| None`"
            for row in np.flatnonzero(pc.is_null(cast.array).to_numpy(zero_copy_only=False)):
                bad.setdefault(int(row), f"field '{field.name}': {why}")
    times = casts[schema.time_field].array.cast(pa.int64())
    letters = [
        DeadLetter(MALFORMED, bad[i], how.source, partition, int(offset[i]), times[i].as_py(), payload(i))
        for i in sorted(bad)
    ]
    arrays = {name: cast.array for name, cast in casts.items()}
    if bad:
        good = np.ones(n, dtype=np.bool_)
        good[list(bad)] = False
        arrays = {name: array.filter(pa.array(good)) for name, array in arrays.items()}
        offset = offset[good]
    columns = {f.name: BatchColumn(f.dtype, arrow=arrays[f.name]) for f in schema.fields}
    time = columns[schema.time_field].values()
    return EventBatch.of(columns, time, partition, offset), letters


def dtypes_of(schema: EventSchema) -> dict[str, str]:
    """Field -> dtype, as `EventBatch.empty` takes it."""
    return {field.name: field.dtype for field in schema.fields if field.dtype in ARROW_TYPES}
