"""Decoding: rows and tables of any origin to one `EventBatch`, and a dead letter for each row that does not fit.

    table or rows -> one Arrow column per field -> cast, row by row refusals -> nullability -> good rows | dead
    letters

Nothing raises on data and nothing is dropped: good rows around a bad one survive, and the bad one is kept whole with
the reason.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.events import EventSchema, Field
from headrace.features.kafka_source import KafkaSource
from headrace.features.python_source import PythonSource
from headrace.features.sources import FileSource, FrameSource, IterableSource, Source
from headrace.flows.batch import BatchColumn, EventBatch, Ints
from headrace.flows.casting import cast_column, cast_values
from headrace.flows.deadletter import MALFORMED, DeadLetter, payload_text
from headrace.flows.fit import MISSING, Cast, Unreadable, cell, shown
from headrace.flows.instants import TimeReading
from headrace.flows.values import Reading
from headrace.flows.zones import LocalClock

Decoded = tuple[EventBatch, list[DeadLetter]]
Partitions = npt.NDArray[np.int32]

_SCALARS = (type(None), bool, int, float, complex, str, bytes, bytearray, list, set, frozenset)


def reading_of(source: Source) -> Reading:
    """How a source's rows are read, from its definition."""
    clock = unit = None
    if isinstance(source, (FileSource, FrameSource, IterableSource, KafkaSource, PythonSource)):
        unit = source.unit
        if source.zone is not None:
            clock = LocalClock(source.zone, source.ambiguous, source.nonexistent)  # type: ignore[arg-type]
    format = getattr(source, "format", None)
    columns = getattr(source, "columns", {})
    return Reading(
        TimeReading(clock, unit),
        text=format == "csv",
        base64=format in ("jsonl", "json"),
        columns={name: origin for name, origin in columns.items() if isinstance(origin, str)},
        source=source.name,
    )


def decode_table(
    schema: EventSchema,
    table: pa.Table | pa.RecordBatch,
    partition: int | Partitions = 0,
    first_offset: int | Ints = 0,
    how: Reading | None = None,
    payload: Callable[[int], str] | None = None,
) -> Decoded:
    """The events of an Arrow table of n rows. Columns that are no field of the event are left aside.

    partition: of all rows, or (n,) int32 that of each.
    first_offset: the offset of the first row, the others following, or (n,) the offset of each.
    payload: text of a bad row for its dead letter; by default the row as JSON.
    """
    how = how or Reading()
    columns = {name: _one_array(table.column(i)) for i, name in enumerate(table.schema.names)}
    shown_row = payload or (lambda row: payload_text(_row_of(columns, row)))
    return decode_columns(schema, columns, table.num_rows, partition, first_offset, how, shown_row)


def decode_columns(
    schema: EventSchema,
    columns: Mapping[str, pa.Array | list[Any]],
    n: int,
    partition: int | Partitions,
    first_offset: int | Ints,
    how: Reading,
    payload: Callable[[int], str],
) -> Decoded:
    """The events of n rows whose columns are Arrow arrays or lists of Python values, under the source's names."""
    return assemble(schema, cast_columns(schema.fields, columns, n, how), {}, payload, partition, first_offset, how)


def cast_columns(
    fields: Iterable[Field], columns: Mapping[str, pa.Array | list[Any]], n: int, how: Reading
) -> dict[str, Cast]:
    """The fields of n rows, by their names, from columns under the source's names."""
    casts: dict[str, Cast] = {}
    for field in fields:
        column = columns.get(how.column(field.name))
        if column is None:
            casts[field.name] = cast_values(field, [MISSING] * n, how)
        elif isinstance(column, list):
            casts[field.name] = cast_values(field, column, how)
        else:
            casts[field.name] = cast_column(field, column, how)
    return casts


def decode_rows(
    schema: EventSchema,
    rows: Iterable[Any],
    partition: int | Partitions = 0,
    first_offset: int | Ints = 0,
    how: Reading | None = None,
    payload: Callable[[int], str] | None = None,
) -> Decoded:
    """The events of n Python rows: mappings, or objects with an attribute per field (dataclasses, msgspec structs,
    ...).

    A field that a row does not have is null where the field may be null; keys that are no field are left aside.
    payload: text of a bad row for its dead letter; by default the row as JSON.
    """
    how = how or Reading()
    given = rows if isinstance(rows, list) else list(rows)
    casts, whole = cast_rows(schema.fields, given, how)
    shown_row = payload or (lambda row: payload_text(_plain(given[row], schema, how)))
    return assemble(schema, casts, whole, shown_row, partition, first_offset, how)


