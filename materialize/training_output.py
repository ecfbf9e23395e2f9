"""A training set as it is handed over: an Arrow table, a pandas or Polars frame, a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.features.errors import DataError, DefinitionError
from headrace.stores.parquet import ROW_GROUP

FORMS = ("arrow", "pandas", "polars")


def check_form(form: str) -> None:
    """Raises DefinitionError: no such form."""
    if form not in FORMS:
        raise DefinitionError(f"training_set: as_={form!r} is unknown. Choose one of {', '.join(map(repr, FORMS))}.")


def in_form(table: pa.Table, form: str, spine: Any) -> Any:
    """The table in a form of `FORMS`; the index of a pandas spine is that of the pandas result."""
    if form == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return _pandas(table, spine) if form == "pandas" else table


def write_portions(path: Path, portions: Iterable[pa.Table]) -> Path:
    """Write tables of one schema as one Parquet file, which appears under its name when it is whole.

    Raises:
        DataError: the folder is missing or cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    writer: pq.ParquetWriter | None = None
    try:
        for portion in portions:
            if writer is None:
                writer = pq.ParquetWriter(draft, portion.schema, compression="zstd")
            writer.write_table(portion, row_group_size=ROW_GROUP)
        assert writer is not None
        writer.close()
        os.replace(draft, path)
    except BaseException as error:
        if writer is not None:
            writer.close()
        draft.unlink(missing_ok=True)
        if writer is None and isinstance(error, OSError):
            raise DataError(f"training_set: '{path}' cannot be written: {error}. Make its folder first.") from error
        raise
    return path


def _pandas(table: pa.Table, spine: Any) -> Any:
    """Without loss: integers and booleans with gaps are pandas' nullable ones, not floats and objects."""
    import pandas as pd

    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    gaps = [
        name
        for name in table.column_names
        if table.schema.field(name).type in nullable and table.column(name).null_count
    ]
    plain = table.drop_columns(gaps).to_pandas()
    with_gaps = table.select(gaps).to_pandas(types_mapper=nullable.get)
    frame = pd.concat([plain, with_gaps], axis=1)[table.column_names]
    if isinstance(spine, pd.DataFrame):
        frame.index = spine.index
    return frame
