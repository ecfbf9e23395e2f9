"""librdkafka's statistics of a real consumer, and of one that reaches nobody."""

from __future__ import annotations

from confluent_kafka import Consumer, TopicPartition
from tests.servers.kafka import Kafka
from tests.servers.process import free_port

from headrace.flows.kafka.statistics import ClientStatistics, statistics_config


def test_lag_and_brokers(kafka: Kafka) -> None:
    topic = kafka.new_topic(2)
    kafka.produce(topic, [{}] * 10, partition=0)
    heard: list[ClientStatistics] = []
    settings = {"bootstrap.servers": kafka.bootstrap, "group.id": "tests.statistics", "enable.auto.commit": False}
    consumer = Consumer({**settings, **statistics_config(heard.append, 0.1)})
    consumer.assign([TopicPartition(topic, 0, 0), TopicPartition(topic, 1, 0)])
    taken = 0
    while taken < 4:
        taken += len(consumer.consume(4 - taken, 5))
    looked = len(heard)
    while len(heard) < looked + 3 or heard[-1].lag.get((topic, 0)) != 6:
        consumer.pause([TopicPartition(topic, 0)])
        consumer.poll(0.1)
    consumer.close()
    last = heard[-1]
    assert last.up == (kafka.bootstrap,)
    assert last.received >= 10
    assert any(0 < s.round_trip_s.get(kafka.bootstrap, 0) < 10 for s in heard)


def test_nobody_answers() -> None:
    heard: list[ClientStatistics] = []
    address = f"127.0.0.1:{free_port()}"
    settings = {"bootstrap.servers": address, "group.id": "tests.statistics", "log_level": 0}
    consumer = Consumer({**settings, **statistics_config(heard.append, 0.05)})
    while not heard or not heard[-1].down:
        consumer.poll(0.1)
    consumer.close()
    assert (heard[-1].down, heard[-1].up, heard[-1].lag, heard[-1].round_trip_s) == ((address,), (), {}, {})
