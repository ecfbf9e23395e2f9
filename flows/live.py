"""Live runs: events are taken as they come, and the clock is the wall's.

Each source is read by a thread of its own into a bounded queue, so that a source that waits holds nobody up. The run
takes what is there, at most `TICK_S` after it came, and lets the clock move on when nothing is (contract C5).
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from headrace.features.errors import DataError
from headrace.features.python_source import PythonSource
from headrace.features.sources import IterableSource, Source
from headrace.features.views import ViewDefinition
from headrace.flows.changes import OnChange
from headrace.flows.decode import decode_rows, reading_of
from headrace.flows.interrupts import Interrupts
from headrace.flows.pipeline import SourceFlow
from headrace.flows.read import Part, Progress, batches, chunks
from headrace.flows.recording import Reading, Recorder
from headrace.stores.checkpoints import Checkpoint

logger = logging.getLogger("headrace.live")

TICK_S = 0.05
"""How long the run waits for events before it lets the clock move on."""
CLOCK_EVERY_US = 1_000_000
"""How often the store is told the clock."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
"""How long a reader that raised is left alone before it is started again: twice as long each time."""
QUEUED_CHUNKS = 64
"""Yields of a reader that may wait; then it waits."""
QUEUED_ROWS = 100_000
"""Rows of an iterable that may wait; then its thread waits (backpressure instead of memory)."""


class LiveFeed(Reading):
    """One source being read by its own thread. Rows of an iterable wait singly, other sources in batches."""

    def __init__(
        self,
        source: Source,
        views: Sequence[ViewDefinition],
        checkpoint: Checkpoint | None,
        size: int,
        on_change: OnChange = "refuse",
    ) -> None:
        super().__init__(SourceFlow(source, views, live=True), checkpoint, on_change)
        self._source = source
        self._size = size
        self._how = reading_of(source)
        rows = isinstance(source, IterableSource)
        self._queue: queue.Queue[Any] = queue.Queue(QUEUED_ROWS if rows else 2)
        self._failure: Exception | None = None
        self._arrived = threading.Event()
        self._done = threading.Event()
        made: Iterator[Any]
        if isinstance(source, IterableSource):
            made = iter(source.iterable)
        elif isinstance(source, PythonSource):
            self._queue = queue.Queue(QUEUED_CHUNKS)
            made = _patiently(source, self.position)
        else:
            made = batches(source, size, self.offset, files=self.files)
        self._thread = threading.Thread(target=self._read, args=(made,), name=f"read {self.name}", daemon=True)

    def start(self, arrived: threading.Event) -> None:
        """Begin to read; `arrived` is set whenever something came."""
        self._arrived = arrived
        self._thread.start()

    def _read(self, made: Iterator[Any]) -> None:
        try:
            for item in made:
                self._queue.put(item)
                self._arrived.set()
        except Exception as error:  # handed to the run, which raises it with the source's name
            self._failure = error
        self._done.set()
        self._arrived.set()

    def take(self) -> Part | None:
        """What has come since, at most one batch; None if nothing has.

        Raises:
            DataError: reading the source failed; what came before has been taken.
        """
        ended = self._done.is_set()
        if isinstance(self._source, PythonSource):
            found = self._chunks()
            if found is None:
                self._fail(ended)
            return found
        items: list[Any] = []
        limit = self._size if isinstance(self._source, IterableSource) else 1
        while len(items) < limit:
            try:
                items.append(self._queue.get_nowait())
            except queue.Empty:
                break
        if items and not isinstance(self._source, IterableSource):
            part: Part = items[0]
            return part
        if items:
            batch, dead = decode_rows(self._source.schema, items, 0, self.offset, self._how)
            offset = self.offset + len(items)
            return Part(batch, dead, Progress(offset, offset, None, "rows"))
        self._fail(ended)
        return None

    def _fail(self, ended: bool) -> None:
        """Raises what the source failed with, if it has `ended` so."""
        if ended and self._failure is not None:
            raise DataError(
                f"Source '{self.name}' failed after {self.offset:,} rows: {self._failure!r}. What came before is kept; "
                "mend the source and run again."
            ) from self._failure

    def _chunks(self) -> Part | None:
        """What a reader has given since, at least one of its yields."""
        rows: list[Any] = []
        position = b""
        while len(rows) < self._size:
            try:
                given, position = self._queue.get_nowait()
            except queue.Empty:
                break
            rows += given
        if not position:
            return None
        batch, dead = decode_rows(self._source.schema, rows, 0, self.offset, self._how)
        offset = self.offset + len(rows)
        return Part(batch, dead, Progress(offset, offset, None, "rows", position=position))

    @property
    def ended(self) -> bool:
        """Everything has been read and taken."""
        return self._done.is_set() and self._queue.empty() and self._failure is None


def _patiently(source: PythonSource, position: bytes) -> Iterator[tuple[list[Any], bytes]]:
    """What a reader gives; one that raises is started again where it stopped."""
    pause = FIRST_PAUSE_S
    while True:
        try:
            for rows, reached in chunks(source, position):
                position, pause = reached, FIRST_PAUSE_S
                yield rows, position
            return
        except DataError:  # what it yields is wrong, and would be again
            raise
        except Exception as error:
            logger.warning(
                "Source '%s': its reader raised %s: %s. It is started again from its position in %.1f s.",
                source.name, type(error).__name__, error, pause,
            )  # fmt: skip
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def run_live(
    feeds: Sequence[LiveFeed],
    recorder: Recorder,
    checkpoint_every_s: float,
    shown: Callable[[Reading, Part], None],
    wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> None:
    """Take events and let time pass until every source has ended or the run is interrupted.

    Args:
        shown: called with each batch taken.
        wall_us: the clock, microseconds UTC.
    """
    arrived = threading.Event()
    for feed in feeds:
        feed.start(arrived)
    told = 0
    due = time.monotonic() + checkpoint_every_s
    with Interrupts() as interrupts:
        while not interrupts.asked and not all(feed.ended for feed in feeds):
            arrived.wait(TICK_S)
            arrived.clear()
            for feed in feeds:
                try:
                    _step(feed, recorder, wall_us(), shown)
                except DataError:
                    recorder.commit(feeds, tails=True)
                    raise
            now = wall_us()
            for feed in feeds:
                recorder.write(feed, feed.flow.advance(now))
            recorder.pass_time(now)
            if now - told >= CLOCK_EVERY_US:
                recorder.set_clock(now)
                told = now
            if time.monotonic() >= due:
                recorder.commit(feeds)
                due = time.monotonic() + checkpoint_every_s
        recorder.summary.stopped = interrupts.asked


def _step(feed: LiveFeed, recorder: Recorder, now: int, shown: Callable[[Reading, Part], None]) -> None:
    part = feed.take()
    if part is not None:
        recorder.write(feed, feed.flow.push(part.batch, now, wall_us=now), part.dead, now)
        shown(feed, part)
