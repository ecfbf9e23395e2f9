"""What a cluster has and says, on a real broker."""

from __future__ import annotations

import re
import time

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from tests.servers.kafka import USERS, Kafka, admin
from tests.servers.process import free_port

from headrace.features import Event, EventTime, KafkaSource
from headrace.flows.kafka.errors import AccessError, ClusterError, UnknownTopicError, UnreachableClusterError
from headrace.flows.kafka.topics import Cluster


class Ride(Event):
    driver_id: str
    at: EventTime


def cluster(kafka: Kafka) -> Cluster:
    return Cluster({"bootstrap.servers": kafka.bootstrap})


def sasl(kafka: Kafka, user: str, password: str) -> dict[str, str]:
    return {
        "bootstrap.servers": kafka.sasl_bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": password,
    }


def test_partitions_of_topics(kafka: Kafka) -> None:
    four, one = kafka.new_topic(4), kafka.new_topic(1)
    assert cluster(kafka).partitions([four, one]) == {four: 4, one: 1}
    assert cluster(kafka).topics().items() >= {four: 4, one: 1}.items()
    assert kafka.bootstrap in cluster(kafka).brokers().values()


def test_an_unknown_topic_is_not_made_but_named_with_the_nearest(kafka: Kafka) -> None:
    topic = kafka.new_topic(1, name="pickups")
    with pytest.raises(UnknownTopicError, match=rf"has no topic '{topic}x'; did you mean '{topic}'\?"):
        cluster(kafka).partitions([f"{topic}x"])
    assert f"{topic}x" not in kafka.names()


def test_offsets_of_starts(kafka: Kafka) -> None:
    topic = kafka.new_topic(2)
    at = 1_777_636_800_000
    kafka.produce(topic, [{}] * 3, partition=0, timestamp_ms=[at, at + 10, at + 20])
    kafka.produce(topic, [{}], partition=1, timestamp_ms=at)
    found = cluster(kafka)
    assert found.offsets([topic], "earliest") == {(topic, 0): 0, (topic, 1): 0}
    assert found.offsets([topic], "latest") == {(topic, 0): 3, (topic, 1): 1}
    assert found.offsets([topic], (at + 10) * 1000) == {(topic, 0): 1, (topic, 1): 1}
    assert found.offsets([topic], (at + 10) * 1000 + 1) == {(topic, 0): 2, (topic, 1): 1}
    assert found.offsets({topic: 2}, (at + 21) * 1000) == {(topic, 0): 3, (topic, 1): 1}
    source = KafkaSource(topic, Ride, start="2026-05-01T12:00:00.02Z", bootstrap_servers=kafka.bootstrap)
    assert Cluster.of(source).start_offsets(source) == {(topic, 0): 2, (topic, 1): 1}


def test_read_records_are_deleted(kafka: Kafka) -> None:
    topic = kafka.new_topic(2)
    kafka.produce(topic, [{}] * 5, partition=0)
    cluster(kafka).delete_records({(topic, 0): 3})
    assert cluster(kafka).offsets([topic], "earliest") == {(topic, 0): 3, (topic, 1): 0}
    cluster(kafka).delete_records({})
    with pytest.raises(ClusterError, match=f"Cannot delete read records of topic '{topic}', partition 1"):
        cluster(kafka).delete_records({(topic, 1): 7})


def test_a_topic_is_made_once(kafka: Kafka) -> None:
    topic = kafka.new_topic(1) + ".by.city"
    kafka.topics.append(topic)
    found = cluster(kafka)
    assert found.ensure_topic(topic, 3, settings={"retention.ms": "3600000"})
    deadline = time.monotonic() + 10
    while topic not in kafka.names():
        assert time.monotonic() < deadline
    assert not found.ensure_topic(topic, 3)
    with pytest.raises(ClusterError, match=f"Topic '{re.escape(topic)}' has 3 partitions, and this flow needs 4"):
        found.ensure_topic(topic, 4)
    with pytest.raises(ClusterError, match=r"Cannot make .* INVALID_CONFIG"):
        found.ensure_topic(topic + "2", 1, settings={"no.such.setting": "1"})


def test_nobody_answers() -> None:
    port = free_port()
    dead = Cluster({"bootstrap.servers": f"127.0.0.1:{port}"}, timeout_s=1.5)
    for call in (
        lambda: dead.partitions(["rides"]),
        lambda: dead.topics(),
        lambda: dead.offsets({"rides": 1}, "latest"),
        lambda: dead.ensure_topic("rides", 1),
    ):
        with pytest.raises(UnreachableClusterError, match=f"no answer from Kafka at 127.0.0.1:{port}") as raised:
            call()
        assert "Check that a broker listens at that address" in str(raised.value)


def test_a_user_is_let_in(kafka: Kafka) -> None:
    topic = kafka.new_topic(2)
    assert Cluster(sasl(kafka, "flow", USERS["flow"])).partitions([topic]) == {topic: 2}


def test_a_wrong_password_is_told_but_not_shown(kafka: Kafka) -> None:
    with pytest.raises(AccessError, match=r"does not let this client in \(SASL_PLAINTEXT, PLAIN as 'flow'\)") as raised:
        Cluster(sasl(kafka, "flow", "Wr0ngPass"), timeout_s=3).partitions(["rides"])
    assert "Wr0ngPass" not in str(raised.value)
    assert "Authentication failed" in str(raised.value)


def test_a_topic_that_is_not_allowed(kafka: Kafka) -> None:
    topic = kafka.new_topic(1)
    rule = AclBinding(
        *(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:nobody", "*"),
        *(AclOperation.ALL, AclPermissionType.DENY),
    )
    client = admin(kafka.bootstrap)
    for made in client.create_acls([rule]).values():
        made.result(30)
    with pytest.raises(AccessError, match=r"PLAIN as 'nobody'\) and refuses it the topic: allow Read and Describe"):
        Cluster(sasl(kafka, "nobody", USERS["nobody"])).partitions([topic])


def test_a_setting_that_librdkafka_does_not_know() -> None:
    with pytest.raises(ClusterError, match=r'No such configuration property: "bootstrap\.server"'):
        Cluster({"bootstrap.servers": "localhost:9092", "bootstrap.server": "x"})
