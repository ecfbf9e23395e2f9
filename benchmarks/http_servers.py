"""The servers that server.py compares, each a process on a port of its own until a `with` statement ends."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import free_port

from benchmarks.served_rows import FEAST, ROOT
from benchmarks.served_views import PROJECT

VIEWS = ROOT / "benchmarks" / "served_views.py"


@dataclass(frozen=True)
class Program:
    """A server that is not started yet.

    Attributes:
        ready: the path that answers 200 once it can be asked.
    """

    name: str
    port: int
    command: list[str]
    ready: str


def headrace(url: str, workers: int) -> Program:
    """`headrace serve` with its defaults."""
    port = free_port()
    command = [sys.executable, "-m", "headrace", "serve", str(VIEWS), "--online", url, "--project", PROJECT]
    more = ["--port", str(port), "--workers", str(workers)]
    return Program(f"headrace {workers}", port, [*command, *more], "/readyz")


def feast(repository: Path, workers: int) -> Program:
    """`feast serve` with its defaults: a worker is replaced after every thousand requests or so."""
    port = free_port()
    more = [] if workers == 1 else ["--workers", str(workers)]
    command = [str(FEAST / "feast"), "-c", str(repository), "serve", "-p", str(port)]
    return Program(f"feast {workers}", port, [*command, *more], "/health")


def constant(workers: int) -> Program:
    """The HTTP stack of `headrace serve`, which answers as many bytes as its path says."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.constant_answer", str(port), str(workers)]
    return Program(f"limit {workers}", port, command, "/2")


@contextmanager
def running(program: Program, folder: Path, timeout_s: float = 60.0) -> Iterator[Program]:
    """Starts it, and kills it with all its processes at the end.

    Args:
        folder: for its log.

    Raises:
        SystemExit: it ended, or was not ready in time; with the end of its log.
    """
    log = folder / f"{program.name}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(program.command, stdout=file, stderr=file, cwd=ROOT, start_new_session=True)
    try:
        until = time.monotonic() + timeout_s
        while not _answers(program.port, program.ready):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"server: {program.name} was not ready. Its log ends:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield program
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
