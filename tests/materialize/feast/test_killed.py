"""A materialization is killed by kill -9 at several points: every row that is there is whole, and the next run leaves
what an uninterrupted one leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import yaml
from tests.materialize.feast.engine_repo import OURS, Repo, at, hashes, trips_view
from tests.servers.fixtures import RedisAddress

ROOT = Path(__file__).parents[3]
ROWS, DRIVERS = 45_000, 30_000


class Runs:
    """Materializes a repository in processes of their own."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.materialize.feast.killed_run", str(folder)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "src"},
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return int(self._line())

    def ended(self) -> int:
        """Exit code of the run; -9 when it was killed."""
        return int(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture
def runs(tmp_path: Path, redis_server: RedisAddress) -> Iterator[Runs]:
    choose = random.Random(5)
    drivers = [choose.randrange(DRIVERS) for _ in range(ROWS)]
    times = [at(choose.uniform(-3000, 3000)) for _ in range(ROWS)]
    table = pa.table({"driver_id": drivers, "event_timestamp": times, "trips": list(range(ROWS))})
    pq.write_table(table, tmp_path / "rides.parquet", row_group_size=10_000)
    Repo(tmp_path, redis_server, trips_view(tmp_path / "rides.parquet"))
    config = {
        "project": "p",
        "provider": "local",
        "registry": {"path": str(tmp_path / "registry.db")},
        "online_store": {
            "type": "redis",
            "connection_string": f"127.0.0.1:{redis_server.port},db={redis_server.url.rpartition('/')[2]}",
        },
        "offline_store": {"type": "file"},
        "batch_engine": {"type": OURS},
        "entity_key_serialization_version": 3,
    }
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    made = Runs(tmp_path)
    yield made
    made.close()


def killed_at(runs: Runs, client: redis.Redis, keys: int) -> int:
    """How many keys there are after a run that was killed once so many were; it is begun again when it was faster."""
    for _ in range(10):
        client.flushdb()
        run = runs.start()
        with suppress(ProcessLookupError):  # it has ended
            while client.dbsize() < keys:
                os.kill(run, 0)
            os.kill(run, signal.SIGKILL)
        if runs.ended() == -signal.SIGKILL and client.dbsize() < DRIVERS // 2:
            return int(client.dbsize())
    raise AssertionError("every run was done before it was killed")


def test_a_run_that_is_killed_is_made_good_by_the_next(runs: Runs, redis_server: RedisAddress) -> None:
    with redis_server.client() as client:
        runs.start()
        assert runs.ended() == 0
        whole = hashes(redis_server)
        assert len(whole) > DRIVERS // 2
        for keys in (1, 400, 4000):
            assert killed_at(runs, client, keys) >= keys
            assert hashes(redis_server).items() <= whole.items(), "a row that is not whole"
            runs.start()
            assert runs.ended() == 0
            assert hashes(redis_server) == whole
