"""One server process of the tests, under a guard."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def free_ports(count: int) -> int:
    """The first of consecutive ports of this machine that nobody uses, below those that the system gives to outgoing
    connections: one of these may go to somebody else at any moment."""
    while True:
        first = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first


def listening(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(0.5)
        return tried.connect_ex(("127.0.0.1", port)) == 0


class ServerProcess:
    """A server that can be started, stopped, killed, paused and started again; ended when process `watched` ends.

    Attributes:
        name: for messages. folder: where its data and its log `server.log` are. watched: pid, by default our own.
    """

    def __init__(self, name: str, folder: Path, watched: int | None = None) -> None:
        self.name = name
        self.folder = folder
        self.watched = watched or os.getpid()
        self._guard: subprocess.Popen[bytes] | None = None

    def launch(self, command: Sequence[str], ready: Callable[[], bool], timeout_s: float) -> None:
        """Start the command and wait until it is ready.

        Raises:
            RuntimeError: it ended, or was not ready in time; with the end of its log.
        """
        if self.running:
            raise RuntimeError(f"{self.name} runs already, as process {self.pid}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pid_file.unlink(missing_ok=True)
        guarded = [sys.executable, "-I", "-S", str(GUARD), str(self.watched), str(self._pid_file), *command]
        with open(self.folder / "server.log", "ab") as log:
            # A session of its own: Ctrl-C in the terminal goes to pytest, and not to the servers it still needs.
            self._guard = subprocess.Popen(
                guarded, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        until = time.monotonic() + timeout_s
        while not (self._pid_file.exists() and ready()):
            code = self._guard.poll()
            if code is not None or time.monotonic() > until:
                told = f"ended with code {code}" if code is not None else f"was not ready within {timeout_s:g} s"
                self.kill()
                raise RuntimeError(f"{self.name} {told}. Its log ends:\n{self.log()[-3000:]}")
            time.sleep(0.02)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "server.pid"

    @property
    def pid(self) -> int:
        return int(self._pid_file.read_text())

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def pause(self) -> None:
        """Stall: connections stay open, and nothing is answered until `resume`."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self, timeout_s: float = 60) -> None:
        """SIGTERM, and wait for the end."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._end(signal.SIGKILL, 20)

    def _end(self, number: signal.Signals, timeout_s: float) -> None:
        if self._guard is None:
            return
        if self.running:
            if self._pid_file.exists():
                self.signal(number)
            else:  # The guard is still about to start it; it kills what it then has.
                self._guard.terminate()
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._guard.wait(20)
        self._guard = None
