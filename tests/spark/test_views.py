"""Feature views on Spark: the oracle's rows, those of a worker to the last byte, and nothing lost when it is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from headrace.flows.recording import LOG
from tests.live.definitions import LiveSource
from tests.live.flow import LiveFlow, Worker
from tests.live.load import Sink, send
from tests.live.outcome import check_dead, check_offline, check_online, check_verified, outcome_of
from tests.live.streams import Message, Topic
from tests.live.test_equality import SECOND, STREAMS, traffic_of, views_on
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka

pytestmark = pytest.mark.timeout(480)  # beside others a JVM and its Python processes take their time

SPARK = {"HEADRACE_SPARK_MASTER": "local[2]", "HEADRACE_SPARK_EVERY": "0.2"}
PATIENT_S = 220.0
KEYS = [("who",), ("where_from",), ("who", "where_from")]


def stored(address: RedisAddress, project: str) -> dict[bytes, dict[bytes, bytes]]:
    """Every row of a project, by its key without the project."""
    with redis.Redis.from_url(address.url) as client:
        rows = [key for key in client.scan_iter() if key.endswith(project.encode())]
        return {key.removesuffix(project.encode()): client.hgetall(key) for key in rows}


def test_a_replayed_topic_is_as_workers_leave_it(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> None:
    """Views keyed like the topic and views that are not, over events that repeat, come late, or are none."""
    stream = STREAMS["repeated"]
    topic = Topic(kafka.new_topic(partitions=3, name="rides"), 3, ("who",))
    source = LiveSource([topic], views_on(21, KEYS, stream), stream)
    messages = (traffic := traffic_of(source, 21, skew=SECOND)).take(400) + traffic.end(30 * SECOND)
    send(kafka.bootstrap, messages)
    seen, rows = [], []
    for engine in ("workers", "spark"):
        project = f"{topic.name}-{engine}"
        options: dict[str, Any] = {"clock": "stream", "until_end": True, "online": redis_server.url, "project": project}
        with LiveFlow(
            tmp_path / engine, kafka.bootstrap, [source], name=project, engine=engine, environment=SPARK, **options
        ) as flow:
            flow.start()
            flow.ended(PATIENT_S)
            check_dead(flow, messages)
            check_offline(flow, messages)
            check_online(flow, messages)
            if engine == "spark":
                check_verified(flow, tmp_path / "verified")
            seen.append(outcome_of(flow))
            rows.append(stored(redis_server, project))
    worker, spark = seen
    assert worker.dead == spark.dead
    for name, log in worker.log.items():
        assert sorted(log, key=repr) == sorted(spark.log[name], key=repr)
    assert rows[0] == rows[1]
    assert len(rows[0]) > 20
    # What is between tasks lies in topics of the one and in checkpoints of the other: neither goes on from there.
    for engine, other in (("workers", "spark"), ("spark", "workers")):
        name = f"{topic.name}-{engine}"
        with LiveFlow(
            tmp_path / engine, kafka.bootstrap, [source], name=name, engine=other, environment=SPARK, until_end=True
        ) as flow:
            (worker_,) = flow.start()
            assert worker_.process.wait(PATIENT_S) != 0
            assert f"Go on with --engine {engine}" in worker_.said()


def python_workers(driver: Worker) -> list[int]:
    """Those that compute, below the driver's JVM and the process that forks them."""
    below, found = [driver.process.pid], []
    for parent in below:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):
                below += map(int, task.read_text().split())
    for pid in below:
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"pyspark.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes() and not any(
                Path(f"/proc/{pid}/task").glob("*/children")
            ):
                found.append(pid)
    return found


@pytest.mark.skipif("SPARK_KILLS" not in os.environ, reason="minutes beside other tests: SPARK_KILLS=20 runs it")
def test_killed_at_any_moment(kafka: Kafka, tmp_path: Path) -> None:
    """The driver is killed with all below it, and Python workers alone, while events come in."""
    stream = STREAMS["plain"]
    topic = Topic(kafka.new_topic(partitions=2, name="rides"), 2)
    source = LiveSource([topic], views_on(22, KEYS[:2], stream), stream)
    traffic = traffic_of(source, 22)
    draw = random.Random(int(os.environ.get("SPARK_SEED", "3")))
    kills = int(os.environ["SPARK_KILLS"])
    messages: list[Message] = []
    sink = Sink(kafka.bootstrap)

    def put(some: list[Message]) -> None:
        messages.extend(some)
        sink.put(some)
        sink.flush()

    def commits() -> set[str]:
        return {path.name for path in (flow.data / LOG / "_headrace" / "commits").glob("*.json")}

    with LiveFlow(
        tmp_path / "flow", kafka.bootstrap, [source], clock="stream", engine="spark", environment=SPARK
    ) as flow:
        (driver,) = flow.start()
        for number in range(kills):
            before = commits()
            put(traffic.take(100))
            flow.until(lambda was=before: commits() - was, "another checkpoint", PATIENT_S)  # type: ignore[misc]
            time.sleep(draw.random() * 0.5)  # some are killed in a turn, some between two
            if number % 3 == 1:
                for pid in python_workers(driver)[: draw.randint(1, 2)]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            else:
                driver.kill()
                (driver,) = flow.start()
        put(traffic.end(30 * SECOND))
        driver.kill()
        flow.until_end = True
        (driver,) = flow.start()
        driver.ended(PATIENT_S)
        check_dead(flow, messages)
        check_offline(flow, messages)
        check_online(flow, messages)
