"""The online writer: a thread that writes the newest rows of each entity, however fast they come.

While one write is under way, the rows that come meanwhile gather, and a later row of an entity replaces an earlier one.
So a quiet flow writes each row at once, a busy one writes each entity once per round trip, and neither waits for the
other. When the store cannot be reached the writer tries again, and the flow stops reading once too much has gathered.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tenacity

from headrace.features.views import ViewDefinition
from headrace.flows.worker.newest import NewestRows
from headrace.flows.worker.observing import Observer
from headrace.stores.errors import UnreachableError
from headrace.stores.online import ClockKind, Portion, PositionedStore, Reached

GATHERED_ROWS = 500_000
"""Rows that may wait, after only the newest of each entity were kept; then the flow stops reading."""

State = Literal["open", "fenced", "lost", "closed"]


class StoppedError(Exception):
    """The worker was told to stop while it waited for a store. Never leaves the worker."""


@dataclass
class _Lane:
    """One task's rows on their way. anew: some of them are rows that the store has lost."""

    epoch: int
    written: int
    rows: NewestRows
    state: State = "open"
    position: int = -1
    clock_us: int = 0
    mark: int = 0
    written_mark: int = 0
    stamps: list[npt.NDArray[np.float64]] = field(default_factory=list)
    dirty: bool = False
    anew: bool = False


