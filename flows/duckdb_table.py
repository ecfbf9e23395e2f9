"""A table of a DuckDB file, in the order in which its rows were added, streamed."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.features.errors import DataError, did_you_mean
from headrace.flows.frames import slices

if TYPE_CHECKING:
    import duckdb


def rows_of_table(
    path: Path, table: str | None, wanted: Sequence[str], size: int, skip: int, check: Callable[[pa.Schema, str], None]
) -> Iterator[tuple[pa.Table | None, int, int]]:
    """Rows from number `skip` on, at most `size` at a time; the first item stands for those that are skipped.

    Args:
        table: "rides" or "schema.rides"; None where there is one only. wanted: columns; those that there are not are
            left out. check: called with all columns first.

    Yields:
        (rows, or None for the skipped ones; how many rows have been read by then; how many there are).

    Raises:
        DataError: no DuckDB file, another process writes into it, no such table, or the table is a view, whose rows
            have no order.
    """
    import duckdb

    try:
        connection = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise DataError(
            f"File '{path}' cannot be opened as a DuckDB file to read: {error}. A file is open to one process that "
            "writes or to several that read."
        ) from error
    try:
        name = _quoted(connection, path, table)
        total = _count(connection, name)
        columns = connection.sql(f"SELECT * FROM {name} LIMIT 0").to_arrow_table().schema
        check(columns, path.name)
        chosen = [column for column in dict.fromkeys(wanted) if column in columns.names]
        skipped = min(skip, total)
        if skipped:
            yield None, skipped, total
        if skipped == total:
            return
        listed = ", ".join(_identifier(column) for column in chosen)
        # A scan of a table keeps the order of its rows (preserve_insertion_order, DuckDB's default).
        reader = connection.sql(f"SELECT {listed} FROM {name} OFFSET {skipped}").to_arrow_reader(size)
        read = skipped
        for rows in slices(iter(reader), size, 0):
            read += rows.num_rows
            yield rows, read, total
    except duckdb.Error as error:
        raise DataError(f"File '{path}' cannot be read: {error}. Mend the file and run again.") from error
    finally:
        connection.close()


def _quoted(connection: "duckdb.DuckDBPyConnection", path: Path, table: str | None) -> str:
    """The table as SQL names it."""
    found = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal AND database_name = current_database()"
    ).fetchall()
    names = sorted(name if schema == "main" else f"{schema}.{name}" for schema, name in found)
    if table is None and len(names) == 1:
        table = names[0]
    if table is None:
        raise DataError(f"File '{path}' has {len(names)} tables: {', '.join(names)}. Say which: table='...'.")
    schema, _, name = table.rpartition(".")
    if (schema or "main", name) not in found:
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        if (name,) in views:
            raise DataError(
                f"File '{path}': '{table}' is a view, whose rows have no order of their own. Make a table of it: "
                f"CREATE TABLE ... AS SELECT * FROM {table} ORDER BY the event time."
            )
        raise DataError(
            f"File '{path}' has no table '{table}'{did_you_mean(table, names)} It has: {', '.join(names) or 'none'}."
        )
    return f"{_identifier(schema or 'main')}.{_identifier(name)}"


def _count(connection: "duckdb.DuckDBPyConnection", name: str) -> int:
    ((count,),) = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
    return int(count)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
