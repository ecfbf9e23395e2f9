"""DuckDB over log files: a connection, and the pieces of SQL that every question about a log uses."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BOOL, BYTES, FLOAT, INT, STRING, TIMESTAMP, split_list, split_map
from headrace.stores.errors import StoreError
from headrace.stores.layout import RowLayout, same
from headrace.stores.migration import readable
from headrace.stores.places import Place

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FAR = 1 << 62
"""Microseconds; well inside what DuckDB's timestamps can say, far beyond what an event says."""

_SQL = {INT: "BIGINT", FLOAT: "DOUBLE", STRING: "VARCHAR", BOOL: "BOOLEAN", BYTES: "BLOB", TIMESTAMP: "TIMESTAMPTZ"}


def connect(place: Place | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own in memory, in UTC, that spills to the folder for temporary files and reads `place`."""
    try:
        import duckdb
    except ImportError as error:
        raise StoreError("Reading a log needs DuckDB: pip install 'headrace[offline]'.") from error
    config: dict[str, Any] = {"temp_directory": str(Path(tempfile.gettempdir()) / "headrace-duckdb")}
    connection = duckdb.connect(config=config)
    connection.execute("SET TimeZone = 'UTC'")
    if place is not None:
        place.register(connection)
    return connection


def fetch(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
    """The result of a query as an Arrow table."""
    result = connection.sql(sql, params=list(parameters)) if parameters else connection.sql(sql)
    return result.to_arrow_table()


def name(column: str) -> str:
    """A column's name, quoted.

    >>> name('fare "net"')
    '"fare ""net""\"'
    """
    return '"' + column.replace('"', '""') + '"'


def instant(us: int) -> str:
    """The SQL of an instant; exact to the microsecond within 146,000 years of 1970, and no further away than that."""
    return f"make_timestamptz({min(max(us, -FAR), FAR)})"


def parquet_rows(paths: Sequence[str]) -> str:
    """The SQL of a table of the rows of these files, whose columns are alike; filters and projections reach into
    them."""
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = false)"


def rows_of_versions(asked: RowLayout, files: Sequence[tuple[RowLayout, Sequence[str]]]) -> str:
    """The SQL of a table of the rows of files that were written under several layouts, in the columns of `asked`.

    A feature that a layout lacks, or holds with another meaning, is null in its rows.
    """
    if not files:
        return empty_rows(asked.columns)
    if len(files) == 1 and same(files[0][0], asked):
        return parquet_rows(files[0][1])
    plain = [column for column, _ in asked.columns if column not in asked.feature_names]
    selects = []
    for stored, paths in files:
        there = {*plain, *readable(stored, asked)}
        columns = [
            name(column) if column in there else f"CAST(NULL AS {sql_type(dtype)}) AS {name(column)}"
            for column, dtype in asked.columns
        ]
        selects.append(f"SELECT {', '.join(columns)} FROM {parquet_rows(paths)}")
    return "(" + " UNION ALL ".join(selects) + ")"


def empty_rows(columns: Sequence[tuple[str, str]]) -> str:
    """The SQL of a table without rows, of these columns and types."""
    listed = ", ".join(f"CAST(NULL AS {sql_type(dtype)}) AS {name(column)}" for column, dtype in columns)
    return f"(SELECT {listed} WHERE false)"


def sql_type(dtype: str) -> str:
    """DuckDB's type of a column type of dtypes.py.

    >>> sql_type("map<string,list<timestamp>>")
    'MAP(VARCHAR, TIMESTAMPTZ[])'
    """
    element = split_list(dtype)
    if element is not None:
        return f"{sql_type(element)}[]"
    pair = split_map(dtype)
    if pair is not None:
        return f"MAP({sql_type(pair[0])}, {sql_type(pair[1])})"
    return _SQL[dtype]
