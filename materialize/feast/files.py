"""Parquet files read by DuckDB itself, for the sources and offline stores where that gives the rows that Feast gives.

Feast's `file`, `dask` and `duckdb` offline stores load a source whole, into pandas or into one Arrow table; read here,
its rows pass through as record batches and what is not needed is never decoded.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.file_source import FileSource
from feast.value_type import ValueType

from headrace.features.errors import did_you_mean
from headrace.materialize.feast.messages import encoded_here, through_pandas
from headrace.materialize.feast.newest import count_of, find_newest, identity, open_duckdb, within
from headrace.materialize.feast.reading import MaterializeError, Reading, Work, batch_rows
from headrace.stores.sql import name

_STORES = {
    ("feast.infra.offline_stores.dask", "DaskOfflineStore"),
    ("feast.infra.offline_stores.duckdb", "DuckDBOfflineStore"),
}
"""Offline stores whose FileSource is a Parquet file and nothing else; a subclass may read it in its own way."""

_FILE_BITS = 36
"""A row's number: the file's above these bits, the row's in the file below."""


def file_reading(work: Work) -> AbstractContextManager[Reading] | None:
    """Reads a plain view of local Parquet files whose columns are encoded here; others are left to Feast's stores.

    Raises:
        MaterializeError: there are no such files, they cannot be read, or lack a column of the view.
    """
    files = source_files(work) if work.plain else None
    if files is None:
        return None
    schema = source_schema(work, files)
    return _reading(work, files, schema) if _ours(work, schema) else None


def source_files(work: Work) -> list[str] | None:
    """The Parquet files of the view's source in order, or None where Feast's own store must read it.

    Raises:
        MaterializeError: the path leads to no file.
    """
    source = work.view.batch_source
    store = type(work.offline_store)
    if (store.__module__, store.__qualname__) not in _STORES or type(source) is not FileSource:
        return None
    if not (source.file_format is None or type(source.file_format) is ParquetFormat):
        return None
    if "://" in source.path or source.s3_endpoint_override or source.connection_ref is not None:
        return None
    path = Path(FileSource.get_uri_for_file_path(repo_path=work.config.repo_path, uri=source.path))
    if store.__qualname__ == "DuckDBOfflineStore" and Path(source.path).exists():
        path = Path(source.path)  # that store reads a relative path from the working folder
    files = _files_below(path) if path.is_dir() else sorted(glob.glob(str(path), recursive=True)) or [str(path)]
    if not files or not Path(files[0]).is_file():
        raise MaterializeError(
            f"its source '{source.name}' is at {path}, where there is no Parquet file. Write the file there, or give "
            "FileSource the right path and run `feast apply`."
        )
    return files


def _files_below(folder: Path) -> list[str]:
    """Files of a folder and its partitions; names that begin with '_' or '.' are not data, as in pyarrow."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not any(p[0] in "_." for p in path.relative_to(folder).parts))


def source_schema(work: Work, files: Sequence[str]) -> pa.Schema:
    """The columns of the files.

    Raises:
        MaterializeError: a file is none of Parquet, or the source lacks a column of the view, or its instants are none.
    """
    schema: pa.Schema | None = None
    for file in files:
        try:
            read = pa.parquet.read_schema(file)
            schema = read if schema is None else pa.unify_schemas([schema, read], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            raise MaterializeError(
                f"its source '{work.view.batch_source.name}' cannot be read as Parquet: {file}: {error}. Write that "
                "file again."
            ) from error
        if len(files) > 1 and set(work.columns.values()) <= set(schema.names):
            break  # the other files may only lack columns, which are null there
    assert schema is not None
    for given, stored in work.columns.items():
        if stored not in schema.names and not _is_partition(files[0], stored):
            mapped = f" (mapped to '{given}')" if given != stored else ""
            raise MaterializeError(
                f"its source '{work.view.batch_source.name}' has no column '{stored}'{mapped}"
                f"{did_you_mean(stored, schema.names)} {files[0]} has: {', '.join(schema.names)}. Add the column, or "
                "mend the view's schema or the source's field_mapping and run `feast apply`."
            )
    for given in [work.time, *([work.created] if work.created else [])]:
        kind = schema.field(work.columns[given]).type if work.columns[given] in schema.names else pa.string()
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_string(kind)):
            raise MaterializeError(
                f"column '{work.columns[given]}' holds {kind} in its source '{work.view.batch_source.name}'; expected "
                "instants, as timestamps. Write it as such, or name another column as timestamp_field."
            )
    return schema


def _is_partition(file: str, column: str) -> bool:
    """Whether a folder of the path says `column=value`."""
    return any(part.startswith(f"{column}=") for part in Path(file).parts)


def _ours(work: Work, schema: pa.Schema) -> bool:
    """Whether every column is encoded here from what is stored, or by Feast from that and from nothing of pandas'."""
    if _clash(schema.names) or _clash(list(work.columns)):
        return False
    kinds = {**work.keys, **work.features}
    for given, stored in work.columns.items():
        if stored not in schema.names:
            return False
        kind = schema.field(stored).type
        if given in (work.time, work.created):
            if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
                return False
        elif not encoded_here(kinds[given], kind) and through_pandas(kinds[given], kind):
            return False
    return True