def cast_rows(fields: Iterable[Field], rows: list[Any], how: Reading) -> tuple[dict[str, Cast], dict[int, str]]:
    """The fields of n Python rows, by their names, and what is wrong with the rows that have no fields at all."""
    whole = _no_rows(rows)
    return {f.name: cast_values(f, _field_values(rows, how.column(f.name), whole), how) for f in fields}, whole


def _no_rows(rows: list[Any]) -> dict[int, str]:
    """Rows that have no fields at all, such as a number or a list."""
    if set(map(type, rows)) <= {dict}:
        return {}
    whole = {}
    for i, row in enumerate(rows):
        if isinstance(row, Unreadable):
            whole[i] = row.problem
        elif _is_no_row(row):
            kind = type(row).__name__
            whole[i] = f"the row is {shown(row)} ({kind}), expected a mapping or an object with the event's fields"
    return whole


def _is_no_row(row: Any) -> bool:
    return isinstance(row, _SCALARS) or type(row) is tuple


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
        if isinstance(row, Mapping):
            value = row.get(name, MISSING)
        elif hasattr(type(row), "keys"):  # read by key too: a pandas Series, a row of a database
            value = row[name]
        else:
            value = getattr(row, name, MISSING)
    except Exception:  # a property of an object of the user's own may raise anything
        return MISSING
    return MISSING if type(value).__name__ == "UnsetType" else value


def _plain(row: Any, schema: EventSchema, how: Reading) -> Any:
    """A row as its dead letter shows it: all of a mapping, the event's fields of another object."""
    if isinstance(row, Mapping) or _is_no_row(row):
        return row
    values = {field.name: _one_value(row, how.column(field.name)) for field in schema.fields}
    return {name: value for name, value in values.items() if value is not MISSING}


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _row_of(columns: Mapping[str, pa.Array], row: int) -> dict[str, Any]:
    return {name: _cell(column, row) for name, column in columns.items()}


def _cell(column: pa.Array, row: int) -> Any:
    try:
        value = column[row].as_py()
    except (ValueError, OverflowError, ArithmeticError, pa.ArrowException):  # an instant that Python cannot hold
        return cell(column, row)
    return value


def assemble(
    schema: EventSchema,
    casts: Mapping[str, Cast],
    whole: Mapping[int, str],
    payload: Callable[[int], str],
    partition: int | Partitions,
    first_offset: int | Ints,
    how: Reading,
) -> Decoded:
    """Good rows to a batch and bad ones to dead letters; a row is bad for its first field that is.

    casts: every field of the event. whole: what is wrong with rows that could not be read at all.
    """
    n = len(casts[schema.time_field].array)
    offset = first_offset if isinstance(first_offset, np.ndarray) else np.arange(first_offset, first_offset + n)
    where = partition if isinstance(partition, np.ndarray) else np.full(n, partition, dtype=np.int32)
    bad: dict[int, str] = dict(whole)
    for field in schema.fields:
        cast = casts[field.name]
        for row, why in cast.unfit.items():
            bad.setdefault(row, f"field '{field.name}': {why}")
        if cast.array.null_count and not field.nullable:
            for null in np.flatnonzero(pc.is_null(cast.array).to_numpy(zero_copy_only=False)):
                bad.setdefault(int(null), f"field '{field.name}': null, but not declared `| None`")
    letters: list[DeadLetter] = []
    arrays = {name: cast.array for name, cast in casts.items()}
    if bad:
        times = casts[schema.time_field].array.cast(pa.int64())
        letters = [
            DeadLetter(MALFORMED, bad[i], how.source, int(where[i]), int(offset[i]), times[i].as_py(), payload(i))
            for i in sorted(bad)
        ]
        good = np.ones(n, dtype=np.bool_)
        good[list(bad)] = False
        arrays = {name: array.filter(pa.array(good)) for name, array in arrays.items()}
        offset, where = offset[good], where[good]
    columns = {f.name: BatchColumn(f.dtype, arrow=arrays[f.name]) for f in schema.fields}
    time = columns[schema.time_field].values()
    return EventBatch.of(columns, time, where, offset), letters
