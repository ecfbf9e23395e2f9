"""A fleet on several machines: what they share is Kafka, Redis and an object store, and a lost one loses nothing.

A machine is a folder of its own here, with all that its processes have on disk, and dies with them.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.live.definitions import LiveSource
from tests.live.flow import LiveFlow
from tests.live.load import Sink
from tests.live.outcome import check_dead, check_offline, check_online
from tests.live.streams import Message, Topic
from tests.live.test_equality import SECOND, STREAMS, traffic_of, views_on
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka
from tests.servers.s3 import s3

__all__ = ["s3"]


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.skipif("LIVE_HOSTS" not in os.environ, reason="minutes beside other tests: LIVE_HOSTS=1 runs it")
def test_a_host_is_lost_and_the_fleet_grows_and_shrinks(
    kafka: Kafka, redis_server: RedisAddress, s3: str, tmp_path: Path
) -> None:
    """One worker, then four on two hosts, one of which is lost with its disk, and at last one again: the oracle's rows.

    Events come all the while.
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
    where = {"shared": f"{s3}/{topic.name}", "kafka": calm}
    with LiveFlow(tmp_path / "flow", kafka.bootstrap, [source], **where, **options) as flow:
        hosts = [tmp_path / "one", tmp_path / "two"]
        flow.start(1, host=hosts[0])
        put(traffic.take(150))
        lost = flow.start(3, host=hosts[1])
        flow.until(lambda: sum("assigned" in worker.said() for worker in flow.workers) > 2, "partitions on both hosts")
        for _ in range(4):
            put(traffic.take(60))
            time.sleep(0.5)  # some of it is taken, some is on its way
        for worker in lost:
            worker.kill()
        shutil.rmtree(hosts[1])
        put(traffic.take(150))
        put(traffic.end(30 * SECOND))
        sink.flush()
        flow.until_end = True
        flow.start(1, host=tmp_path / "three")[0].ended(240.0)
        flow.stop()
        flow.fetch()
        check_dead(flow, messages)
        check_online(flow, messages)
        check_offline(flow, messages, tail=False)
