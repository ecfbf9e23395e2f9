"""Rows as the frame that a function wants."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from headrace.features.events import EventSchema
from headrace.flows.batch import ARROW_TYPES


def frames_of(schema: EventSchema, as_: str) -> Callable[[Sequence[Any]], Any]:
    """Makes the frame of rows (tuples of the schema's columns): "arrow", "pandas", "polars" or "numpy" columns.

    Instants are of UTC; what is missing is as Arrow gives it to each kind: NaN in pandas' and NumPy's integers too.
    """
    types = pa.schema([(field.name, ARROW_TYPES[field.dtype]) for field in schema.fields])

    def made(rows: Sequence[Any]) -> Any:
        columns = zip(*rows, strict=True)
        arrays = [pa.array(values, type=kind) for values, kind in zip(columns, types.types, strict=True)]
        table = pa.table(arrays, schema=types)
        if as_ == "pandas":
            return table.to_pandas()
        if as_ == "polars":
            import polars

            return polars.from_arrow(table)
        if as_ == "numpy":
            return {name: table.column(name).to_numpy() for name in table.column_names}
        return table

    return made
