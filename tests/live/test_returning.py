"""A partition that was paused when it left is read when it comes back: the client goes on holding what was paused."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource
from headrace.flows.worker.reader import Reader
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from tests.live.flow import LIMIT_S
from tests.servers.kafka import Kafka


class Ride(Event):
    driver: str
    at: EventTime


@pytest.mark.parametrize("leaves", ["lost", "revoked"])
def test_a_paused_partition_leaves_and_returns(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    topic = kafka.new_topic(2, "rides")
    source = KafkaSource(topic, Ride, keyed_by="driver", name="rides", bootstrap_servers=kafka.bootstrap)

    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver")):
        rides = Ride.count(last="30m")

    for partition in (0, 1):
        rows = [{"driver": f"d{partition}", "at": f"2026-01-01T00:00:{i:02d}Z"} for i in range(30)]
        kafka.produce(topic, rows, partition=partition)
    turn, there_and_back = Reader.turn, []

    def once_there_and_back(self: Reader, clock_us: int | None) -> None:
        at = (topic, 0)
        if at in self.tasks and not there_and_back:
            there_and_back.append(at)
            partition = TopicPartition(*at)
            self.consumer.pause([partition])  # as for backpressure, or when another process had taken the task
            (self.tenancy.lost if leaves == "lost" else self._revoked)(self.consumer, [partition])
            assert at not in self.tasks
            self.tenancy.assigned(self.consumer, [partition])
        turn(self, clock_us)

    monkeypatch.setattr(Reader, "turn", once_there_and_back)
    stop = threading.Event()
    limit = threading.Timer(LIMIT_S, stop.set)
    limit.daemon = True  # pytest must not wait for it where the flow fails
    limit.start()
    settings = FlowSettings(name=topic, data=str(tmp_path), clock="stream", until_end=True)
    summary = run_worker([Drivers], settings, stop=stop)
    limit.cancel()
    limit.join()
    assert there_and_back
    assert not stop.is_set(), f"The flow took {summary.taken} of 60 events and then no more."
