"""`headrace serve` as a process of its own, and what it takes of the machine."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import ServerProcess, free_port
from tests.serving.live.talking import get

VIEWS = Path(__file__).with_name("views.py")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Of all processes of the server together.

    Attributes:
        rss: resident memory, bytes. files: open file descriptors. processes: how many.
    """

    rss: int
    files: int
    processes: int


class LookupServer(ServerProcess):
    """`headrace serve` on a port of its own.

    Args:
        folder: where its log is. online: URL of the store. workers: processes. settings: of [serve], as variables of
            the environment without HEADRACE_SERVE_. views: the views file.
    """

    def __init__(
        self,
        folder: Path,
        online: str,
        *,
        workers: int = 1,
        settings: Mapping[str, str] | None = None,
        views: Path = VIEWS,
    ) -> None:
        super().__init__("headrace serve", folder)
        self.port = free_port()
        self._settings = {f"HEADRACE_SERVE_{name.upper()}": value for name, value in (settings or {}).items()}
        options = ["--online", online, "--port", str(self.port), "--workers", str(workers)]
        self._command = [sys.executable, "-m", "headrace", "serve", str(views), *options]

    def start(self, timeout_s: float = 60) -> None:
        """Start, and wait until it says that it is ready."""
        given = [f"{name}={value}" for name, value in self._settings.items()]
        self.launch(["/usr/bin/env", *given, *self._command], lambda: self.ready, timeout_s)

    @property
    def ready(self) -> bool:
        return get(self.port, "/readyz")[0] == 200

    async def says(self, *, ready: bool, timeout_s: float = 30.0) -> None:
        """Wait until `/readyz` says yes, or no."""
        async with asyncio.timeout(timeout_s):
            while (await asyncio.to_thread(get, self.port, "/readyz"))[0] != (200 if ready else 503):
                await asyncio.sleep(0.02)

    def pids(self) -> list[int]:
        """The process and all below it."""
        found, waiting = [], [self.pid]
        while waiting:
            found.append(waiting.pop())
            waiting += children(found[-1])
        return found

    def workers(self) -> list[int]:
        """The processes that answer: children of the first, or itself when it has none."""
        return children(self.pid) or [self.pid]

    def usage(self) -> Usage:
        """Now; a process that ends meanwhile counts for nothing."""
        rss = files = count = 0
        for pid in self.pids():
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                open_files = len(os.listdir(f"/proc/{pid}/fd"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            rss, files, count = rss + pages * PAGE, files + open_files, count + 1
        return Usage(rss, files, count)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(each) for each in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
