"""Tables in memory, in slices: pandas column by column, everything else through the Arrow C stream interface."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.errors import DataError

Column: TypeAlias = "pa.Array | list[Any]"


def is_pandas(data: Any) -> bool:
    """Whether `data` is a pandas DataFrame, told without importing pandas."""
    return type(data).__name__ == "DataFrame" and type(data).__module__.partition(".")[0] == "pandas"


def pandas_slices(frame: Any, names: Sequence[str], size: int, start: int) -> Iterator[tuple[dict[str, Column], int]]:
    """Columns `names` of a pandas frame from row `start`, `size` rows at a time, with the number of rows.

    A name may also be of an index level. Columns of Python objects come as lists, so that each value can be judged
    alone.
    """
    for first in range(start, max(len(frame), start), size):
        part = frame.iloc[first : first + size]
        yield {name: _pandas_column(_series(part, name)) for name in names if _has(frame, name)}, len(part)


def pandas_names(frame: Any) -> list[str]:
    """The names that `pandas_slices` can give: columns, then named index levels."""
    return [name for name in (*frame.columns, *frame.index.names) if isinstance(name, str)]


def pandas_row(frame: Any, row: int) -> Mapping[str, Any]:
    """One row of a pandas frame with its named index levels, as a dead letter shows it."""
    one = frame.iloc[[row]]
    return {name: _series(one, name).iloc[0] for name in pandas_names(frame)}


def _has(frame: Any, name: str) -> bool:
    return name in frame.columns or name in frame.index.names


def _series(frame: Any, name: str) -> Any:
    if name not in frame.columns:
        return frame.index.get_level_values(name).to_series()
    series = frame[name]
    if getattr(series, "ndim", 1) != 1:
        raise DataError(f"The pandas frame has several columns '{name}'. Rename all but one.")
    return series


def _pandas_column(series: Any) -> Column:
    if series.dtype == object:
        return list(series)
    try:
        if isinstance(series.dtype, np.dtype) and series.dtype.kind == "f":
            values = pa.array(
                series.to_numpy(), from_pandas=False
            )  # a NaN is not a null: a float field may not be null
            # pandas gives a column without any value the type float64, whatever it would have held
            return pa.nulls(len(values)) if pc.all(pc.is_nan(values)).as_py() else values
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return list(series)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def slices(batches: Iterator[pa.RecordBatch], size: int, start: int) -> Iterator[pa.Table]:
    """Record batches of any size as tables of `size` rows (the last may be shorter), from row `start`."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if start >= batch.num_rows:
            start -= batch.num_rows
            continue
        batch, start = batch.slice(start), 0
        while batch.num_rows:
            part = batch.slice(0, size - rows)
            batch = batch.slice(part.num_rows)
            held.append(part)
            rows += part.num_rows
            if rows == size:
                yield pa.Table.from_batches(held)
                held, rows = [], 0
    if held:
        yield pa.Table.from_batches(held)
