"""The log writer: a thread that stages rows and dead letters of all tasks and commits their checkpoints.

The flow hands over tables and goes on; encoding Parquet and flushing files take place beside it. A checkpoint counts
only after the online store has every row up to its position, so a restart never has to write a row that was lost with
the process. When a part cannot be written (a full disk) its task is given up and opened again from its last
checkpoint, again and again until it works: nothing that counted is lost.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from headrace.features.views import ViewDefinition
from headrace.flows.deadletter import DeadLetter
from headrace.flows.worker.observing import Observer
from headrace.flows.worker.online import OnlineWriter
from headrace.stores.checkpoints import SnapshotPart
from headrace.stores.deadletters import dead_letter_table
from headrace.stores.errors import FencedError, StoreError
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock

WAITING_ROWS = 400_000
"""Log rows that may wait for the thread; then the flow stops reading."""
LOOK_S = 0.2
"""How often the thread looks whether it is to give up, while it waits for the online store."""


@dataclass(frozen=True)
class Commit:
    """A checkpoint of one task, to be committed.

    position: the task's next offset. mark: of the online rows that come before it, as `OnlineWriter.mark` gives it.
    snapshots, settled_us, offsets, clock, tails: as in `OfflineLog.commit` and `OfflineLog.tail`. sent: called first,
    from the thread: waits until what the task has sent on is acknowledged.
    done: called with the position once the checkpoint counts.
    """

    position: int
    mark: int
    snapshots: Mapping[str, SnapshotPart]
    settled_us: Mapping[str, int]
    offsets: Mapping[str, Mapping[int, int]]
    clock: Clock | None
    tails: Sequence[tuple[ViewDefinition, pa.Table]] = ()
    sent: Callable[[], None] | None = None
    done: Callable[[int], None] | None = None


@dataclass
class PartLog:
    """One task's part of the log, as the thread works on it.

    failure: why it takes nothing more. committed: position of the last checkpoint that counts.
    """

    name: str
    log: OfflineLog
    committed: int
    failure: Exception | None = None
    waiting: int = 0
    commits: int = field(default=0)


@dataclass(frozen=True)
class _Rows:
    part: PartLog
    rows: Sequence[tuple[ViewDefinition, pa.Table]]
    dead: Sequence[DeadLetter]
    count: int


@dataclass(frozen=True)
class _Committing:
    part: PartLog
    commit: Commit
    begun: float


@dataclass(frozen=True)
class _Closing:
    part: PartLog


class LogThread:
    """Writes the parts of several tasks, in the order in which it is told.

    give_up: set when waiting for the online store is to end; the checkpoint at hand is then not committed.
    """

    def __init__(self, online: OnlineWriter, observer: Observer, give_up: threading.Event) -> None:
        self._online, self._observer, self._give_up = online, observer, give_up
        self._todo: deque[_Rows | _Committing | _Closing] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._leaving: dict[str, int] = {}
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def append(
        self, part: PartLog, rows: Sequence[tuple[ViewDefinition, pa.Table]], dead: Sequence[DeadLetter] = ()
    ) -> None:
        """Stage settled rows and dead letters."""
        if rows or dead:
            self._put(_Rows(part, rows, dead, sum(table.num_rows for _, table in rows) + len(dead)))

    def commit(self, part: PartLog, commit: Commit) -> None:
        """Commit a checkpoint, after everything handed over before."""
        part.commits += 1
        self._put(_Committing(part, commit, time.perf_counter()))

    def full(self) -> bool:
        """Whether so much waits that the flow should stop reading for now."""
        with self._changed:
            self._raise_failure()
            return self._rows > WAITING_ROWS

    def drained(self, part: PartLog, timeout_s: float) -> bool:
        """Wait until all that was handed over for `part` is done or has failed; False after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: not part.waiting or self._failure is not None, timeout_s)
            self._raise_failure()
            return not part.waiting

    def close(self, part: PartLog) -> None:
        """Give the part up: what waits for it is dropped, what was not committed does not count."""
        if part.failure is None:
            part.failure = StoreError(f"The part '{part.name}' was given up by this worker.")
        with self._changed:
            self._leaving[part.name] = self._leaving.get(part.name, 0) + 1
            self._todo.append(_Closing(part))
            self._changed.notify_all()

    def wait_closed(self, name: str) -> None:
        """Wait until a part of that name, given up before, is closed: one object at a time works in its files."""
        with self._changed:
            self._changed.wait_for(lambda: not self._leaving.get(name) or self._failure is not None)
            self._raise_failure()

    def end(self) -> None:
        """End the thread; what waits is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _put(self, item: "_Rows | _Committing") -> None:
        with self._changed:
            self._raise_failure()
            if item.part.failure is not None:
                if isinstance(item, _Committing):
                    item.part.commits -= 1
                return
            item.part.waiting += 1
            self._rows += item.count if isinstance(item, _Rows) else 0
            self._todo.append(item)
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or bool(self._todo))
                    if self._closing:
                        return
                    item = self._todo.popleft()
                if isinstance(item, _Closing):
                    self._close(item.part)
                    continue
                if item.part.failure is None:
                    self._do(item)
                with self._changed:
                    item.part.waiting -= 1
                    if isinstance(item, _Rows):
                        self._rows -= item.count
                    else:
                        item.part.commits -= 1
                    self._changed.notify_all()
        except BaseException as error:  # raised again in the flow's own thread at its next call
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _do(self, item: "_Rows | _Committing") -> None:
        part = item.part
        try:
            if isinstance(item, _Rows):
                self._stage(item)
            else:
                self._commit(item)
        except (StoreError, ExchangeFailedError) as error:
            part.failure = error
            if not isinstance(error, FencedError):
                self._observer.trouble("log", str(error))

    def _close(self, part: PartLog) -> None:
        try:
            part.log.close()
        except StoreError as error:  # nothing of it counts any more
            self._observer.trouble("log", str(error))
        with self._changed:
            self._leaving[part.name] -= 1
            self._changed.notify_all()

    def _stage(self, item: _Rows) -> None:
        for view, table in item.rows:
            began = time.perf_counter()
            item.part.log.append(view, table)
            self._observer.wrote(view.name, "log", table.num_rows, time.perf_counter() - began)
        if item.dead:
            item.part.log.dead_letters(dead_letter_table([letter.record() for letter in item.dead]))

    def _commit(self, item: _Committing) -> None:
        part, commit = item.part, item.commit
        while not self._online.written(part.name, commit.position, LOOK_S, commit.mark):
            if self._give_up.is_set() or self._online.state(part.name) != "open":
                raise StoreError(
                    f"The checkpoint of '{part.name}' at offset {commit.position} was given up: the online store has "
                    "not taken its rows. The flow goes on from the checkpoint before."
                )
        if commit.sent is not None:
            commit.sent()
        nbytes = sum(len(snapshot.data) for snapshot in commit.snapshots.values())
        delta = any(snapshot.delta for snapshot in commit.snapshots.values())
        for view, rows in commit.tails:
            part.log.tail(view, rows)
        part.log.commit(
            settled_us=commit.settled_us, snapshots=commit.snapshots, offsets=commit.offsets, clock=commit.clock
        )
        part.committed = commit.position
        if commit.done is not None:
            commit.done(commit.position)
        self._observer.checkpoint(part.name, seconds=time.perf_counter() - item.begun, nbytes=nbytes, delta=delta)


class ExchangeFailedError(Exception):
    """What a task sent on was not acknowledged; it goes on from its last checkpoint. Never leaves the worker."""
