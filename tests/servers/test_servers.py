"""The servers of the tests themselves: started, broken, started again, and gone with the run that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka, KafkaServer
from tests.servers.process import listening
from tests.servers.redis import RedisServer


def test_what_is_produced_is_there(kafka: Kafka) -> None:
    topic = kafka.new_topic(partitions=3)
    placed = kafka.produce(topic, [{"n": n, "who": f"e{n}"} for n in range(50)], key="who")
    assert sorted(kafka.ends(topic)) == [0, 1, 2]
    assert sum(kafka.ends(topic).values()) == 50
    found = {(message.partition(), message.offset()): message.value() for message in kafka.consume(topic)}
    assert found[placed[7]] == b'{"n": 7, "who": "e7"}'


def test_a_database_is_empty_at_first(redis_server: RedisAddress) -> None:
    with redis_server.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_a_database_is_empty_at_first_again(redis_server: RedisAddress) -> None:
    with redis_server.client() as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize("persist", [True, False])
def test_a_private_redis_is_restarted(new_redis: Callable[..., RedisServer], persist: bool) -> None:
    server = new_redis(persist=persist)
    with server.client() as client:
        client.set("a", "b")
    server.restart()
    with server.client() as client:
        assert client.get("a") == (b"b" if persist else None)
    server.restart(empty=True)
    with server.client() as client:
        assert client.get("a") is None


def test_a_private_redis_is_stalled(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    server.pause()
    with redis.Redis(port=server.port, socket_timeout=0.2, retry=None) as client:  # type: ignore[arg-type]
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert client.ping()


@pytest.mark.slow
def test_a_private_kafka_is_restarted(new_kafka: Callable[..., KafkaServer]) -> None:
    server = new_kafka()
    seen = Kafka(server.bootstrap)
    topic = seen.new_topic(partitions=1)
    seen.produce(topic, ["before"])
    server.restart(kill=True)
    seen.produce(topic, ["after"])
    assert [message.value() for message in seen.consume(topic)] == [b"before", b"after"]


def test_servers_end_with_who_started_them(tmp_path: Path, redis_port: int) -> None:
    """Also when that one is killed."""
    program = f"""
import pathlib, sys, time
from tests.servers.redis import RedisServer
server = RedisServer(pathlib.Path({str(tmp_path)!r}))
server.start()
print(server.port, server.pid, flush=True)
time.sleep(60)
"""
    root = Path(__file__).parents[2]
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root)
    assert starter.stdout is not None
    with starter, starter.stdout:
        port, pid = map(int, starter.stdout.readline().split())
        assert listening(port)
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    until = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
