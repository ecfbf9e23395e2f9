"""Feature columns between Arrow, as they rest and go to training, and the pairs of NumPy arrays that features/ computes
on.

A pair is `(values, valid)` as in headrace.features.evaluate: int64, float64, bool or (for everything else) object
values, and instants as int64 microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.features.dtypes import BOOL, FLOAT, INT, TIMESTAMP
from headrace.stores.layout import arrow_type
from headrace.stores.rows import plain_column, plain_value, table_value

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.features.evaluate import Pair

_NUMPY: dict[str, Any] = {INT: np.int64, FLOAT: np.float64, BOOL: np.bool_, TIMESTAMP: np.int64}


def pair_of(column: pa.ChunkedArray, dtype: str) -> Pair:
    """An Arrow column of type `dtype` as a pair; numbers without going through Python objects."""
    import pyarrow.compute as pc

    valid = np.asarray(pc.is_valid(column).to_numpy(), dtype=np.bool_)
    if dtype in _NUMPY:
        if dtype == TIMESTAMP:
            column = column.cast("int64")
        filled = pc.fill_null(column, False if dtype == BOOL else 0) if column.null_count else column
        return filled.to_numpy().astype(_NUMPY[dtype], copy=False), valid
    values = np.empty(len(column), dtype=object)
    for i, value in enumerate(plain_column(column, dtype)):
        values[i] = plain_value(value, dtype)
    return values, valid


def column_of(pair: Pair, dtype: str) -> pa.Array:
    """A pair of type `dtype` as an Arrow column."""
    import pyarrow as pa

    values, valid = pair
    target = arrow_type(dtype)
    if dtype in _NUMPY and values.dtype != object:
        array = pa.array(values.astype(_NUMPY[dtype], copy=False), mask=~valid)
        return array.cast(target) if dtype == TIMESTAMP else array
    plain = [table_value(value, dtype) if ok else None for value, ok in zip(values.tolist(), valid, strict=True)]
    array = pa.array(plain, arrow_type(dtype.replace(TIMESTAMP, INT)))
    return array.cast(target) if TIMESTAMP in dtype else array
