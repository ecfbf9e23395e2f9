"""The fixtures of the servers. One Kafka and one Redis serve a whole run of pytest; private ones may be broken.

Where a server is not installed its tests are skipped, and fail with CI=true.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.servers.install import missing_kafka, missing_redis
from tests.servers.kafka import Kafka, KafkaServer
from tests.servers.process import ServerProcess
from tests.servers.redis import RedisServer
from tests.servers.session import once

# What reaches beyond a test's own database: the connections of others, their scripts, all data, the server itself.
OF_ALL = ("client|kill", "client|pause", "script|flush", "flushall", "swapdb", "config|set", "debug", "shutdown")


def _need(trouble: str | None) -> None:
    if trouble is None:
        return
    if os.environ.get("CI"):
        pytest.fail(trouble)
    pytest.skip(trouble)


@dataclass(frozen=True)
class RedisAddress:
    """Where a test finds an empty database of the shared Redis.

    Attributes:
        url: with the number of the database. port: of the server.
    """

    url: str
    port: int

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Addresses of the shared broker."""
    _need(missing_kafka())

    def make(folder: Path, watched: int) -> tuple[ServerProcess, dict[str, Any]]:
        server = KafkaServer(folder, watched=watched)
        server.start()
        return server, {"bootstrap": server.bootstrap, "sasl_bootstrap": server.sasl_bootstrap}

    return once(tmp_path_factory, "kafka", make)


@pytest.fixture
def kafka(kafka_address: dict[str, Any]) -> Iterator[Kafka]:
    """The shared broker; topics that the test makes are deleted after it."""
    seen = Kafka(**kafka_address)
    yield seen
    seen.clear()


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Port of the shared Redis, which refuses what would disturb the tests of other processes."""
    _need(missing_redis())

    def make(folder: Path, watched: int) -> tuple[ServerProcess, dict[str, Any]]:
        server = RedisServer(folder, watched=watched)
        server.start()
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", *(f"-{each}" for each in OF_ALL))
        return server, {"port": server.port}

    return int(once(tmp_path_factory, "redis", make)["port"])


@pytest.fixture
def redis_server(redis_port: int) -> RedisAddress:
    """An empty database of the shared Redis: one for each xdist worker, flushed before each test."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    found = RedisAddress(f"redis://127.0.0.1:{redis_port}/{1 + int(worker.removeprefix('gw'))}", redis_port)
    with found.client() as client:
        client.flushdb()
    return found


@pytest.fixture
def new_kafka(tmp_path: Path) -> Iterator[Callable[..., KafkaServer]]:
    """Makes and starts brokers that the test may stop, kill, pause and restart; `new_kafka(settings={...})`."""
    _need(missing_kafka())
    made: list[KafkaServer] = []

    def start(**options: Any) -> KafkaServer:
        made.append(KafkaServer(tmp_path / f"kafka-{len(made)}", **options))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.kill()


@pytest.fixture
def new_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts Redis servers that the test may break; `new_redis(persist=True, options=("--requirepass", "x"))`."""
    _need(missing_redis())
    made: list[RedisServer] = []

    def start(**options: Any) -> RedisServer:
        made.append(RedisServer(tmp_path / f"redis-{len(made)}", **options))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.kill()
