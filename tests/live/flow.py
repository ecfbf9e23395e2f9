"""A flow as processes: its workers are started, stopped, killed and stalled one by one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from tests.live.definitions import LiveSource, write

ROOT = Path(__file__).parents[2]
BOUND = ROOT / "tests" / "live" / "bound.py"
PAGE = os.sysconf("SC_PAGE_SIZE")

LIMIT_S = 120.0  # for whatever a test waits for: many times what it takes on a busy machine

# A worker that dies is missed after this long; a broker of the tests allows half a second and more.
QUICK = {"session.timeout.ms": "1500", "heartbeat.interval.ms": "300", "topic.metadata.refresh.interval.ms": "2000"}


class Worker:
    """One process of a flow.

    Attributes:
        name: its worker id. log: file of what it printed.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], group: int | None = None
    ) -> None:
        """group: its process group, 0: one of its own; None: that of the tests."""
        self.name = name
        self.log = log
        self._good = {0}
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=dict(environment),
                cwd=log.parent,
                process_group=group,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def memory(self) -> int:
        """Resident memory, bytes; 0 once it has ended."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return 0

    def children(self) -> list[int]:
        """Pids of the processes that it has started."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                # "pid (name) state parent ...", and the name may have blanks
                parent = int(status.read_text().rpartition(")")[2].split()[1])
                found += [int(status.parent.name)] if parent == self.process.pid else []
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _threads(self) -> str:
        """Has the process print where its Python threads stand; returns what its threads wait for in the kernel."""
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(1.0)
        tasks = sorted(Path(f"/proc/{self.process.pid}/task").glob("*"))
        return "\n".join(f"{(at / 'comm').read_text().strip()}: {(at / 'syscall').read_text().strip()}" for at in tasks)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def ask(self, number: signal.Signals = signal.SIGTERM) -> None:
        """A signal to drain, commit and leave. A worker that has just been started is let come up first: it listens by
        when it says that the flow starts."""
        end = time.monotonic() + LIMIT_S
        while "flow starts" not in self.said() and self.running:
            assert time.monotonic() < end, f"Worker {self.name} did not come up within {LIMIT_S} s:\n{self.said()}"
            time.sleep(0.02)
        if number == signal.SIGINT:
            self._good |= {130}  # as shells have it
        self.process.send_signal(number)

    def stop(self, timeout_s: float = LIMIT_S) -> None:
        """Ask it to end, and wait."""
        self.ask()
        self.ended(timeout_s)

    def ended(self, timeout_s: float = LIMIT_S) -> None:
        """Wait for its end, which must be a good one."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            where = self._threads()
            self.kill()
            raise AssertionError(
                f"Worker {self.name} did not end within {timeout_s} s:\n{self.said()[-8000:]}\n{where}"
            ) from None
        assert code in self._good, f"Worker {self.name} ended with code {code}:\n{self.said()[-4000:]}"


def _section(section: tuple[str, Mapping[str, Any]]) -> str:
    name, values = section
    return f"[{name}]\n" + "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in values.items())


class LiveFlow:
    """A flow on Kafka with its data folder and workers. As a context it kills what still runs at the end.

    Args:
        folder: for the file of views, headrace.toml, the data and the logs. bootstrap: address of Kafka. online: URL
            of the online store, embedded by default. shared: URL of the data where it is not in the folder; `fetch`
            brings it there. kafka: settings of its clients. until_end: stop where the topics end. settings: more of
            [flow].
    """

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        sources: Sequence[LiveSource],
        *,
        name: str = "",
        environment: Mapping[str, str] | None = None,
        online: str | None = None,
        project: str = "headrace",
        data: Path | None = None,
        shared: str | None = None,
        kafka: Mapping[str, str] | None = None,
        until_end: bool = False,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.bootstrap = bootstrap
        self.sources = list(sources)
        self.file = write(folder / "views.py", sources, bootstrap)
        self.data = data or folder / "data"
        self.name = name or f"f-{self.sources[0].topics[0].name}"
        self.online, self.project, self.until_end = online, project, until_end
        told = {"name": self.name, "checkpoint_every": "300ms", **settings}
        where = {"project": project, **({} if online is None else {"url": online})}
        sections = {
            "flow": told,
            "online": where,
            "offline": {"data": shared or str(self.data)},
            "kafka": {**QUICK, **(kafka or {})},
        }
        self._shared = shared
        (folder / "headrace.toml").write_text("".join(map(_section, sections.items())))
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
            "TZ": "UTC",
            **(environment or {}),
        }
        self.workers: list[Worker] = []
        self._made = 0

    def __enter__(self) -> LiveFlow:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.running:
                worker.resume()
                worker.kill()

    def fetch(self) -> None:
        """Copy the data from where all workers share it, for the checks."""
        assert self._shared is not None
        shutil.rmtree(self.data, ignore_errors=True)
        fs, path = fsspec.url_to_fs(self._shared)
        fs.invalidate_cache()
        fs.get(path, str(self.data), recursive=True)

    def start(
        self, count: int = 1, *, name: str | None = None, supervised: int = 0, host: Path | None = None
    ) -> list[Worker]:
        """That many workers more, each a `headrace run` of its own.

        supervised: one that runs so many itself. host: a folder that is all that they have on disk, as on a machine of
        their own.
        """
        started = []
        folder, environment = self.folder, self.environment
        if host is not None:
            folder = host
            folder.mkdir(exist_ok=True)
            for file in (self.file, self.folder / "headrace.toml"):
                shutil.copy(file, folder)
            environment = {**environment, "HOME": str(folder), "TMPDIR": str(folder)}
        for _ in range(count):
            self._made += 1
            worker = name or f"w{self._made}"
            command = [sys.executable, "-I", "-S", str(BOUND), str(os.getpid()), sys.executable, "-m"]
            command += ["tests.live.worker", "run", str(folder / self.file.name), "--quiet", "--worker-id", worker]
            command += ["--until-end"] * self.until_end
            command += ["--workers", str(supervised)] if supervised else []
            log = folder / f"worker-{self._made}.log"
            group = None if host is None else (started[0].process.pid if started else 0)
            started.append(Worker(worker, command, log, environment, group))
        self.workers += started
        return started

    def running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.running]

    def stop(self) -> None:
        """Stop all workers in good order, all at once."""
        some = self.running()
        for worker in some:
            worker.ask()
        for worker in some:
            worker.ended()

    def ended(self, timeout_s: float = LIMIT_S) -> None:
        """Wait until all workers have ended by themselves, as `until_end` makes them."""
        until = time.monotonic() + timeout_s
        for worker in self.workers:
            worker.ended(max(1.0, until - time.monotonic()))

    def until(
        self,
        true: Callable[[], bool],
        what: str,
        timeout_s: float = LIMIT_S,
        why: Callable[[], str] = lambda: "",
    ) -> None:
        """Wait for it, as long as no worker fails; `why` says what is missing when it takes too long."""
        end = time.monotonic() + timeout_s
        while not true():
            for worker in self.workers:
                code = worker.process.poll()
                assert code in (None, 0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), (
                    f"Worker {worker.name} failed:\n{worker.said()[-4000:]}"
                )
            if time.monotonic() > end:
                told = "\n".join(f"{worker.name}: {worker.said()[-1500:]}" for worker in self.running())
                raise AssertionError(f"Not within {timeout_s} s: {what}. {why()}\nThe workers said:\n{told}")
            time.sleep(0.05)
