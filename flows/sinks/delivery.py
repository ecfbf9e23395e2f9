"""At least once: rows wait for a thread that sends them again and again until they are taken.

A sink that is away holds the flow up once `WAITING_ROWS` wait (backpressure), and loses nothing: the checkpoint counts
only after every row before it was taken.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headrace.features.errors import PoisonError
from headrace.flows.deadletter import DeadLetter
from headrace.flows.sinks.protocol import SinkPlace, SinkRows
from headrace.flows.sinks.records import letters
from headrace.stores.errors import UnreachableError

WAITING_ROWS = 20_000
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
SAY_EVERY_S = 30.0
"""How often a sink that stays away is said to be, in the log."""
LOOK_S = 0.2
"""How often whoever waits looks whether it is to give up."""

logger = logging.getLogger("headrace.sinks")


class RetryError(Exception):
    """Rows were not taken, for now. after_s: not before; None: as usual."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Target(Protocol):
    """Where rows are delivered, as one thread uses it.

    shown: what it is, for the log, without secrets. batch: up to so many rows at a time.
    """

    shown: str
    batch: int

    def open(self, state: bytes | None) -> None:
        """Raises StoreError where rows can never be taken: a wrong password, a package that is missing."""

    def send(self, rows: SinkRows) -> Mapping[int, str]:
        """Returns once the rows are taken, all but those that never will be: by their number in `rows`, why.

        Raises:
            RetryError: some may not have been; they are sent again, all of them.
            PoisonError: they will never be taken together; each is sent alone, or given up where it was alone.
        """

    def flushed(self) -> bytes:
        """All rows until now were taken: what a restart from here must know."""

    def committed(self) -> None:
        """The checkpoint of the last `flushed` counts."""

    def close(self) -> None:
        """Nothing more is sent."""


class Retrying:
    """Tries again, with pauses that double, and says in the log what is the matter, seldom."""

    def __init__(self, name: str, shown: str, give_up: threading.Event, ended: threading.Event | None = None) -> None:
        self._what, self._give_up, self._ended = f"Step '{name}': {shown}", give_up, ended or threading.Event()
        self._since: float | None = None
        self._said = 0.0
        self._pause = FIRST_PAUSE_S

    def failed(self, why: str, after_s: float | None = None) -> None:
        """Said, and waited for. Raises UnreachableError when it is told to give up."""
        now = time.monotonic()
        if self._since is None:
            self._since, self._said = now, now
            logger.warning("%s does not take rows and is tried again: %s", self._what, why)
        elif now - self._said >= SAY_EVERY_S:
            self._said = now
            logger.warning("%s has not taken rows for %.0f s: %s", self._what, now - self._since, why)
        pause = self._pause if after_s is None else min(max(after_s, 0.0), 10 * LONGEST_PAUSE_S)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        until = now + pause
        while not self._give_up.is_set() and not self._ended.wait(max(0.0, min(LOOK_S, until - time.monotonic()))):
            if time.monotonic() >= until:
                return
        raise UnreachableError(
            f"{self._what} does not take rows, and the flow was told to stop: {why}. The last checkpoint stands; the "
            "next run goes on from there."
        )

    def worked(self) -> None:
        """It takes rows (again)."""
        if self._since is not None:
            logger.warning("%s takes rows again, after %.1f s", self._what, time.monotonic() - self._since)
            self._since, self._pause = None, FIRST_PAUSE_S


class Delivery:
    """A SinkWriter that delivers to a `Target` at least once."""

    def __init__(self, target: Target, at: SinkPlace) -> None:
        self._target, self._at = target, at
        self._ended = threading.Event()
        self._retrying = Retrying(at.name, target.shown, at.give_up, self._ended)
        self._rows: deque[SinkRows] = deque()
        self._waiting = 0
        self._dead: list[DeadLetter] = []
        self._changed = threading.Condition()
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def open(self, state: bytes | None) -> None:
        self._target.open(state)
        self._thread = threading.Thread(target=self._run, name=f"sink {self._at.name}", daemon=True)
        self._thread.start()

    def write(self, rows: SinkRows) -> None:
        if not len(rows):
            return
        with self._changed:
            self._wait(lambda: self._waiting < WAITING_ROWS)
            self._rows.append(rows)
            self._waiting += len(rows)
            self._changed.notify_all()

    def flush(self) -> bytes:
        with self._changed:
            self._wait(lambda: not self._waiting)
        return self._target.flushed()

    def committed(self) -> None:
        self._target.committed()

    def dead(self) -> Sequence[DeadLetter]:
        with self._changed:
            found, self._dead = self._dead, []
        return found

    def close(self) -> None:
        with self._changed:
            self._ended.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(LOOK_S)  # one that is within a call of the user's ends with the process
        self._target.close()

    def _wait(self, done: Callable[[], bool]) -> None:
        """Until `done`, with the lock held."""
        while self._failure is None and not done():
            self._changed.wait(LOOK_S)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while (rows := self._next()) is not None:
                self._deliver(rows)
                with self._changed:
                    self._waiting -= len(rows)
                    self._changed.notify_all()
        except Exception as error:  # handed to the flow, which stops
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next(self) -> SinkRows | None:
        """Up to a batch of rows, as soon as there are any; None at the end."""
        with self._changed:
            while not self._rows and not self._ended.is_set():
                self._changed.wait()
            if self._ended.is_set():
                return None
            several, count = [], 0
            while self._rows and count < self._target.batch:
                rows = self._rows.popleft()
                room = self._target.batch - count
                if len(rows) > room:
                    self._rows.appendleft(rows.slice(room, len(rows)))
                    rows = rows.slice(0, room)
                several.append(rows)
                count += len(rows)
        return SinkRows.concat(several)

    def _deliver(self, rows: SinkRows) -> None:
        while not self._ended.is_set():
            try:
                refused = self._target.send(rows)
            except RetryError as error:
                self._retrying.failed(str(error), error.after_s)
            except PoisonError as error:
                self._retrying.worked()
                if len(rows) == 1:
                    self._give_up({0: str(error)}, rows)
                else:
                    for i in range(len(rows)):
                        self._deliver(rows.slice(i, i + 1))
                return
            else:
                self._retrying.worked()
                self._give_up(refused, rows)
                return

    def _give_up(self, refused: Mapping[int, str], rows: SinkRows) -> None:
        found = [letter for i, why in refused.items() for letter in letters(rows.slice(i, i + 1), self._at, why)]
        with self._changed:
            self._dead += found
