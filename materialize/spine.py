"""The spine of a training set: the entities and instants to find features for, in whatever table they come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.features.dtypes import BYTES, INT, STRING
from headrace.features.errors import DataError, did_you_mean
from headrace.materialize.spine_times import SpineClock, check_one_kind, instants
from headrace.stores.layout import RowLayout, arrow_type
from headrace.stores.sql import connect

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PORTION = 1 << 20
"""Spine rows that are answered at a time: what is held in memory, however long the spine is."""

EXPECTED = (
    "a pandas or Polars frame, a pyarrow Table, reader or dataset, a DuckDB relation, a list of dicts, the path of a "
    "Parquet file or folder, or SQL ('SELECT ...')"
)
_QUERY = re.compile(r"\s*(select|with|from|values)\s", re.IGNORECASE)


@dataclass(frozen=True)
class Spine:
    """A table of entities and instants, which can be gone through more than once.

    Attributes:
        schema: of its columns, as they came.
        batches: begins at the first row, in order.
        steady: whether the order is the same each time; that of a query may not be.
    """

    schema: pa.Schema
    batches: Callable[[], Iterable[pa.RecordBatch]]
    steady: bool = True

    def portions(self, rows: int = PORTION) -> Iterator[pa.Table]:
        """All rows in order, as tables of `rows` rows, the last one shorter; one without rows if there are none."""
        held: list[pa.RecordBatch] = []
        count, none = 0, True
        for batch in self.batches():
            while count + len(batch) >= rows:
                cut = rows - count
                yield pa.Table.from_batches([*held, batch.slice(0, cut)], self.schema)
                batch, held, count, none = batch.slice(cut), [], 0, False
            if len(batch):
                held.append(batch)
                count += len(batch)
        if held or none:
            yield pa.Table.from_batches(held, self.schema)


def read_spine(data: Any, time: str) -> Spine:
    """A spine from whatever table it is in.

    Args:
        data: see `EXPECTED`.
        time: its column of instants.

    Raises:
        DataError: no table at all, a path where there is none, SQL that fails.
    """
    if isinstance(data, Path) or (isinstance(data, str) and not _QUERY.match(data)):
        return _of_path(data)
    if isinstance(data, str):
        return _of_query(data)
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        check_one_kind([row.get(time) for row in data], time)
        return _of_table(_tried(lambda: pa.Table.from_pylist([dict(row) for row in data])))
    if isinstance(data, pa.RecordBatch):
        return _of_table(pa.Table.from_batches([data]))
    if isinstance(data, pa.RecordBatchReader):  # goes by once
        return _of_table(data.read_all())
    if hasattr(data, "collect") and hasattr(data, "lazy"):  # a Polars LazyFrame
        data = data.collect()
    if hasattr(data, "iloc") and hasattr(data, "columns"):  # a pandas frame
        if time in data.columns and str(getattr(data[time], "dtype", "")) == "object":
            check_one_kind(data[time].tolist(), time)
        return _of_table(_tried(lambda: pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata()))
    if hasattr(data, "to_batches") and hasattr(data, "schema"):  # an Arrow table or dataset
        return Spine(data.schema, data.to_batches)
    if hasattr(data, "__arrow_c_stream__"):  # a Polars frame, a DuckDB relation: read anew each time
        return Spine(_reader(data).schema, lambda: _reader(data), steady=False)
    raise DataError(f"The spine is a {type(data).__name__}, expected {EXPECTED}.")


def column_named(table: pa.Table, name: str, what: str) -> pa.ChunkedArray:
    """A column of a portion. Raises DataError: none or several have the name; `what` says what it is for."""
    check_column(table.schema, name, what)
    return table.column(name)


def check_column(schema: pa.Schema, name: str, what: str) -> None:
    """Raises DataError unless exactly one column has the name."""
    count = schema.names.count(name)
    if count > 1:
        raise DataError(f"The spine has {count} columns named '{name}'. Rename all but one.")
    if not count:
        raise DataError(
            f"The spine has no column '{name}' ({what}){did_you_mean(name, schema.names)} "
            f"Its columns are: {', '.join(schema.names) or 'none'}."
        )


def times_of(table: pa.Table, time: str, clock: SpineClock, first: int) -> npt.NDArray[np.int64]:
    """(n,) the instants of a portion, microseconds UTC; raises as `spine_times.instants`."""
    return instants(plain_text(column_named(table, time, "time=")), time, clock, first)


def key_columns(table: pa.Table, layout: RowLayout, names: Mapping[str, str]) -> list[pa.ChunkedArray]:
    """The entity's keys of every row, in the entity's order and types; null keys are entities never seen.

    Args:
        names: for keys that have another name in the spine, key -> column.

    Raises:
        DataError: a key's column is missing or of another type.
    """
    found = []
    for key, dtype in layout.keys:
        column = column_named(table, names.get(key, key), f"key '{key}' of view '{layout.view}'")
        found.append(_as_key(column, dtype, f"Key '{key}' of view '{layout.view}'"))
    return found


def plain_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as plain strings, whichever of Arrow's forms (categorical, large, view) it comes in."""
    if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        chunks = [chunk.dictionary.cast(pa.string()).take(chunk.indices) for chunk in column.chunks]
        column = pa.chunked_array(chunks, pa.string())
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column.cast(pa.string()) if _is_text(column.type) else column


