"""Parquet files of a log: written whole or not at all, with one set of settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from headrace.stores.places import Place

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 1 << 17
"""Rows that are gathered before they are written."""


class ParquetFile:
    """A new file on its way: zstd, statistics for filters, the Arrow schema inside. `finish` or `drop` ends it."""

    def __init__(self, place: Place, path: str, schema: pa.Schema) -> None:
        self.path = path
        self._place = place
        self._sink = place.sink(path)
        self._writer = _writer(self._sink, schema)

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows, as a row group or several."""
        import pyarrow as pa

        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        self._writer.write_table(rows, row_group_size=ROW_GROUP)

    def finish(self) -> None:
        """Close the file and make it durable."""
        self._writer.close()
        self._place.finish(self.path, self._sink)

    def drop(self) -> None:
        """Give the file up. Never raises: whatever is left is deleted at the next claim of the part."""
        for step in (self._writer.close, lambda: self._place.drop(self.path, self._sink)):
            try:
                step()
            except (
                OSError
            ):  # a full disk, most often the reason for giving up: the error that led here is the one to say
                continue


def _writer(sink: Any, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=list(repeating(schema)),
        write_statistics=True,
        store_schema=True,
    )


def repeating(fields: Iterable[pa.Field], within: str = "") -> Iterator[str]:
    """Columns whose values repeat, as Parquet names them: those get a dictionary. Floats and instants hardly do.

    Trying one for floats all the same, as is the default, makes writing two to three times slower and files a quarter
    larger.
    """
    import pyarrow as pa

    for field in fields:
        name = f"{within}{field.name}"
        if pa.types.is_struct(field.type):
            yield from repeating(field.type, f"{name}.")
        elif pa.types.is_map(field.type):
            yield f"{name}.key_value.key"
        elif pa.types.is_list(field.type):
            yield f"{name}.list.element"
        elif not pa.types.is_floating(field.type) and not pa.types.is_timestamp(field.type):
            yield name


def write_parquet(place: Place, path: str, rows: pa.Table) -> None:
    """Write a table as one file, durably."""
    file = ParquetFile(place, path, rows.schema)
    try:
        file.write(rows)
    except BaseException:
        file.drop()
        raise
    file.finish()


def parquet_bytes(rows: pa.Table) -> bytes:
    """A table as the content of a file."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with _writer(sink, rows.schema) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_batches(place: Place, path: str) -> Iterator[pa.RecordBatch]:
    """The rows of a file, at most a row group at a time. Raises FileNotFoundError."""
    import pyarrow.parquet as pq

    with place.source(path) as source, pq.ParquetFile(source) as file:
        yield from file.iter_batches(batch_size=ROW_GROUP)


def read_parquet(place: Place, path: str) -> pa.Table:
    """The rows of a file. Raises FileNotFoundError."""
    import pyarrow.parquet as pq

    with place.source(path) as source, pq.ParquetFile(source) as file:
        return file.read()
