"""A supervisor of worker processes: starts them, restarts one that died, passes signals on, and outlives none of them.

    first SIGTERM or Ctrl-C    passed on: every worker finishes what it has begun and leaves
    second                     passed on too: every worker ends at once
    a worker dies              started again, later each time, with jitter
    it dies too often          all are stopped; exit code 75
    its configuration is wrong all are stopped; exit code 78: starting it again cannot help
    the supervisor is killed   its workers see their lifeline cut and stop (lifeline.py)

What workers do is not known here. Meanwhile Kafka moves the partitions of a flow's dead worker to the others, and
callers of the lookup server connect to its other workers.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from headrace.ops.errors import DONE, FAILED, GAVE_UP, INTERRUPTED, WRONG_CONFIGURATION
from headrace.ops.lifeline import VARIABLE, Line

WRONG_USAGE = 2
TURN_S = 0.1

State = Literal["starting", "running", "waiting", "stopping", "ended"]


@dataclass(frozen=True)
class Policy:
    """How patient a supervisor is.

    Attributes:
        restarts: deaths of one worker within `window_s` seconds after which it gives up. first_s, longest_s: seconds
            before a restart; the first, doubled with each death in the window, and at most. stop_within_s: how long
            workers may take to stop before they are killed. ends: whether a worker that ends well is done; a live one
            never ends by itself, so whoever stopped it, it is started again.
    """

    restarts: int = 10
    window_s: float = 300.0
    first_s: float = 0.5
    longest_s: float = 30.0
    stop_within_s: float = 60.0
    ends: bool = False


@dataclass
class Worker:
    """A place for a worker process and what is known of it.

    Attributes:
        name: of the worker. state: of its process. starts: how often one was started here. status: what it told last.
            result: what it told at its end.
    """

    number: int
    name: str
    state: State = "waiting"
    starts: int = 0
    status: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    process: subprocess.Popen[bytes] | None = None
    line: Line | None = None
    due: float = 0.0
    deaths: deque[float] = field(default_factory=deque)


class Supervisor:
    """Runs `len(names)` worker processes to their end.

    Args:
        names: of the workers. command: the words that start the worker of a number. what: they are part of, for the
            log. inherited: file descriptors that every worker takes over. variables: besides those of this process,
            for the worker of a number.
        show: called ten times a second with the workers, for a display. output: called with lines that workers print,
            as bytes; without it they go where those of the supervisor go.
    """

    def __init__(
        self,
        names: Sequence[str],
        command: Callable[[int], Sequence[str]],
        policy: Policy | None = None,
        *,
        show: Callable[[Sequence[Worker]], None] | None = None,
        output: Callable[[bytes], None] | None = None,
        seed: int | None = None,
        what: str = "the flow",
        inherited: Sequence[int] = (),
        variables: Callable[[int], Mapping[str, str]] = lambda number: {},
    ) -> None:
        self.workers = [Worker(number, name) for number, name in enumerate(names)]
        self._command = command
        self._policy = policy or Policy()
        self._show = show
        self._output = output
        self._what, self._inherited, self._variables = what, tuple(inherited), variables
        self._random = random.Random(seed)
        self._log = structlog.get_logger("headrace.supervisor")
        self._selector = selectors.DefaultSelector()
        self._stopping_since: float | None = None
        self._signals: list[int] = []
        self._passed_on = 0
        self._code = DONE

    def run(self) -> int:
        """Until every worker has ended; returns the exit code for the process."""
        try:
            with self._signals_caught():
                while any(worker.state != "ended" for worker in self.workers):
                    self._pass_signals_on()
                    self._start_those_due()
                    self._listen()
                    self._reap()
                    self._kill_the_slow()
                    if self._show is not None:
                        self._show(self.workers)
        finally:
            self._kill_all()
            self._selector.close()
        if self._code == DONE and self._signals and self._signals[0] == signal.SIGINT:
            return INTERRUPTED
        return self._code

    @contextlib.contextmanager
    def _signals_caught(self) -> Iterator[None]:
        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda number, _: self._signals.append(number)) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_signals_on(self) -> None:
        while self._passed_on < len(self._signals):
            self._passed_on += 1
            at_once = self._passed_on > 1
            self._log.info("stopping at once" if at_once else "stopping; a second signal ends at once")
            self._stop()
            if at_once:
                self._signal(signal.SIGTERM)
                # Who does not hear the second signal is not asked a third time.
                self._stopping_since = time.monotonic() - self._policy.stop_within_s + 2.0

    def _stop(self, code: int | None = None) -> None:
        """Ask every worker to stop, once; the exit code becomes `code`."""
        if code is not None and self._code == DONE:
            self._code = code
        if self._stopping_since is not None:
            return
        self._stopping_since = time.monotonic()
        self._signal(signal.SIGTERM)
        for worker in self.workers:
            worker.state = "ended" if worker.process is None else "stopping"

    def _signal(self, number: int) -> None:
        for worker in self.workers:
            if worker.process is not None:
                worker.process.send_signal(number)

    def _start_those_due(self) -> None:
        for worker in self.workers:
            if worker.state == "waiting" and worker.due <= time.monotonic() and self._stopping_since is None:
                self._start(worker)

    def _start(self, worker: Worker) -> None:
        ours, theirs = socket.socketpair()
        piped = None if self._output is None else subprocess.PIPE
        with theirs:
            worker.process = subprocess.Popen(
                list(self._command(worker.number)),
                stdin=subprocess.DEVNULL,
                stdout=piped,
                stderr=None if piped is None else subprocess.STDOUT,
                pass_fds=(theirs.fileno(), *self._inherited),
                env={**os.environ, **self._variables(worker.number), VARIABLE: str(theirs.fileno())},
                process_group=0,  # Ctrl-C is for the supervisor, which passes it on once
            )
        worker.line = Line(ours)
        worker.state, worker.starts, worker.status = "starting", worker.starts + 1, {}
        self._selector.register(ours, selectors.EVENT_READ, (worker, "line"))
        if worker.process.stdout is not None:
            os.set_blocking(worker.process.stdout.fileno(), False)
            self._selector.register(worker.process.stdout, selectors.EVENT_READ, (worker, "output"))
        self._log.info("worker started", started=worker.name, pid=worker.process.pid, starts=worker.starts)

    def _listen(self) -> None:
        for key, _ in self._selector.select(TURN_S):
            worker, what = key.data
            if what == "line":
                self._read_line(worker)
            else:
                self._read_output(worker)

    def _read_line(self, worker: Worker) -> bool:
        """Takes the messages that have come; False: none did."""
        if worker.line is None:
            return False
        messages = worker.line.read()
        for message in messages or ():
            if "result" in message:
                worker.result = message["result"]
            else:
                worker.status = message
                worker.state = "running" if worker.state == "starting" else worker.state
        if messages is None:
            self._selector.unregister(worker.line.end)
            worker.line.end.close()
            worker.line = None
        return bool(messages)

    def _read_output(self, worker: Worker) -> None:
        stream = worker.process.stdout if worker.process is not None else None
        if stream is None or self._output is None:
            return
        lines = stream.read()
        if lines:
            self._output(lines)
        elif lines == b"":
            self._selector.unregister(stream)
            stream.close()

    def _reap(self) -> None:
        for worker in self.workers:
            if worker.process is None or worker.process.poll() is None:
                continue
            while self._read_line(worker):
                pass
            code = self._leave(worker)
            if self._stopping_since is not None:
                worker.state = "ended"
            elif code in (WRONG_CONFIGURATION, WRONG_USAGE):
                self._log.error(f"configuration is wrong; {self._what} stops", died=worker.name)
                worker.state = "ended"
                self._stop(WRONG_CONFIGURATION)
            elif code == DONE and self._policy.ends:
                worker.state = "ended"
            else:
                self._died(worker, code)

    def _leave(self, worker: Worker) -> int:
        """What is left of a process that has ended is read and closed; its exit code, that of a signal negative."""
        assert worker.process is not None
        stream = worker.process.stdout
        if stream is not None and not stream.closed:
            with contextlib.suppress(ValueError, OSError):
                rest = stream.read()
                if rest and self._output is not None:
                    self._output(rest)
            with contextlib.suppress(KeyError):
                self._selector.unregister(stream)
            stream.close()
        if worker.line is not None:
            self._selector.unregister(worker.line.end)
            worker.line.end.close()
            worker.line = None
        code = worker.process.returncode
        worker.process = None
        return code

    def _died(self, worker: Worker, code: int) -> None:
        now = time.monotonic()
        worker.deaths.append(now)
        while worker.deaths[0] < now - self._policy.window_s:
            worker.deaths.popleft()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if len(worker.deaths) > self._policy.restarts:
            self._log.error(
                f"a worker dies again and again; {self._what} stops",
                died=worker.name,
                how=how,
                deaths=len(worker.deaths),
                within_s=self._policy.window_s,
            )
            worker.state = "ended"
            self._stop(GAVE_UP)
            return
        longest = min(self._policy.longest_s, self._policy.first_s * 2 ** (len(worker.deaths) - 1))
        wait_s = longest * self._random.uniform(0.5, 1.0)
        worker.state, worker.due = "waiting", now + wait_s
        self._log.warning("worker died; it is started again", died=worker.name, how=how, after_s=round(wait_s, 2))

    def _kill_the_slow(self) -> None:
        since = self._stopping_since
        if since is None or time.monotonic() - since < self._policy.stop_within_s:
            return
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is None:
                self._log.error("worker did not stop in time and is killed", killed=worker.name)
                worker.process.kill()
                worker.process.wait()
                self._code = self._code or FAILED

    def _kill_all(self) -> None:
        """After an error of the supervisor itself nothing stays behind."""
        for worker in self.workers:
            if worker.process is not None:
                worker.process.kill()
                worker.process.wait()
                self._leave(worker)
