"""The newest rows of a view in a log, as a stream in bounded memory: what an online store is filled with.

log files that can hold rows of (after, to]
  -> DuckDB: per entity the newest instant in (after, to]        one row per entity: keys, instant
  -> joined with the rows, ordered by instant                    beyond `memory` on the disk
  -> batches of rows, oldest first

Oldest first, so that "every row up to this instant has been written" is one number, from which a later run goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from headrace.stores.layout import EVENT_TIMESTAMP, arrow_schema, row_layout
from headrace.stores.offline import OfflineLog
from headrace.stores.sql import fetch, instant, name

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from headrace.stores.online import View

MEMORY = "512MB"
"""What DuckDB may take before it goes on on the disk, in the folder for temporary files."""

BATCH = 50_000
"""Rows per batch."""


@dataclass(frozen=True)
class Asked:
    """Which rows: of each entity the newest in (after_us, to_us], microseconds; after_us None: from the beginning."""

    view: View
    after_us: int | None
    to_us: int


class _TakingError(Exception):
    """What `take` raised, carried past the reading of the log, which knows errors of files only."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def count_newest(log: OfflineLog, asked: Asked, *, memory: str = MEMORY) -> int:
    """How many entities have a row there; raises as `stream_newest`."""

    def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> int:
        _bound(connection, memory)
        return _find(connection, sources, asked)

    return log.query([asked.view], work, from_us=asked.after_us, to_us=asked.to_us)


def stream_newest(
    log: OfflineLog,
    asked: Asked,
    *,
    begin: Callable[[int], None],
    take: Callable[[pa.Table], None],
    batch_rows: int = BATCH,
    memory: str = MEMORY,
) -> None:
    """Give the newest row of each entity to `take`, in batches and ordered by event_timestamp.

    Args:
        begin: called with the number of rows before the first of them; again, and all rows with it, in the rare case
            that files of the log were merged away meanwhile.
        take: called with tables of up to about `batch_rows` rows, columns as in layout.py. What it raises ends the
            stream and is raised here.
        memory: of DuckDB, such as "512MB". A batch and what `take` makes of it come on top.

    Raises:
        MissingStoreError: the log has nothing of the view.
        SchemaMismatchError: the log holds rows that another definition of the view made.
        CorruptError: a file of the log is missing or damaged.
    """
    layout = row_layout(asked.view)
    schema = arrow_schema(layout)
    same = ", ".join(name(each) for each in (*layout.key_names, EVENT_TIMESTAMP))

    def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> None:
        import pyarrow as pa

        _bound(connection, memory)
        count = _find(connection, sources, asked)
        _taking(partial(begin, count))
        columns = ", ".join(name(each) for each in schema.names)
        sql = (
            f"SELECT {columns} FROM (SELECT * FROM {sources[layout.view]} WHERE {_within(asked)})"
            f" SEMI JOIN newest USING ({same}) ORDER BY {EVENT_TIMESTAMP}"
        )
        for batch in connection.sql(sql).to_arrow_reader(batch_rows):
            if batch.num_rows:
                _taking(partial(take, pa.Table.from_batches([batch]).cast(schema)))

    try:
        log.query([asked.view], work, from_us=asked.after_us, to_us=asked.to_us)
    except _TakingError as stopped:
        raise stopped.error from stopped.error.__cause__


def _bound(connection: duckdb.DuckDBPyConnection, memory: str) -> None:
    connection.execute(f"SET memory_limit = '{memory}'")
    # DuckDB 2.0 reads ahead whole row groups as one block, which wide rows make larger than the limit.
    connection.execute("SET disable_parquet_prefetching = true")
    # DuckDB takes a program for a person at a prompt. In a notebook without ipywidgets it has no bar and refuses SET.
    shown = connection.execute("SELECT current_setting('enable_progress_bar')").fetchone()
    if shown is not None and shown[0]:
        connection.execute("SET enable_progress_bar = false")


def _find(connection: duckdb.DuckDBPyConnection, sources: dict[str, str], asked: Asked) -> int:
    """Make the table `newest` (keys, newest instant of each entity) and say how many rows it has."""
    layout = row_layout(asked.view)
    keys = ", ".join(name(each) for each in layout.key_names)
    connection.execute(
        f"CREATE TEMP TABLE newest AS SELECT {keys}, max({EVENT_TIMESTAMP}) AS {EVENT_TIMESTAMP}"
        f" FROM {sources[layout.view]} WHERE {_within(asked)} GROUP BY {keys}"
    )
    return int(fetch(connection, "SELECT count(*) FROM newest").column(0)[0].as_py())


def _within(asked: Asked) -> str:
    upto = f"{EVENT_TIMESTAMP} <= {instant(asked.to_us)}"
    return upto if asked.after_us is None else f"{EVENT_TIMESTAMP} > {instant(asked.after_us)} AND {upto}"


def _taking(call: Callable[[], None]) -> None:
    try:
        call()
    except BaseException as error:
        raise _TakingError(error) from error