class OnlineWriter:
    """Writes rows of several tasks to one store, from a thread of its own.

    Args:
        store: it must know positions. views: by name, all that will be written. kind: of the clock. flow: its name,
            under which the store knows the writers.
        stop: set when waiting for an unreachable store is to be given up.
    """

    def __init__(
        self,
        store: PositionedStore,
        views: Mapping[str, ViewDefinition],
        kind: ClockKind,
        flow: str,
        observer: Observer,
        stop: threading.Event,
    ) -> None:
        self._store, self._views, self._kind, self._observer, self._stop = store, views, kind, observer, stop
        self._prefix = f"{flow}/"
        self._lanes: dict[str, _Lane] = {}
        self._changed = threading.Condition()
        self._clock: int | None = None
        self._marks = 0
        self._writing = False
        self._held = False
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="online writer", daemon=True)
        self._thread.start()

    # The flow's side

    def open(self, part: str, epoch: int) -> Reached | None:
        """Begin to write as `part`; returns how far its rows in the store have come, None if there are none.

        Waits while the store cannot be reached.

        Raises:
            FencedError: a later epoch writes this part. StoppedError: told to stop meanwhile.
        """
        reached: Reached | None = self._patiently(lambda: self._store.take_over(self._prefix + part, epoch))
        with self._changed:
            lane = self._lanes[part] = _Lane(epoch, -1, NewestRows(self._views))
            if reached is not None:
                lane.written = lane.position = reached.position
                lane.clock_us = reached.clock_us
        return reached

    def migrate(self, view: ViewDefinition) -> None:
        """Have the store take a changed definition of a view. Raises and waits as `open`."""
        self._patiently(lambda: self._store.migrate_view(view))

    def submit(
        self,
        part: str,
        rows: Mapping[str, pa.Table],
        position: int,
        clock_us: int,
        stamps: npt.NDArray[np.float64] | None = None,
        *,
        anew: bool = False,
    ) -> None:
        """Have rows written, by view name; never waits.

        position: the task's next offset after the events that the rows know of. stamps: (n,) seconds since 1970,
        timestamps of the records whose effect this is. anew: rows that the store has lost. It is told the position only
        after they are there, so that whoever follows a worker that dies meanwhile writes them again.
        """
        with self._changed:
            self._raise_failure()
            lane = self._lanes[part]
            if lane.state != "open":
                return
            lane.rows.add(rows)
            lane.anew |= anew
            if stamps is not None and len(stamps):
                lane.stamps.append(stamps)
            if rows or position > lane.position:
                lane.dirty = True
                self._marks += 1
                lane.mark = self._marks
            lane.position = max(lane.position, position)
            lane.clock_us = max(lane.clock_us, clock_us)
            self._changed.notify_all()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is submitted in this `with` statement is written together: one round trip for a turn of the flow."""
        self._held = True
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    def rest(self, timeout_s: float) -> None:
        """Wait until all is written, for a moment.

        The flow and the writer share the interpreter's lock. A turn of the flow that begins while a small write is
        under way delays that write, and its own rows have to wait for it anyway.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._dirty(), timeout_s)

    def tell(self, clock_us: int) -> None:
        """Say that every row submitted so far is as of this instant or later.

        Each task's position is told again too: a store that has lost rows is noticed by tasks that have none to write.
        """
        with self._changed:
            self._raise_failure()
            self._clock = clock_us
            self._tell_positions()
            self._changed.notify_all()

    def tell_now(self, clock_us: int) -> None:
        """The same at once, after everything was written. Waits and raises as `open`."""
        self._patiently(lambda: self._store.set_clock(clock_us, self._kind))

    def full(self) -> bool:
        """Whether so much has gathered that the flow should stop reading for now."""
        with self._changed:
            return sum(len(lane.rows) for lane in self._lanes.values()) > GATHERED_ROWS

    def state(self, part: str) -> State:
        """Whether the store still takes this task's rows."""
        with self._changed:
            self._raise_failure()
            lane = self._lanes.get(part)
            return "closed" if lane is None else lane.state

    def mark(self, part: str) -> int:
        """What `written` waits for, to have everything in the store that was submitted until now.

        A position does not say it: as time passes values fall, and their rows are of the same position.
        """
        with self._changed:
            return self._lanes[part].mark

    def written(self, part: str, position: int, timeout_s: float, mark: int = 0) -> bool:
        """Wait until rows up to `position` and `mark` are in the store; False if they are not after `timeout_s`."""
        with self._changed:

            def there(lane: _Lane | None) -> bool:
                return lane is not None and lane.written >= position and lane.written_mark >= mark

            def done() -> bool:
                lane = self._lanes.get(part)
                return self._failure is not None or lane is None or lane.state != "open" or there(lane)

            self._changed.wait_for(done, timeout_s)
            self._raise_failure()
            lane = self._lanes.get(part)
            return lane is not None and lane.state == "open" and there(lane)

    def close(self, part: str) -> None:
        """Write nothing more of this task; what has gathered is dropped."""
        with self._changed:
            self._lanes.pop(part, None)
            self._changed.notify_all()

    def end(self) -> None:
        """End the thread; rows that were not written are dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _tell_positions(self) -> None:
        for lane in self._lanes.values():
            lane.dirty |= lane.position >= 0

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # The thread's side

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or self._has_work())
                    if self._closing:
                        return
                    clock, self._clock = self._clock, None
                    work = {part: self._gathered(lane) for part, lane in self._lanes.items() if self._due(lane)}
                    self._writing = True
                self._write(work)
                if clock is not None:
                    self._patiently(lambda us=clock: self._store.set_clock(us, self._kind))  # type: ignore[misc]
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()
        except StoppedError:
            return
        except BaseException as error:  # raised again in the flow's own thread at its next call
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _due(self, lane: _Lane) -> bool:
        return lane.dirty and lane.state == "open"

    def _has_work(self) -> bool:
        return not self._held and (self._clock is not None or self._dirty())

    def _dirty(self) -> bool:
        return any(self._due(lane) for lane in self._lanes.values())

    def _gathered(self, lane: _Lane) -> _Lane:
        taken = replace(lane)
        lane.rows, lane.stamps, lane.dirty, lane.anew = NewestRows(self._views), [], False, False
        return taken

    def _write(self, work: Mapping[str, _Lane]) -> None:
        if not work:
            return
        portions = [
            Portion(
                writer=self._prefix + part,
                epoch=lane.epoch,
                position=0 if lane.anew else lane.position,
                clock_us=lane.clock_us,
                rows=[(self._views[name], table) for name, table in lane.rows.take().items()],
            )
            for part, lane in work.items()
        ]
        began = time.perf_counter()
        outcomes = self._patiently(lambda: self._store.write_portions(portions))
        seconds = time.perf_counter() - began
        now = time.time()
        for portion, outcome in zip(portions, outcomes, strict=True):
            if outcome == "written":
                for view, table in portion.rows:
                    self._observer.wrote(view.name, "online", table.num_rows, seconds / len(portions))
                stamps = work[portion.writer.removeprefix(self._prefix)].stamps
                if stamps:
                    self._observer.freshness(now - np.concatenate(stamps))
        with self._changed:
            for portion, outcome in zip(portions, outcomes, strict=True):
                part = portion.writer.removeprefix(self._prefix)
                lane = self._lanes.get(part)
                if lane is None or lane.epoch != portion.epoch:
                    continue
                if outcome == "written":
                    lane.written = max(lane.written, portion.position)
                    lane.written_mark = max(lane.written_mark, work[part].mark)
                    lane.dirty |= work[part].anew  # the position is still to be told
                else:
                    lane.state = outcome
                    lane.rows, lane.stamps = NewestRows(self._views), []
            self._changed.notify_all()

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """Call the store, again and again while it cannot be reached."""

        def failed(state: tenacity.RetryCallState) -> None:
            assert state.outcome is not None
            self._observer.trouble("online store", str(state.outcome.exception()))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnreachableError),
            wait=tenacity.wait_exponential_jitter(initial=0.05, max=3.0, jitter=0.1),
            stop=tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=failed,
        )
        try:
            result = retrying(call)
        except tenacity.RetryError as error:
            raise StoppedError("told to stop while the online store could not be reached") from error
        if retrying.statistics.get("attempt_number", 1) > 1:
            self._observer.recovered("online store")
        return result
