"""A worker that fails leaves its group at once, so that others need not wait for its session to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource
from headrace.flows.worker.reading import SourceReader
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from tests.servers.kafka import Kafka


class Ride(Event):
    driver: str
    at: EventTime


def test_a_worker_that_fails_leaves_its_group(kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = kafka.new_topic(1, "rides")
    source = KafkaSource(topic, Ride, keyed_by="driver", name="rides", bootstrap_servers=kafka.bootstrap)

    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver")):
        rides = Ride.count(last="30m")

    kafka.produce(topic, [{"driver": "7", "at": "2026-01-01T00:00:00Z"}])
    settings = FlowSettings(name=topic, data=str(tmp_path), clock="stream", until_end=True)
    group = f"{settings.consumer_group}.rides"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def members() -> int:
        return len(admin.describe_consumer_groups([group])[group].result().members)

    seen: list[int] = []

    def fails(*_: Any) -> None:
        seen.append(members())
        raise RuntimeError("a defect")

    monkeypatch.setattr(SourceReader, "handle", fails)
    with pytest.raises(RuntimeError, match="a defect"):
        run_worker([Drivers], settings)
    assert seen == [1]
    assert members() == 0
