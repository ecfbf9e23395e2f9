"""The offline log: every settled row of every view, as Parquet files by view and date, read with DuckDB.

One row for each instant at which an entity's values changed, final and never corrected (contract C18). Beside it, not
settled yet, the tail: rows that would follow if no further event came, replaced by every commit. A question about an
instant reads both.

A log has parts, each with a writer of its own: one for a run on one machine, one per partition for a flow over Kafka.
Readers see the union of all parts.

Any Parquet reader reads the settled rows too: `SELECT * FROM read_parquet('log/view=driver_activity/*/*.parquet')`. It
sees committed files only. For a moment, while a merged file takes the place of smaller ones, it can see some rows
twice; the readers here never do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.features.errors import DataError, did_you_mean
from headrace.stores.checkpoints import SnapshotPart
from headrace.stores.commits import manifest_at
from headrace.stores.errors import MissingStoreError
from headrace.stores.keys import key_values
from headrace.stores.layout import EVENT_TIMESTAMP, RowLayout, arrow_schema, arrow_type, row_layout
from headrace.stores.logwriter import LogWriter
from headrace.stores.manifest import PRIVATE, Commit, Manifest, ViewLog
from headrace.stores.migration import check_read
from headrace.stores.online import Clock, Key, View
from headrace.stores.places import Root, open_place, plain_root, shown_root
from headrace.stores.reading import Asked, ask, asked_files
from headrace.stores.sql import fetch, instant, name

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")

FEW_KEYS = 64
"""Up to so many keys a scan compares them in the filter, where Parquet statistics skip row groups; beyond it joins."""

KEEP_S = 300.0
"""Seconds that a file stays after the last commit that names it."""


class OfflineLog:
    """A log, in a folder or on an object store. Any number of processes read; each part has one writer.

    Args:
        root: the folder, made at the first write, or a URL that fsspec knows: s3://bucket/log, gs://, abfs://.
        part: which part to write; readers see all of them.
        keep_s: how long files stay that newer commits name no more, for readers that are still at them.

    A writer first clears away what a crash left. What it appends counts only from the next `commit`, which also keeps
    the flow's state: one commit for all views, snapshots, offsets and clock.
    """

    def __init__(self, root: Root, part: str = "", *, keep_s: float = KEEP_S) -> None:
        self.root = plain_root(root)
        self.part = part
        self.place = open_place(root)
        self._keep_us = round(keep_s * 1_000_000)
        self._writer: LogWriter | None = None

    # Writing

    def claim(self, steal: bool = False) -> int:
        """Become the part's writer now, before the checkpoint is read, so that no other flow goes on from the same one.

        Clears away what a crash left. Without it the first write does the same.

        Args:
            steal: take the part over from whoever writes it: that writer's next commit raises FencedError. Without it
                a folder is locked for as long as this process writes; an object store has no locks, and there the last
                one to claim is the writer.

        Returns:
            The epoch of the claim: 1 for the first, and greater with every one.

        Raises:
            LockedError: another process writes this part, and `steal` was not asked for.
            FencedError: another process claimed the part at the same moment.
        """
        return self._writing(steal).epoch

    def append(self, view: View, rows: pa.Table) -> None:
        """Stage settled rows of a view, in event-time order.

        Raises:
            OutOfOrderError: a row is at or before an instant that was committed, or before one appended earlier.
            SchemaMismatchError: the rows lack columns, or the log holds rows that another definition of the view made.
            LockedError: another process writes this log.
            StoreError: the disk is full or the folder cannot be written; the flow must start again from its checkpoint.
        """
        self._writing().append(row_layout(view), rows)

    def tail(self, view: View, rows: pa.Table) -> None:
        """Stage provisional rows of a view for the next commit, which drops those of the commit before.

        All are after the view's newest settled row; the commit refuses them otherwise.
        """
        self._writing().tail(row_layout(view), rows)

    def dead_letters(self, rows: pa.Table) -> None:
        """Stage events that could not be taken; `headrace.stores.deadletters.dead_letter_table` makes the table."""
        self._writing().dead_letters(rows)

    def commit(
        self,
        *,
        settled_us: Mapping[str, int] | None = None,
        snapshots: Mapping[str, SnapshotPart | bytes] | None = None,
        offsets: Mapping[str, Mapping[int, int]] | None = None,
        clock: Clock | None = None,
    ) -> Commit:
        """Make everything staged count, together and durably.

        Args:
            settled_us: by view name, the instant before which its rows are final; it never goes back.
            snapshots: the flow's state by name of its parts; they replace those of the commit before, and a delta goes
                on from there. None keeps those of the commit before.
            offsets: by source name and partition, the next offset to read; they replace those of the commit before.
                None keeps them.
            clock: the flow's clock.

        Raises:
            FencedError: another process has claimed the part; this one commits nothing more.
            StoreError: nothing was committed; the flow must start again from its checkpoint.
        """
        return self._writing().commit(settled_us or {}, snapshots, offsets, clock)

    def migrate_view(self, view: View) -> list[str]:
        """Stage a change of a view's definition: features came or went. It counts from the next commit on.

        Rows of before read as null in the new columns; what is gone is left out. Provisional rows staged before are
        forgotten.

        Returns:
            What changes, in words; nothing if the part's rows are of this definition already.

        Raises:
            SchemaMismatchError: keys, the time column or the meaning of a feature changed. Such a feature takes another
                name, or is removed with a commit of its own and added again.
        """
        return self._writing().migrate(row_layout(view))

    def close(self) -> None:
        """Give up what was not committed and let another process write."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> OfflineLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writing(self, steal: bool = False) -> LogWriter:
        if self._writer is None:
            self._writer = LogWriter(self.place, self.part, steal, self._keep_us)
        return self._writer

    # Reading

    def manifest(self) -> Manifest:
        """The newest commits of all parts; the sequence is 0 when nothing was ever committed."""
        return manifest_at(self.place)

    def views(self) -> list[str]:
        """Names of the views that the log holds, sorted."""
        return sorted(self.manifest().views)

    def settled_us(self, view: View) -> int | None:
        """The instant before which the view's rows are final in every part, microseconds; None when no commit said."""
        return self._view_log(self.manifest(), row_layout(view)).settled_us

    def files(self, view: View) -> list[Path | str]:
        """The settled files of a view as of now, ordered by time: paths, or URLs."""
        files = self._view_log(self.manifest(), row_layout(view)).files
        shown = [file.path if not file.at or self.place.exists(file.path) else file.at for file in files]
        return [self.place.file(path) for path in shown]

    def sql_path(self, view: View) -> str:
        """The files of a view for `read_parquet(...)` of DuckDB, Spark or Polars: every settled row, by any reader.

        With `union_by_name = true` after features have come or gone. DuckDB reads a URL after
        `connection.register_filesystem(log.place.fs)` or with its own httpfs.
        """
        return self.place.url(f"view={row_layout(view).view}/*/*.parquet")

    def scan(
        self,
        view: View,
        keys: Sequence[Key] | None = None,
        *,
        from_us: int | None = None,
        to_us: int | None = None,
        columns: Sequence[str] | None = None,
        tail: bool = True,
    ) -> pa.Table:
        """Rows of a view with event_timestamp in (from_us, to_us], ordered by time and then by key.

        Args:
            keys: only these entities; all by default.
            columns: only these columns, in this order; all by default.
            tail: also the provisional rows.

        Raises:
            MissingStoreError: the log has nothing of this view.
            SchemaMismatchError: the log holds rows that another definition of the view made.
            DataError: a key of another type.
        """
        layout = row_layout(view)
        wanted = arrow_schema(layout).names if columns is None else list(columns)
        schema = _schema(layout, wanted)
        bounds = _bounds(from_us, to_us)
        order = ", ".join(name(each) for each in (EVENT_TIMESTAMP, *layout.key_names))

        def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> pa.Table:
            which, parameters = _only(connection, layout, keys)
            sql = (
                f"SELECT {', '.join(name(each) for each in wanted)} FROM {sources[layout.view]} AS r"
                f" WHERE {' AND '.join([*bounds, which])} ORDER BY {order}"
            )
            return fetch(connection, sql, parameters).cast(schema)

        return self.query([view], work, from_us=from_us, to_us=to_us, tail=tail)

    def latest(self, view: View, *, to_us: int | None = None, tail: bool = True) -> pa.Table:
        """The newest row of each entity at or before `to_us`; raises as `scan`."""
        layout = row_layout(view)
        schema = arrow_schema(layout)
        keys = ", ".join(name(each) for each in layout.key_names)
        bounds = " AND ".join(_bounds(None, to_us)) or "true"

        def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> pa.Table:
            source = sources[layout.view]
            at = EVENT_TIMESTAMP
            newest = f"SELECT {keys}, max({at}) AS {at} FROM {source} WHERE {bounds} GROUP BY {keys}"
            columns = ", ".join(name(each) for each in schema.names)
            sql = f"SELECT {columns} FROM {source} SEMI JOIN ({newest}) USING ({keys}, {at})"
            return fetch(connection, sql).cast(schema)

        return self.query([view], work, to_us=to_us, tail=tail)

    def query(
        self,
        views: Sequence[View],
        work: Callable[[duckdb.DuckDBPyConnection, dict[str, str]], T],
        *,
        from_us: int | None = None,
        to_us: int | None = None,
        tail: bool = True,
    ) -> T:
        """`work(connection, sources)` on one commit: `sources` has by view name the SQL of a table of its rows.

        Only files that can hold rows of (from_us, to_us] are read; the rows themselves are not filtered. `work` is
        called again when files were merged away meanwhile, so it keeps nothing between calls.
        """
        layouts = [row_layout(view) for view in views]

        def choose() -> list[Asked]:
            manifest = self.manifest()
            return [asked_files(self._view_log(manifest, each), each, from_us, to_us, tail) for each in layouts]

        return ask(self.place, choose, work)

    def _view_log(self, manifest: Manifest, layout: RowLayout) -> ViewLog:
        log = manifest.views.get(layout.view)
        if log is None:
            there = ", ".join(sorted(manifest.views)) or "no view"
            raise MissingStoreError(
                f"The log at {self.place} has nothing of view '{layout.view}'; it has {there}. Run a flow that writes "
                "it first, or "
                "check the path."
            )
        check_read(log, layout, f"The log at {self.place}")
        return log

    def __repr__(self) -> str:
        part = f", part={self.part!r}" if self.part else ""
        return f"OfflineLog({shown_root(self.root)!r}{part})"


