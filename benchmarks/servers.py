"""Kafka and Redis of a benchmark: those of the tests, on fresh ports and folders, the broker with a JVM at its best.

Where they are not installed the benchmark says so and is left out; with CI=true that is a failure.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.install import missing_kafka, missing_redis
from tests.servers.kafka import KafkaServer
from tests.servers.redis import RedisServer

JVM = ("-Xmx1g", "-Xms1g", "-XX:+UseSerialGC")


@dataclass(frozen=True)
class Servers:
    """Where they are. folder: for data of the benchmark; gone after it."""

    bootstrap: str
    redis_url: str
    folder: Path


@contextmanager
def servers() -> Iterator[Servers]:
    """A broker and a Redis for the time of a `with` statement.

    Raises:
        SystemExit: one cannot be had; code 1 with CI=true, else 0.
    """
    trouble = missing_kafka() or missing_redis()
    if trouble is not None:
        print(f"Left out, because it needs real servers. {trouble}", file=sys.stderr)
        sys.exit(1 if os.environ.get("CI") else 0)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        kafka, redis = KafkaServer(folder / "kafka", jvm=JVM), RedisServer(folder / "redis")
        try:
            kafka.start()
            redis.start()
            yield Servers(kafka.bootstrap, redis.url, folder)
        finally:
            kafka.kill()
            redis.kill()
