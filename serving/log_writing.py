"""From rows of the feature log to its files: rows wait until they make a file, files wait for a place that can be
written, and what has waited too long is dropped."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from headrace.features.time import as_datetime
from headrace.serving.asking import Plan
from headrace.serving.logged_rows import LoggedRows, Noted

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.serving.recording import FeatureLog

_log = logging.getLogger("headrace.serving")

# A place that cannot be written is tried again after this long, twice as long each time up to the second.
_RETRY_S, _MOST_RETRY_S = 1.0, 30.0
# So many times the rows of a full file wait for such a place; older ones are dropped.
_MOST_UNWRITTEN = 4
# So many pieces are put together in memory.
_TOGETHER = 64
# Different lists of features (lookups without a service) that one process logs: each has files of its own.
_MOST_LISTS = 100
_MOST_PLANS = 1_000


class LogWriting:
    """Of the thread of a feature log: rows of each definition that are in no file yet, and files not yet written."""

    def __init__(self, log: FeatureLog) -> None:
        self._log = log
        self._process, self._number = os.urandom(6).hex(), 0
        self._rows: dict[Plan, LoggedRows] = {}
        self._open: dict[str, OpenRows] = {}
        self._lists: set[str] = set()
        self._unwritten: deque[tuple[str, pa.Table]] = deque()
        self._pause, self._try_at = _RETRY_S, float("-inf")

    def take(self, plan: Plan, noted: Sequence[Noted]) -> None:
        """Makes rows of answers."""
        try:
            rows = self._rows_of(plan)
            if rows is None:
                self._log.count(dropped=sum(len(each.answer.table) for each in noted))
                return
            made = rows.rows(noted, self._log.keep)
        except Exception as error:  # whatever an answer holds, the log goes on
            if len(noted) > 1:
                for each in noted:
                    self.take(plan, [each])
                return
            self._log.count(dropped=len(noted[0].answer.table))
            _log.error("The feature log cannot keep an answer of %s.", plan.shown, exc_info=error)
            return
        if made is None:
            return
        into = self._open.get(rows.folder)
        if into is None:
            into = self._open[rows.folder] = OpenRows(time.monotonic())
        into.add(made)
        if into.rows >= self._log.rotate_rows:
            self._close(rows.folder)

    def turn(self, *, everything: bool, last: bool) -> None:
        """Writes files that are old enough, or all; with `last` nothing waits for another turn."""
        now = time.monotonic()
        for folder, each in list(self._open.items()):
            if everything or now - each.since >= self._log.rotate_s:
                self._close(folder)
        if self._unwritten and (everything or now >= self._try_at):
            self._write()
        if last:
            while self._unwritten:
                self._give_up()

    def _rows_of(self, plan: Plan) -> LoggedRows | None:
        found = self._rows.get(plan)
        if found is None:
            if len(self._rows) >= _MOST_PLANS:
                self._rows.clear()
            found = self._rows[plan] = LoggedRows(plan)
        if found.service is None and found.folder not in self._lists:
            if len(self._lists) >= _MOST_LISTS:
                return None
            self._lists.add(found.folder)
        return found

    def _close(self, folder: str) -> None:
        done = self._open.pop(folder)
        try:
            table = done.table()
        except Exception:
            self._log.count(dropped=done.rows)
            raise
        self._number += 1
        self._unwritten.append((f"{folder}/{_name(table, self._process, self._number)}", table))
        if time.monotonic() >= self._try_at:
            self._write()
        while sum(each.num_rows for _, each in self._unwritten) > _MOST_UNWRITTEN * self._log.rotate_rows:
            self._give_up()

    def _write(self) -> None:
        from headrace.stores.parquet import parquet_bytes

        place = self._log.place
        while self._unwritten:
            path, table = self._unwritten[0]
            try:
                place.prepare([path.rpartition("/")[0]])
                place.put(path, parquet_bytes(table))
            except OSError as error:
                _log.warning(
                    "The feature log at %s cannot be written: %s. %d rows wait, and are tried again in %g s; answers "
                    "are given all the same.",
                    *(self._log.shown, error, sum(each.num_rows for _, each in self._unwritten), self._pause),
                )
                self._try_at = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, _MOST_RETRY_S)
                return
            except Exception as error:  # no other try would help
                _log.error("The feature log at %s cannot make a file of rows.", self._log.shown, exc_info=error)
                self._give_up()
                continue
            self._unwritten.popleft()
            self._pause, self._try_at = _RETRY_S, float("-inf")
            self._log.count(kept=table.num_rows)

    def _give_up(self) -> None:
        _, table = self._unwritten.popleft()
        self._log.count(dropped=table.num_rows)


class OpenRows:
    """Rows of one definition that are in no file yet; `since` is of `time.monotonic`."""

    def __init__(self, since: float) -> None:
        self.since, self.rows = since, 0
        self._small: list[pa.RecordBatch] = []
        self._large: list[pa.Table] = []

    def add(self, rows: pa.RecordBatch) -> None:
        self._small.append(rows)
        self.rows += rows.num_rows
        if len(self._small) >= _TOGETHER:
            self._join()

    def table(self) -> pa.Table:
        import pyarrow as pa

        self._join()
        return pa.concat_tables(self._large)

    def _join(self) -> None:
        """Columns of few rows take several times the memory of their values."""
        import pyarrow as pa

        if self._small:
            self._large.append(pa.Table.from_batches(self._small).combine_chunks())
            self._small = []


def _name(table: pa.Table, process: str, number: int) -> str:
    """Name of a file: the first and the last instant in it, the process, its number there."""
    import pyarrow.compute as pc

    ends = pc.min_max(table.column("served_at").cast("int64")).as_py()
    return f"{_stamp(ends['min'])}-{_stamp(ends['max'])}-{process}-{number:06d}.parquet"


def _stamp(us: int) -> str:
    moment: datetime = as_datetime(us)
    return moment.strftime("%Y%m%dT%H%M%S.%fZ")