def remove_log(root: Root) -> None:
    """Delete a log with all its parts, dead letters and checkpoints; other files beside it stay. No writer may run.

    The commits go first: a log that is half deleted is an empty one.
    """
    place = open_place(root)
    at = plain_root(root)
    folders = [f"view={view}" for view in manifest_at(place).views]
    for folder in (PRIVATE, *folders, "dead_letters"):
        place.delete(place.walk(folder))
        if isinstance(at, Path):
            shutil.rmtree(at / folder, ignore_errors=True)


def _schema(layout: RowLayout, columns: list[str]) -> pa.Schema:
    import pyarrow as pa

    types = dict(layout.columns)
    for column in columns:
        if column not in types:
            raise DataError(
                f"View '{layout.view}' has no column '{column}'{did_you_mean(column, types)} "
                f"Its columns are: {', '.join(types)}."
            )
    return pa.schema([pa.field(column, arrow_type(types[column])) for column in columns])


def _bounds(from_us: int | None, to_us: int | None) -> list[str]:
    found = [] if from_us is None else [f"{EVENT_TIMESTAMP} > {instant(from_us)}"]
    return found if to_us is None else [*found, f"{EVENT_TIMESTAMP} <= {instant(to_us)}"]


def _only(
    connection: duckdb.DuckDBPyConnection, layout: RowLayout, keys: Sequence[Key] | None
) -> tuple[str, list[Any]]:
    """Condition and parameters that keep the rows of `keys`."""
    if keys is None:
        return "true", []
    values = [key_values(layout.view, layout.keys, key) for key in keys]
    if not values:
        return "false", []
    if len(values) <= FEW_KEYS:
        one = "(" + " AND ".join(f"{name(each)} = ?" for each in layout.key_names) + ")"
        return "(" + " OR ".join([one] * len(values)) + ")", [part for each in values for part in each]
    import pyarrow as pa

    columns = [pa.array([each[i] for each in values], arrow_type(dtype)) for i, (_, dtype) in enumerate(layout.keys)]
    connection.register("asked", pa.table(columns, names=list(layout.key_names)))
    same = " AND ".join(f"a.{name(each)} = r.{name(each)}" for each in layout.key_names)
    return f"EXISTS (SELECT 1 FROM asked a WHERE {same})", []
