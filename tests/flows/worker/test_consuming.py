"""A client of a consumer group that hangs: another takes its place, and leaving does not wait for it for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from tests.servers.kafka import Kafka, KafkaServer

from headrace.flows.kafka.statistics import ClientStatistics
from headrace.flows.worker import consuming
from headrace.flows.worker.consuming import GroupConsumer
from headrace.flows.worker.observing import Silent


def told(joining: str) -> ClientStatistics:
    return ClientStatistics({}, {}, (), (), 0, 0, 0, joining)


class Clock:
    """A clock that is moved on by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.past_s = 0.0
        right = time.monotonic
        monkeypatch.setattr("time.monotonic", lambda: right() + self.past_s)


class Member:
    """A consumer of a topic that reads from the beginning what it is assigned."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.assigned: list[Any] = []
        config = {"bootstrap.servers": kafka.bootstrap, "group.id": topic, "session.timeout.ms": 6000}
        config |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        self.group = GroupConsumer(
            config,
            [topic],
            100,
            Silent(),
            with_ends=False,
            assigned=self._come,
            revoked=lambda client, partitions: client.incremental_unassign(partitions),
            lost=lambda client, partitions: client.incremental_unassign(partitions),
            gap=lambda _: None,
        )

    def _come(self, client: Any, partitions: list[Any]) -> None:
        self.assigned.append(client)
        client.incremental_assign(partitions)

    def is_astray(self) -> bool:
        """As the group says once the broker has answered it, which it may not do within one try."""
        return any(self.group.is_astray() for _ in range(50))

    def read(self, count: int) -> list[bytes]:
        found: list[bytes] = []
        until = time.monotonic() + 60
        while len(found) < count:
            assert time.monotonic() < until, f"{found} within a minute"
            found += [message.value() for message in self.group.poll(0.1)]
        return found


@pytest.fixture
def member(kafka: Kafka) -> Iterator[Member]:
    topic = kafka.new_topic(1, "astray")
    kafka.produce(topic, [{"n": 1}, {"n": 2}])
    made = Member(kafka, topic)
    yield made
    made.group.close()


def test_a_client_that_stays_out_of_its_group_is_replaced(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert len(member.read(2)) == 2
    member.group._measured(told("init"))
    assert not member.group.is_astray()
    clock.past_s = 31.0
    assert member.is_astray()
    first = member.group.client
    member.group.renew()
    assert not member.group.is_astray()
    assert len(member.read(2)) == 2
    assert member.assigned == [first, member.group.client]
    assert first is not member.group.client


def test_patience_grows_until_the_client_has_joined(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.past_s = 1000.0
    assert not member.group.is_astray()  # it has never been in the group: others may be long in letting it in
    member.group._measured(told("steady"))
    clock.past_s += 31.0
    assert member.is_astray()
    member.group.renew()
    clock.past_s += 31.0
    assert not member.group.is_astray()
    clock.past_s += 31.0
    assert member.is_astray()
    member.group._measured(told("steady"))
    clock.past_s += 31.0
    assert member.is_astray()


def test_the_last_offsets_are_not_waited_for_while_the_coordinator_is_silent(
    new_kafka: Callable[..., KafkaServer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that leaves would stand still for as long, and keep its partitions from the others."""
    server = new_kafka()
    kafka = Kafka(server.bootstrap, server.sasl_bootstrap)
    topic = kafka.new_topic(1, "silent")
    kafka.produce(topic, [{"n": 1}, {"n": 2}])
    member = Member(kafka, topic)
    assert len(member.read(2)) == 2
    monkeypatch.setattr(consuming, "COMMIT_S", 0.3)
    server.pause()
    began = time.monotonic()
    member.group.commit([TopicPartition(topic, 0, 2)])
    assert time.monotonic() - began < 10
    assert "offsets were not committed within" in caplog.text
    server.resume()
    until = time.monotonic() + 60
    while member.group.client.committed([TopicPartition(topic, 0)], timeout=20)[0].offset != 2:
        assert time.monotonic() < until, "the offset was given up"
        time.sleep(0.1)
    member.group.close()


def test_leaving_does_not_wait_for_a_client_that_hangs(
    member: Member, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    real = member.group.client

    class Hanging:
        def close(self) -> None:
            released.wait(30)

    member.group.client = Hanging()  # type: ignore[assignment]
    monkeypatch.setattr(consuming, "CLOSE_S", 0.05)
    member.group.close()
    assert not released.is_set()
    assert "did not leave its group" in caplog.text
    released.set()
    real.close()
