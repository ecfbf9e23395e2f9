"""A Schema Registry that does not answer: the messages wait for it, and none is lost or becomes a dead letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.registry import UnreachableRegistryError
from headrace.flows.worker import consuming
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from tests.servers.kafka import Kafka


class Ride(Event):
    driver: str
    at: EventTime


class Told(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def trouble(self, what: str, message: str) -> None:
        self.heard.append(f"trouble: {what}")

    def recovered(self, what: str) -> None:
        self.heard.append(f"recovered: {what}")


def test_messages_wait_for_the_registry(kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = kafka.new_topic(2, "rides")
    source = KafkaSource(topic, Ride, keyed_by="driver", name="rides", bootstrap_servers=kafka.bootstrap)

    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver")):
        rides = Ride.count(last="30m")

    for i in range(60):
        row = {"driver": f"d{i % 3}", "at": f"2026-01-01T00:00:{i:02d}Z"}
        kafka.produce(topic, [row], partition=i % 3 % 2)
    decode, tried = MessageDecoder.decode, []

    def sometimes(self: MessageDecoder, messages: Any, partition: Any = None) -> Any:
        tried.append(len(messages))
        if len(tried) <= 3:
            raise UnreachableRegistryError("The registry does not answer.")
        return decode(self, messages, partition)

    monkeypatch.setattr(MessageDecoder, "decode", sometimes)
    monkeypatch.setattr(consuming, "KEEP_BACK_S", 0.05)
    told = Told()
    settings = FlowSettings(name=topic, data=str(tmp_path), clock="stream", until_end=True)
    summary = run_worker([Drivers], settings, observer=told)
    assert summary.read == {"rides": 60}
    assert summary.taken == 60
    assert not summary.dead
    assert told.heard == ["trouble: schema registry"] * 3 + ["recovered: schema registry"]