def _clash(columns: Sequence[str]) -> bool:
    """Whether DuckDB, which makes nothing of upper and lower case, would mistake a column for another."""
    return len({column.lower() for column in [*columns, "file_index", "file_row_number"]}) < len(columns) + 2


@contextmanager
def _reading(work: Work, files: Sequence[str], schema: pa.Schema) -> Iterator[Reading]:
    try:
        with open_duckdb(work) as connection:
            yield _read(connection, work, files, schema)
    except duckdb.Error as error:
        more = f" and {len(files) - 1} files more" if len(files) > 1 else ""
        memory = " Give batch_engine a larger memory_limit." if isinstance(error, duckdb.OutOfMemoryException) else ""
        raise MaterializeError(
            f"its source '{work.view.batch_source.name}' cannot be read: {files[0]}{more}: {error}{memory}"
        ) from error


def _read(connection: duckdb.DuckDBPyConnection, work: Work, files: Sequence[str], schema: pa.Schema) -> Reading:
    table = parquet_table(files)
    selected = ", ".join(f"{name(stored)} AS {name(given)}" for given, stored in work.columns.items())
    row = f"((file_index::BIGINT << {_FILE_BITS}) + file_row_number)"
    kinds = {given: schema.field(stored).type for given, stored in work.columns.items()}

    def count(given: str) -> str:
        return count_of(name(work.columns[given]), kinds[given])

    inside = within(work, name(work.columns[work.time]), kinds[work.time])
    if work.latest:
        stored = {} if work.entityless else {key: name(work.columns[key]) for key in work.keys}
        keys = [
            f"{identity(column, kinds[key], work.keys[key])} AS key{at}"
            for at, (key, column) in enumerate(stored.items())
        ]
        created = [] if work.created is None else [f"{count(work.created)} AS created"]
        columns = ", ".join([f"{row} AS row", f"{count(work.time)} AS time", *created, *keys])
        rows = find_newest(
            connection, work, f"(SELECT {columns} FROM {table} WHERE {inside})", created=work.created is not None
        )
        query = f"SELECT {selected} FROM {table} WHERE {row} IN (SELECT row FROM newest)"
    else:
        rows = int(connection.sql(f"SELECT count(*) FROM {table} WHERE {inside}").fetchall()[0][0])
        created = [] if work.created is None else [f"{count(work.created)} NULLS FIRST"]
        order = ", ".join([count(work.time), *created, row])
        query = f"SELECT {selected} FROM {table} WHERE {inside} ORDER BY {order}"
    if not rows:
        return Reading(iter(()), 0)
    zoned = {key: kinds[key] for key, kind in work.features.items() if kind == ValueType.ZONED_TIMESTAMP}
    batches = connection.sql(query).to_arrow_reader(batch_rows(*_size(files[0], set(work.columns.values()))))
    return Reading(_in_zones(batches, zoned), rows)


def _size(file: str, columns: Set[str]) -> tuple[int, int]:
    """Bytes of these columns of a file, decompressed, and its number of rows."""
    metadata = pa.parquet.read_metadata(file)
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    return size, metadata.num_rows


def _in_zones(batches: Iterable[pa.RecordBatch], zoned: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """The batches with instants in the zones that the file says, where Feast keeps them: DuckDB gives all in UTC."""
    for batch in batches:
        for column, kind in zoned.items():
            at = batch.schema.get_field_index(column)
            batch = batch.set_column(at, column, batch.column(at).cast(kind, safe=False))
        yield batch


def parquet_table(files: Sequence[str]) -> str:
    """SQL of a table of the rows of these files; a column that some of them lack is null there."""
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = {str(len(files) > 1).lower()})"