def _of_table(table: pa.Table) -> Spine:
    return Spine(table.schema, table.to_batches)


def _reader(data: Any) -> pa.RecordBatchReader:
    return _tried(lambda: pa.RecordBatchReader.from_stream(data))


def _of_path(path: str | Path) -> Spine:
    import pyarrow.dataset as ds

    try:
        found = ds.dataset(str(path), format="parquet", partitioning="hive")
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"The spine '{path}' cannot be read as Parquet: {error}. Expected {EXPECTED}.") from error
    return Spine(found.schema, found.to_batches)


def _of_query(query: str) -> Spine:
    """The rows of a query of DuckDB, whose zone is UTC, in the order that it gives them."""

    import duckdb

    query = query.strip().rstrip(";")

    def batches() -> Iterator[pa.RecordBatch]:
        with closing(connect()) as connection:
            try:
                yield from connection.sql(query).to_arrow_reader(1 << 16)
            except (duckdb.Error, AttributeError) as error:
                raise DataError(f"The spine's SQL fails: {error}") from error

    with closing(connect()) as connection:
        try:
            schema = connection.sql(f"SELECT * FROM ({query}) LIMIT 0").to_arrow_table().schema
        except (duckdb.Error, AttributeError) as error:
            raise DataError(f"The spine's SQL fails: {error}") from error
    return Spine(schema, batches, steady=False)


def _tried(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
        raise DataError(f"The spine cannot be read as a table: {error}. Give each column one type.") from error


def _as_key(column: pa.ChunkedArray, dtype: str, shown: str) -> pa.ChunkedArray:
    column = plain_text(column)
    got = column.type
    fits = {
        STRING: pa.types.is_string(got),
        INT: pa.types.is_integer(got) or pa.types.is_floating(got),  # pandas makes floats of integers with gaps
        BYTES: pa.types.is_binary(got) or pa.types.is_large_binary(got) or pa.types.is_fixed_size_binary(got),
    }[dtype]
    if not fits and len(column) and not pa.types.is_null(got):
        hint = " Convert it first: the number 1 and the text '1' are two entities." if dtype in (STRING, INT) else ""
        raise DataError(f"{shown} is {got} in the spine, expected {dtype}.{hint}")
    if not len(column):
        return pa.chunked_array([], arrow_type(dtype))
    try:
        return column.cast(arrow_type(dtype))
    except pa.ArrowInvalid as error:
        raise DataError(f"{shown} holds values that are no {dtype}: {error}.") from error


def _is_text(dtype: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(dtype) for test in tests)
