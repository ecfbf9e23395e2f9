"""Rows of a view in Arrow, from the columns that the kernels wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.views import ViewDefinition
from headrace.flows.keys import KeyTable
from headrace.flows.plan import Plan
from headrace.flows.readings import Rows
from headrace.stores.layout import arrow_schema, row_layout

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
INSTANT = pa.timestamp("us", tz="UTC")
_AS_THEY_ARE = {pa.float64(): np.dtype(np.float64), pa.int64(): np.dtype(np.int64)}


@dataclass(frozen=True)
class Columns:
    """n rows before they get their keys: slots, instants, newest events, and values by feature, hidden ones included.

    values: name -> (values, valid); numbers as float64 or int64 arrays, everything else as object arrays.
    """

    slot: Ints
    instant: Ints
    newest: Ints
    values: Mapping[str, tuple[Array, Array]]

    def __len__(self) -> int:
        return len(self.slot)

    def take(self, chosen: Array) -> "Columns":
        """The chosen rows, in the order given."""
        values = {name: (v[chosen], ok[chosen]) for name, (v, ok) in self.values.items()}
        return Columns(self.slot[chosen], self.instant[chosen], self.newest[chosen], values)


def make_rows(capacity: int, results: int) -> Rows:
    """Output columns for the kernels."""
    of = np.empty((capacity, results))
    return Rows(
        slot=np.empty(capacity, dtype=np.int64),
        instant=np.empty(capacity, dtype=np.int64),
        newest=np.empty(capacity, dtype=np.int64),
        kind=np.empty(capacity, dtype=np.int64),
        of=of,
        oj=of.view(np.int64),
        ok=np.empty((capacity, results), dtype=np.uint8),
    )


def grow_rows(rows: Rows, used: int) -> Rows:
    """The same first `used` rows with room for twice as many."""
    made = make_rows(2 * len(rows.slot), rows.of.shape[1])
    for old, new in zip(rows, made, strict=True):
        if new is not made.oj:
            new[:used] = old[:used]
    return made


def number_columns(plan: Plan, rows: Rows, n: int) -> dict[str, tuple[Array, Array]]:
    """The first `n` rows of the kernels' results, by feature; copies, so that the output columns may be used again."""
    out = {}
    for at, number in enumerate(plan.numbers):
        source = rows.of if number.dtype == "float64" else rows.oj
        out[number.name] = (source[:n, at].copy(), rows.ok[:n, at].astype(np.bool_))
    return out


def table(view: ViewDefinition, keys: KeyTable, columns: Columns) -> pa.Table:
    """The rows as an Arrow table of the view's row layout."""
    schema = arrow_schema(row_layout(view))
    arrays = [*keys.columns(columns.slot), _instants(columns.instant), _instants(columns.newest)]
    for name in view.stored_names:
        values, valid = columns.values[name]
        arrays.append(_array(values, valid, schema.field(name).type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _instants(values: Ints) -> pa.Array:
    return pa.Array.from_buffers(INSTANT, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _array(values: Array, valid: Array, dtype: pa.DataType) -> pa.Array:
    mask = None if valid.all() else ~valid.astype(np.bool_)
    if mask is None and dtype in _AS_THEY_ARE and values.dtype == _AS_THEY_ARE[dtype]:
        return pa.Array.from_buffers(dtype, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
    if pa.types.is_timestamp(dtype):
        if values.dtype == object:
            values = np.array([0 if v is None else v for v in values], dtype=np.int64)
        return pa.array(values, mask=mask, type=pa.int64()).cast(dtype)
    if values.dtype == object:
        if pa.types.is_map(dtype):
            return pa.array([None if v is None else list(v.items()) for v in values], type=dtype)
        return pa.array(list(values), type=dtype, mask=mask)
    if pa.types.is_boolean(dtype):
        values = values.astype(np.bool_)
    return pa.array(np.ascontiguousarray(values), type=dtype, mask=mask)
