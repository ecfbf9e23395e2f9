"""The feature log: what a client answered, kept in Parquet files for training on logged values and for checks.

with FeatureLog("features/served", sample=0.1) as log:
    client = Client("redis://localhost:6379/0", [pricing], watchers=[log])
    ...
read_feature_log("features/served", pricing)

answer -> reference in a bounded queue | a thread: sample -> columns -> a file when it is full or old enough
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from headrace.features.errors import DataError
from headrace.features.time import SECOND, duration_us
from headrace.serving.asking import Plan
from headrace.serving.log_writing import LogWriting
from headrace.serving.logged_rows import Noted
from headrace.serving.sampling import sampled
from headrace.serving.watching import Answer
from headrace.stores.errors import StoreError
from headrace.stores.places import Root, open_place, plain_root, shown_root

_log = logging.getLogger("headrace.serving")

# The thread looks into the queue so often; what has come meanwhile becomes columns together.
_LOOK_S = 0.1
# After about so many values it lets go of the interpreter for a moment: an answer never waits longer than for these.
_PIECE_VALUES = 2_000
_BREATH_S = 0.0003
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
        self.place, self.shown = open_place(place), shown_root(plain_root(place))
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
        self._writing = LogWriting(self)
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
        return f"FeatureLog({self.shown!r}, {self._kept} rows kept, {self._dropped} dropped)"

    # Of the thread.

    def _run(self) -> None:
        while True:
            self._wake.wait(min(_LOOK_S, self.rotate_s))
            self._wake.clear()
            with self._lock:
                stopping, flushes = self._stopping, self._flushes
            try:
                self._take()
                self._writing.turn(everything=stopping or flushes > self._flushed, last=stopping)
                self._tell(stopping)
            except Exception as error:  # whatever it is, what comes after it is logged
                _log.error("The feature log at %s failed and goes on.", self.shown, exc_info=error)
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
                *(self.shown, dropped, dropped - self._told),
            )
            self._told, self._told_at = dropped, time.monotonic()


def _size(answer: Answer) -> int:
    return (len(answer.table) or 1) * (len(answer.plan.columns) or 1)
