"""The feature log: what a client answered, kept in Parquet files for training on logged values and for checks.

with FeatureLog("features/served", sample=0.1) as log:
    client = Client("redis://localhost:6379/0", [pricing], watchers=[log])
    ...
read_feature_log("features/served", pricing)

answer -> reference in a bounded queue | a thread: sample -> columns -> a file when it is full or old enough
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from headrace.features.errors import DataError
from headrace.features.time import SECOND, as_datetime, duration_us
from headrace.serving.asking import Plan
from headrace.serving.logged_rows import LoggedRows, Noted
from headrace.serving.watching import Answer
from headrace.stores.errors import StoreError
from headrace.stores.places import Root, open_place, plain_root, shown_root

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger("headrace.serving")

# The thread looks into the queue so often; what has come meanwhile becomes columns together.
_LOOK_S = 0.1
# After about so many values it lets go of the interpreter for a moment: an answer never waits longer than for these.
_PIECE_VALUES = 2_000
_BREATH_S = 0.0003
# A place that cannot be written is tried again after this long, twice as long each time up to the second.
_RETRY_S, _MOST_RETRY_S = 1.0, 30.0
# So many times the rows of a full file wait for such a place; older ones are dropped.
_MOST_UNWRITTEN = 4
# So many pieces are put together in memory.
_TOGETHER = 64
# Different lists of features (lookups without a service) that one process logs: each has files of its own.
_MOST_LISTS = 100
_MOST_PLANS = 1_000
_TELL_S = 60.0


class FeatureLog:
    """A `Watcher` that keeps what a client answers. It costs the answering thread some microseconds and never makes it
    wait: what the log cannot take is dropped, counted and told.

    A file is whole or not there. A process that is killed loses what it has not written yet: `rotate` at most.

    Args:
        place: folder, or URL of an object store. Several processes may log to one place.
        sample: share of entities that are logged, above 0 up to 1. An entity is either always or never among them, in
            every process: `sampled` says how it is told.
        by: "request": `sample` is the share of requests instead, drawn at random.
        rotate: how long rows wait at most until they are in a file, such as "1m".
        rotate_rows: the most rows of a file.
        queue: the most values (entities times features) that wait to be taken over.

    Raises:
        DataError: an argument out of its range.
        StoreError: pyarrow, or what the URL needs, is not installed.
    """

    def __init__(
        self,
        place: Root,
        *,
        sample: float = 1.0,
        by: Literal["entity", "request"] = "entity",
        rotate: str | timedelta = "1m",
        rotate_rows: int = 100_000,
        queue: int = 1_000_000,
    ) -> None:
        if not 0 < sample <= 1:
            raise DataError(
                f"FeatureLog: sample is {sample!r}, expected a share above 0, up to 1. Leave the log out for none."
            )
        if by not in ("entity", "request"):
            raise DataError(f"FeatureLog: by is {by!r}, expected 'entity' or 'request'.")
        for name, value in (("rotate_rows", rotate_rows), ("queue", queue)):
            if value < 1:
                raise DataError(f"FeatureLog: {name} is {value}, expected 1 or more.")
        try:  # loaded now: a tenth of a second in which nobody else of the process would get to work
            import pyarrow.compute
            import pyarrow.parquet  # noqa: F401

            import headrace.stores.parquet  # noqa: F401
        except ImportError as error:
            raise StoreError(f"A feature log needs pyarrow: {error}. pip install 'headrace[offline]'.") from error
        self.place, self._shown = open_place(place), shown_root(plain_root(place))
        self.sample, self.by, self.rotate_rows, self.queue = sample, by, rotate_rows, queue
        self.rotate_s = duration_us(rotate, "FeatureLog: rotate") / SECOND
        self._draw: Callable[[], float] | None = None
        if by == "request" and sample < 1:
            import random

            self._draw = random.random
        self._lock = threading.Lock()
        self._noted: deque[Noted] = deque()
        self._waiting = self._kept = self._dropped = self._told = 0
        self._told_at = float("-inf")
        self._wake, self._done = threading.Event(), threading.Condition(self._lock)
        self._flushes = self._flushed = 0
        self._stopping = False
        self._writing = _Writing(self)
        self._thread = threading.Thread(target=self._run, name="feature-log", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    @property
    def kept(self) -> int:
        """Rows that are in files."""
        return self._kept

    @property
    def dropped(self) -> int:
        """Rows that were not kept: the queue was full, or the place could not be written. Of an answer that was dropped
        whole every entity counts, sampled or not."""
        return self._dropped

    # Of the answering threads.

    def answered(self, answer: Answer) -> None:
        if self._draw is not None and self._draw() >= self.sample:
            return
        noted = Noted(answer, time.time_ns() // 1000)
        size = _size(answer)
        with self._lock:
            if self._stopping or (self._waiting and self._waiting + size > self.queue):
                self._dropped += len(answer.table)
                return
            self._waiting += size
            self._noted.append(noted)
            hurry = self._waiting * 2 > self.queue
        if hurry:
            self._wake.set()

    def failed(self, shown: str, error: Exception, seconds: float, trace: str | None) -> None:
        """There is no answer to keep."""

    def retried(self) -> None:
        """Nothing to keep yet."""

    # Of its owner.

    def flush(self, timeout: float | None = 30.0) -> bool:
        """Write everything that was answered before; returns whether that was tried within so many seconds."""
        with self._done:
            self._flushes += 1
            number = self._flushes
            self._wake.set()
            return self._done.wait_for(lambda: self._flushed >= number or not self._thread.is_alive(), timeout)

    def stop(self, timeout: float | None = 30.0) -> None:
        """Write what is left, and end. Later answers are dropped. Again is fine."""
        with self._lock:
            self._stopping = True
        self._wake.set()
        self._thread.join(timeout)
        atexit.unregister(self.stop)

    def __enter__(self) -> FeatureLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"FeatureLog({self._shown!r}, {self._kept} rows kept, {self._dropped} dropped)"

    # Of the thread.

    def _run(self) -> None:
        while True:
            self._wake.wait(min(_LOOK_S, self.rotate_s))
            self._wake.clear()
            with self._lock:
                stopping, flushes = self._stopping, self._flushes
            try:
                self._take()
                self._writing.turn(everything=stopping or flushes > self._flushed)
                self._tell(stopping)
            except Exception as error:  # whatever it is, what comes after it is logged
                _log.error("The feature log at %s failed and goes on.", self._shown, exc_info=error)
            with self._done:
                self._flushed = flushes
                self._done.notify_all()
            if stopping:
                return

    def _take(self) -> None:
        """Everything that waits, a piece at a time."""
        while self._noted:
            by_plan: dict[Plan, list[Noted]] = {}
            values = 0
            while self._noted and values < _PIECE_VALUES:
                each = self._noted.popleft()
                by_plan.setdefault(each.answer.plan, []).append(each)
                values += _size(each.answer)
            with self._lock:
                self._waiting -= values
            for plan, noted in by_plan.items():
                self._writing.take(plan, noted)
            time.sleep(_BREATH_S)

    def keep(self, answer: Answer) -> list[int] | None:
        """Which entities of an answer are logged; None: all."""
        if self.sample == 1 or self.by == "request":
            return None
        names = sorted(answer.table.entities)
        columns = [answer.table.entities[name] for name in names]
        picked = [
            at
            for at, key in enumerate(zip(*columns, strict=True))
            if sampled(dict(zip(names, key, strict=True)), self.sample)
        ]
        return None if len(picked) == len(answer.table) else picked

    def count(self, *, kept: int = 0, dropped: int = 0) -> None:
        """Counts rows; called in the thread."""
        with self._lock:
            self._kept += kept
            self._dropped += dropped

    def _tell(self, now: bool) -> None:
        dropped = self._dropped
        if dropped > self._told and (now or time.monotonic() - self._told_at >= _TELL_S):
            _log.warning(
                "The feature log at %s has dropped %d rows, %d more than when this was told last; answers were given "
                "all the same. Make `queue` greater, `sample` smaller, or see to the place if it was told of, too.",
                *(self._shown, dropped, dropped - self._told),
            )
            self._told, self._told_at = dropped, time.monotonic()


class _Writing:
    """The thread's side: rows of each definition until they make a file, and files that could not be written."""

    def __init__(self, log: FeatureLog) -> None:
        self._log = log
        self._process, self._number = os.urandom(6).hex(), 0
        self._rows: dict[Plan, LoggedRows] = {}
        self._open: dict[str, _Open] = {}
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
            into = self._open[rows.folder] = _Open(time.monotonic())
        into.add(made)
        if into.rows >= self._log.rotate_rows:
            self._close(rows.folder)

    def turn(self, everything: bool) -> None:
        """Writes files that are old enough."""
        now = time.monotonic()
        for folder, each in list(self._open.items()):
            if everything or now - each.since >= self._log.rotate_s:
                self._close(folder)
        if self._unwritten and (everything or now >= self._try_at):
            self._write()
        if everything and self._log._stopping:
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
                    *(self._log._shown, error, sum(each.num_rows for _, each in self._unwritten), self._pause),
                )
                self._try_at = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, _MOST_RETRY_S)
                return
            except Exception as error:  # no other try would help
                _log.error("The feature log at %s cannot make a file of rows.", self._log._shown, exc_info=error)
                self._give_up()
                continue
            self._unwritten.popleft()
            self._pause, self._try_at = _RETRY_S, float("-inf")
            self._log.count(kept=table.num_rows)

    def _give_up(self) -> None:
        _, table = self._unwritten.popleft()
        self._log.count(dropped=table.num_rows)


