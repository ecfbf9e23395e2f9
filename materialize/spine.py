"""The spine of a training set: the entities and instants to find features for, in whatever table they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.features.dtypes import BYTES, INT, STRING
from headrace.features.errors import DataError, DefinitionError, did_you_mean
from headrace.features.time import instant_us
from headrace.stores.layout import RowLayout, arrow_type

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class Spine:
    """A table of entities and instants.

    Attributes:
        table: the columns as they came, n rows.
        times: (n,) int64, the instants asked, microseconds; nanoseconds are cut off towards the past.
    """

    table: pa.Table
    times: npt.NDArray[np.int64]


def read_spine(data: Any, time: str) -> Spine:
    """A spine from a pandas or Polars frame, an Arrow table or a list of dicts.

    Args:
        data: the table.
        time: its column of instants: timestamps with a zone, or ISO text with one.

    Raises:
        DataError: no such column, instants without a zone or null, or no table at all.
    """
    table = _table(data)
    return Spine(table, _times(_column(table, time, "time="), time))


def key_columns(spine: Spine, layout: RowLayout, names: Mapping[str, str]) -> list[pa.ChunkedArray]:
    """The entity's keys of every row, in the entity's order and types; null keys are entities never seen.

    Args:
        names: for keys that have another name in the spine, key -> column.

    Raises:
        DataError: a key's column is missing or of another type.
    """
    found = []
    for key, dtype in layout.keys:
        column = _column(spine.table, names.get(key, key), f"key '{key}' of view '{layout.view}'")
        found.append(_as_key(column, dtype, f"Key '{key}' of view '{layout.view}'"))
    return found


def _table(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        return pa.Table.from_pylist([dict(row) for row in data])
    if hasattr(data, "collect") and hasattr(data, "lazy"):  # a Polars LazyFrame
        data = data.collect()
    try:
        if hasattr(data, "iloc") and hasattr(data, "columns"):  # a pandas frame
            return pa.Table.from_pandas(data, preserve_index=False)
        if hasattr(data, "__arrow_c_stream__"):
            return pa.table(data)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
        raise DataError(f"The spine cannot be read as a table: {error}. Give each column one type.") from error
    raise DataError(
        f"The spine is a {type(data).__name__}, expected a pandas or Polars frame, a pyarrow Table or a list of dicts."
    )


def _column(table: pa.Table, name: str, what: str) -> pa.ChunkedArray:
    count = table.column_names.count(name)
    if count == 1:
        return table.column(name)
    if count:
        raise DataError(f"The spine has {count} columns named '{name}'. Rename all but one.")
    raise DataError(
        f"The spine has no column '{name}' ({what}){did_you_mean(name, table.column_names)} "
        f"Its columns are: {', '.join(table.column_names) or 'none'}."
    )


def _times(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    shown = f"Time column '{name}' of the spine"
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise DataError(f"{shown} is null in row {row}. Drop such rows, or say when they are asked.")
    if not len(column):
        return np.empty(0, np.int64)
    column = _plain_text(column)
    if pa.types.is_string(column.type):
        try:
            texts = enumerate(column.to_pylist())
            return np.array([instant_us(text, f"{shown}, row {row}") for row, text in texts], np.int64)
        except DefinitionError as error:
            raise DataError(str(error)) from None
    if not pa.types.is_timestamp(column.type):
        raise DataError(
            f"{shown} is {column.type}, expected timestamps with a zone. A number's unit would be a guess; convert it "
            "first, "
            "such as pandas.to_datetime(column, unit='s', utc=True)."
        )
    if column.type.tz is None:
        raise DataError(
            f"{shown} has no time zone. Say which it is: df[{name!r}].dt.tz_localize('UTC') in pandas, "
            f"pl.col({name!r}).dt.replace_time_zone('UTC') in Polars."
        )
    ticks = column.cast(pa.int64()).to_numpy()
    scale = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1}[column.type.unit]
    micros: npt.NDArray[np.int64] = ticks // 1_000 if column.type.unit == "ns" else ticks * scale
    return micros


def _as_key(column: pa.ChunkedArray, dtype: str, shown: str) -> pa.ChunkedArray:
    column = _plain_text(column)
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


def _plain_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as plain strings, whichever of Arrow's forms (categorical, large, view) it comes in."""
    if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        chunks = [chunk.dictionary.cast(pa.string()).take(chunk.indices) for chunk in column.chunks]
        column = pa.chunked_array(chunks, pa.string())
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column.cast(pa.string()) if _is_text(column.type) else column


def _is_text(dtype: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(dtype) for test in tests)
