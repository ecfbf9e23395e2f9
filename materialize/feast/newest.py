"""Which rows of a table or of files are the newest of their entity, found by DuckDB in bounded memory.

Two passes: the first reads keys and times alone and keeps one number for each entity; the second reads the rows of
those numbers. A hash table of whole rows would not spill, and sorting whole rows takes three times as long.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from feast.value_type import ValueType

from headrace.materialize.feast.reading import Work

if TYPE_CHECKING:
    import duckdb

_ROW_BITS = 62
"""A row's number in its source takes so many bits of what newest rows without created timestamps are found by."""


@contextmanager
def open_duckdb(work: Work) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of its own in UTC, with the engine's memory and threads, that spills to a folder which is gone after."""
    import duckdb

    folder = tempfile.mkdtemp(prefix="headrace-feast-")
    config: dict[str, str | int] = {"memory_limit": work.options.memory_limit, "temp_directory": folder}
    if work.options.threads:
        config["threads"] = work.options.threads
    try:
        connection = duckdb.connect(config=config)  # type: ignore[arg-type, unused-ignore]
        try:
            connection.execute("SET TimeZone = 'UTC'")
            # Else it reads whole row groups ahead: 0.5 GB for 600,000 rows with 100 columns, whatever its limit.
            connection.execute("SET disable_parquet_prefetching = true")
            yield connection
        finally:
            connection.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_newest(connection: duckdb.DuckDBPyConnection, work: Work, rows: str, *, created: bool) -> int:
    """Make the table `newest` of the numbers of the newest rows, and return how many there are.

    The newest event timestamp wins, ties by the created timestamp (none is oldest), then the last in the source.

    Args:
        rows: SQL of a table with the columns `row` (number in the source), `time` (of `count_of`), `key0`, `key1`, ...
        (of `identity`), and `created` if so said
    """
    keys = [] if work.entityless else [f"key{at}" for at in range(len(work.keys))]
    grouped = f"GROUP BY {', '.join(keys)}" if keys else ""
    if not created:
        # The row is in the lowest bits, also of an instant before 1970. Divisions would take three times as long.
        weight, lowest = (f"{bits}::HUGEINT" for bits in (1 << _ROW_BITS, (1 << _ROW_BITS) - 1))
        row = f"(max(time * {weight} + row) & {lowest})::BIGINT"
        found = f"SELECT {row} AS row FROM {rows} {grouped} HAVING count(*) > 0"
    else:
        by = f"PARTITION BY {', '.join(keys)}" if keys else ""
        order = "time DESC, created DESC NULLS LAST, row DESC"
        found = f"SELECT row FROM {rows} QUALIFY row_number() OVER ({by} ORDER BY {order}) = 1"
    connection.execute(f"CREATE TEMP TABLE newest AS {found}")
    return int(connection.sql("SELECT count(*) FROM newest").fetchall()[0][0])


def identity(column: str, kind: pa.DataType, asked: ValueType) -> str:
    """SQL: what tells two entities apart: instants do by their whole seconds, since Feast's keys of that type hold no
    fractions."""
    if asked != ValueType.UNIX_TIMESTAMP or not pa.types.is_timestamp(kind):
        return column
    return f"{count_of(column, kind)} // {10**9 if _in_ns(kind) else 10**6}"


def count_of(column: str, kind: pa.DataType) -> str:
    """SQL: an instant's nanoseconds or microseconds since 1970, whichever the column holds."""
    return f"epoch_ns({column})" if _in_ns(kind) else f"epoch_us({column})"


def within(work: Work, column: str, kind: pa.DataType) -> str:
    """SQL: whether an instant is in the task's range, whose both ends count, as in Feast.

    What has no zone is UTC, as everywhere in Feast. Said so that DuckDB asks it of whole row groups first.
    """
    ends = [_utc(work.task.start_time), _utc(work.task.end_time)]
    if _in_ns(kind):
        low, high = (str((at - _EPOCH) // timedelta(microseconds=1) * 1000) for at in ends)
        return f"epoch_ns({column}) BETWEEN {low} AND {high}"
    zone = "TIMESTAMPTZ" if pa.types.is_timestamp(kind) and kind.tz else "TIMESTAMP"
    offset = "+00" if zone == "TIMESTAMPTZ" else ""
    low, high = (f"{zone} '{at.replace(tzinfo=None).isoformat(' ')}{offset}'" for at in ends)
    return f"{column} BETWEEN {low} AND {high}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _in_ns(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")
