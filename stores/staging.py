"""Log files on their way: rows appended since the last commit, in files that nobody sees yet.

Rows of one view and date go to one open Parquet file under `_headrace/staged/`; when a later date begins, the file
before is closed. Memory holds at most one row group per view.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.features.time import DAY, format_instant
from headrace.stores.durable import sync_file
from headrace.stores.errors import OutOfOrderError
from headrace.stores.layout import EVENT_TIMESTAMP, RowLayout, conform
from headrace.stores.manifest import PRIVATE, LogFile, ViewLog

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 1 << 17
"""Rows that are gathered before they are written."""


def staged_path(root: Path, path: str) -> Path:
    """Where the file that will be `path` waits."""
    return root / PRIVATE / "staged" / (path.replace("/", "+") + ".staged")


def parquet_writer(place: Path, schema: pa.Schema) -> Any:
    """A writer with the settings of log files: zstd, statistics for filters, the Arrow schema inside."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(place, schema, compression="zstd", write_statistics=True, store_schema=True)


def log_file(view: str, day: int, first_us: int, last_us: int, rows: int) -> LogFile:
    """The name of a file follows from its rows: the times of day of the first and the last, and how many.

    >>> log_file("trips", 0, 1_000_000, 3_600_000_000, 7).path
    'view=trips/date=1970-01-01/000001.000000-010000.000000-7.parquet'
    """
    import numpy as np

    date = np.datetime64(day, "D")
    name = f"{_time_of_day(first_us)}-{_time_of_day(last_us)}-{rows}.parquet"
    return LogFile(f"view={view}/date={date}/{name}", rows, first_us, last_us)


def _time_of_day(us: int) -> str:
    seconds, micros = divmod(us % DAY, 1_000_000)
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}.{micros:06d}"


@dataclass
class _Open:
    """A file that still takes rows."""

    day: int
    place: Path
    writer: Any
    first_us: int
    last_us: int
    rows: int = 0
    waiting: list[Any] = field(default_factory=list)
    waiting_rows: int = 0


class StagedView:
    """Rows of one view since the last commit."""

    def __init__(self, root: Path, layout: RowLayout, before: ViewLog) -> None:
        self.layout = layout
        self._root = root
        self._last_us = max((file.last_us for file in before.files), default=None)
        self._committed_us = self._last_us
        self._open: _Open | None = None
        self._done: list[LogFile] = []

    def append(self, rows: pa.Table) -> None:
        """Add rows. They are ordered by event_timestamp, ties in the order given.

        Raises:
            OutOfOrderError: a row is at or before an instant committed already, or before one appended already.
            SchemaMismatchError: the rows are not of the layout.
        """
        import numpy as np

        rows = conform(self.layout, rows)
        if not rows.num_rows:
            return
        times = _times(rows)
        if (np.diff(times) < 0).any():
            order = np.argsort(times, kind="stable")
            rows, times = rows.take(order), times[order]
        self._check_order(int(times[0]))
        days = times // DAY
        for start, end in _runs(days):
            self._append_day(int(days[start]), rows.slice(start, end - start), int(times[start]), int(times[end - 1]))
        self._last_us = int(times[-1])

    def check_tail(self, rows: pa.Table) -> None:
        """Refuse provisional rows at or before a settled one."""
        if rows.num_rows and self._last_us is not None:
            first = int(_times(rows).min())
            if first <= self._last_us:
                raise OutOfOrderError(
                    f"View '{self.layout.view}': a provisional row at {format_instant(first)} is not after the log's "
                    "newest "
                    f"settled one, at {format_instant(self._last_us)}."
                )

    def finish(self) -> list[LogFile]:
        """Close, flush and name the files; they wait under `staged_path`."""
        self._close()
        return list(self._done)

    def abandon(self) -> None:
        """Give up what is open, when the rows are not wanted any more."""
        if self._open is not None:
            self._open.writer.close()
            self._open = None

    def _check_order(self, first: int) -> None:
        name = self.layout.view
        if self._committed_us is not None and first <= self._committed_us:
            raise OutOfOrderError(
                f"View '{name}': a row at {format_instant(first)} comes after the log has settled "
                f"{format_instant(self._committed_us)}. Settled rows are final; start the flow from its checkpoint, or "
                "write "
                "to another folder."
            )
        if self._last_us is not None and first < self._last_us:
            raise OutOfOrderError(
                f"View '{name}': a row at {format_instant(first)} was appended after one at "
                f"{format_instant(self._last_us)}. "
                "The log is written in event-time order."
            )

    def _append_day(self, day: int, rows: pa.Table, first: int, last: int) -> None:
        if self._open is not None and self._open.day != day:
            self._close()
        if self._open is None:
            place = staged_path(self._root, f"view={self.layout.view}/open")
            self._open = _Open(day, place, parquet_writer(place, rows.schema), first, last)
        file = self._open
        file.waiting.append(rows)
        file.waiting_rows += rows.num_rows
        file.rows += rows.num_rows
        file.last_us = last
        if file.waiting_rows >= ROW_GROUP:
            self._write(file)

    def _write(self, file: _Open) -> None:
        import pyarrow as pa

        if file.waiting:
            file.writer.write_table(pa.concat_tables(file.waiting).combine_chunks(), row_group_size=ROW_GROUP)
            file.waiting, file.waiting_rows = [], 0

    def _close(self) -> None:
        if self._open is None:
            return
        file, self._open = self._open, None
        self._write(file)
        file.writer.close()
        named = log_file(self.layout.view, file.day, file.first_us, file.last_us, file.rows)
        sync_file(file.place)
        file.place.rename(staged_path(self._root, named.path))
        self._done.append(named)


def _times(rows: pa.Table) -> Any:
    import numpy as np

    return rows.column(EVENT_TIMESTAMP).to_numpy().astype("datetime64[us]").astype(np.int64)


def _runs(days: Any) -> list[tuple[int, int]]:
    """Start and end of each run of equal days."""
    import numpy as np

    cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    return list(pairwise(cuts))
