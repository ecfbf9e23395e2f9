"""Log files on their way: rows appended since the last commit, in files that nobody sees yet.

Rows of one view and date go to one open Parquet file in the part's folder `staged/`; when a later date begins, the file
before is closed. Memory holds at most one row group per view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from headrace.features.time import DAY, format_instant
from headrace.stores.errors import OutOfOrderError
from headrace.stores.layout import EVENT_TIMESTAMP, RowLayout, conform
from headrace.stores.manifest import LogFile
from headrace.stores.parquet import ROW_GROUP, ParquetFile
from headrace.stores.places import Place

if TYPE_CHECKING:
    import pyarrow as pa


def file_name(part: str, name: str) -> str:
    """The name of a file that all readers see, unique over the parts.

    >>> file_name("rides-0003", "x.parquet"), file_name("", "x.parquet")
    ('rides-0003-x.parquet', 'x.parquet')
    """
    return f"{part}-{name}" if part else name


def log_file(part: str, view: str, first_us: int, last_us: int, rows: int, version: int = 0, at: str = "") -> LogFile:
    """The name of a file follows from its rows: the times of day of the first and the last, and how many.

    >>> log_file("", "trips", 1_000_000, 3_600_000_000, 7).path
    'view=trips/date=1970-01-01/000001.000000-010000.000000-7.parquet'
    """
    import numpy as np

    date = np.datetime64(first_us // DAY, "D")
    name = file_name(part, f"{_time_of_day(first_us)}-{_time_of_day(last_us)}-{rows}.parquet")
    return LogFile(f"view={view}/date={date}/{name}", rows, first_us, last_us, version, at)


def _time_of_day(us: int) -> str:
    seconds, micros = divmod(us % DAY, 1_000_000)
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}.{micros:06d}"


@dataclass
class _Open:
    """A file that still takes rows."""

    day: int
    writer: ParquetFile
    first_us: int
    last_us: int
    rows: int = 0
    waiting: list[Any] = field(default_factory=list)
    waiting_rows: int = 0


class StagedView:
    """Rows of one view since the last commit.

    Args:
        part: whose rows they are. layout: of the rows; version: its number. newest_us: the newest row of the commit
            before, of any version. name: gives a new name in the part's own folder.
    """

    def __init__(
        self, place: Place, part: str, layout: RowLayout, version: int, newest_us: int | None, name: Callable[[], str]
    ) -> None:
        self.layout = layout
        self.version = version
        self.newest_us = newest_us
        self._place = place
        self._part = part
        self._name = name
        self._committed_us = newest_us
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
        self.newest_us = int(times[-1])

    def check_tail(self, rows: pa.Table) -> None:
        """Refuse provisional rows at or before a settled one."""
        if rows.num_rows and self.newest_us is not None:
            first = int(_times(rows).min())
            if first <= self.newest_us:
                raise OutOfOrderError(
                    f"View '{self.layout.view}': a provisional row at {format_instant(first)} is not after the log's "
                    "newest "
                    f"settled one, at {format_instant(self.newest_us)}."
                )

    def finish(self) -> list[LogFile]:
        """Close, flush and name the files; they stay where they are until a commit names them."""
        self._close()
        return list(self._done)

    def change(self, layout: RowLayout, version: int) -> None:
        """From here on rows have another layout."""
        self._close()
        self.layout, self.version = layout, version

    def abandon(self) -> None:
        """Give up what is open, when the rows are not wanted any more."""
        if self._open is not None:
            self._open.writer.drop()
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
        if self.newest_us is not None and first < self.newest_us:
            raise OutOfOrderError(
                f"View '{name}': a row at {format_instant(first)} was appended after one at "
                f"{format_instant(self.newest_us)}. "
                "The log is written in event-time order."
            )

    def _append_day(self, day: int, rows: pa.Table, first: int, last: int) -> None:
        if self._open is not None and self._open.day != day:
            self._close()
        if self._open is None:
            self._open = _Open(day, ParquetFile(self._place, self._name(), rows.schema), first, last)
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
            file.writer.write(pa.concat_tables(file.waiting).combine_chunks())
            file.waiting, file.waiting_rows = [], 0

    def _close(self) -> None:
        if self._open is None:
            return
        file, self._open = self._open, None
        try:
            self._write(file)
        except BaseException:
            file.writer.drop()
            raise
        file.writer.finish()
        self._done.append(
            log_file(
                self._part, self.layout.view, file.first_us, file.last_us, file.rows, self.version, file.writer.path
            )
        )


def _times(rows: pa.Table) -> Any:
    import numpy as np

    return rows.column(EVENT_TIMESTAMP).to_numpy().astype("datetime64[us]").astype(np.int64)


def _runs(days: Any) -> list[tuple[int, int]]:
    """Start and end of each run of equal days."""
    import numpy as np

    cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    return list(pairwise(cuts))
