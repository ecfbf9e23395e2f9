"""A fleet on several machines: what they share is Kafka, Redis and an object store, and a lost one loses nothing.

A machine is a folder of its own here, with all that its processes have on disk, and dies with them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from headrace.stores.offline import OfflineLog
from tests.live.definitions import LiveSource
from tests.live.flow import LiveFlow, Worker
from tests.live.load import Sink
from tests.live.outcome import check_dead, check_offline, check_online
from tests.live.streams import Message, Topic
from tests.live.test_equality import SECOND, STREAMS, traffic_of, views_on
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka
from tests.servers.s3 import s3

__all__ = ["s3"]


def held(workers: Sequence[Worker]) -> set[str]:
    """The parts of the log that these workers have been given."""
    said = [json.loads(line) for worker in workers for line in worker.said().splitlines() if line.startswith("{")]
    return {each["part"] for each in said if each.get("event") == "task assigned"}


def committed(shared: str) -> set[str]:
    """The parts that have a checkpoint with events in it."""
    parts = OfflineLog(f"{shared}/log").manifest().parts
    return {name for name, part in parts.items() if any(any(its.values()) for its in part.offsets.values())}


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_host_is_lost_and_the_fleet_grows_and_shrinks(
    kafka: Kafka, redis_server: RedisAddress, s3: str, tmp_path: Path
) -> None:
    """One worker, then four on two hosts, one of which is lost with its disk; then three, of which two are asked to
    leave, and at last one again: the oracle's rows. Events come all the while.
    """
    stream = STREAMS["plain"]
    topic = Topic(kafka.new_topic(partitions=4, name="rides"), 4)
    source = LiveSource([topic], views_on(31, [("who",), ("where_from",)], stream), stream)
    traffic = traffic_of(source, 31, people=40)
    sink = Sink(kafka.bootstrap)
    messages: list[Message] = []

    def put(some: list[Message]) -> None:
        messages.extend(some)
        sink.put(some)

    options = {"clock": "stream", "online": redis_server.url, "project": topic.name, "batch_size": 20}
    # Opening a task asks the object store many times, and the one of the tests is slow: nobody is taken for dead by it.
    calm = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}
    shared = f"{s3}/{topic.name}"
    with LiveFlow(
        tmp_path / "flow", kafka.bootstrap, [source], shared=shared, kafka=calm, name=topic.name, **options
    ) as flow:
        hosts = [tmp_path / name for name in ("one", "two", "three")]
        flow.start(1, host=hosts[0])
        put(traffic.take(150))
        flow.until(lambda: bool(committed(shared)), "a checkpoint of one worker")
        lost = flow.start(3, host=hosts[1])
        flow.until(lambda: len(held(lost)) > 2, "tasks on the second host")
        before = committed(shared)
        for _ in range(4):
            put(traffic.take(60))
            time.sleep(0.5)  # some of it is taken, some is on its way
        theirs = held(lost)
        flow.until(lambda: bool(committed(shared) & theirs), f"a checkpoint of {theirs}, after {before}")
        put(traffic.take(60))
        os.killpg(lost[0].process.pid, signal.SIGKILL)
        shutil.rmtree(hosts[1])
        for worker in lost:
            worker.process.wait()
        put(traffic.take(100))
        more = flow.start(2, host=hosts[2])
        flow.until(lambda: bool(held(more)), "tasks on the third host")
        put(traffic.take(100))
        for worker in more:
            worker.stop()
        put(traffic.take(50))
        put(traffic.end(30 * SECOND))
        sink.flush()
        flow.stop()
        flow.until_end = True
        flow.start(1, host=tmp_path / "four")[0].ended(240.0)
        flow.fetch()
        check_dead(flow, messages)
        check_online(flow, messages)
        check_offline(flow, messages)