class _Open:
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


def sampled(entity: Mapping[str, Any], share: float) -> bool:
    """Whether an entity is among a share of all: BLAKE2b with a digest of 8 bytes, read as a big-endian integer, over
    2^64, is below the share. What is hashed is UTF-8 text: `name=value` of each key column, in the order of their
    names, joined by U+001F; integers in decimal digits, bytes in lowercase hexadecimal ones.

    >>> [sampled({"driver_id": str(number)}, 0.25) for number in range(6)]
    [False, False, True, False, False, True]
    """
    parts = []
    for name in sorted(entity):
        value = entity[name]
        parts.append(f"{name}={value.hex() if isinstance(value, bytes) else value}")
    digest = hashlib.blake2b("\x1f".join(parts).encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def _size(answer: Answer) -> int:
    return (len(answer.table) or 1) * (len(answer.plan.columns) or 1)


def _name(table: pa.Table, process: str, number: int) -> str:
    """Name of a file: the first and the last instant in it, the process, its number there."""
    import pyarrow.compute as pc

    ends = pc.min_max(table.column("served_at").cast("int64")).as_py()
    return f"{_stamp(ends['min'])}-{_stamp(ends['max'])}-{process}-{number:06d}.parquet"


def _stamp(us: int) -> str:
    moment: datetime = as_datetime(us)
    return moment.strftime("%Y%m%dT%H%M%S.%fZ")
