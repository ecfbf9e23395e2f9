"""A Redis server of the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import redis

from tests.servers.process import ServerProcess, free_port, listening


class RedisServer(ServerProcess):
    """Debian's redis-server on a port of its own.

    Args:
        folder: for its data. persist: whether a restart finds what was written (append-only file, every write synced);
            without it a restart is empty. options: as on redis-server's command line, such as ("--requirepass", "x").
    """

    def __init__(
        self, folder: Path, *, persist: bool = False, options: tuple[str, ...] = (), watched: int | None = None
    ) -> None:
        super().__init__("redis-server", folder, watched)
        self.port = free_port()
        self.persist = persist
        self.options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start on the same port and data, and wait until it listens and has loaded its data."""
        program = shutil.which("redis-server")
        assert program is not None
        kept = ("--appendonly", "yes", "--appendfsync", "always") if self.persist else ("--appendonly", "no")
        command = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(self.folder)]
        self.launch([*command, "--databases", "64", *kept, *self.options], self._ready, 20)

    def _ready(self) -> bool:
        if not listening(self.port):
            return False
        try:
            with redis.Redis(port=self.port) as client:
                return bool(client.ping())
        except redis.BusyLoadingError:
            return False
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            return True  # it answers, and asks who we are

    def restart(self, *, empty: bool = False) -> None:
        """Killed and started again; `empty`: with all data gone, also where it persists."""
        self.kill()
        if empty:
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.start()

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)
