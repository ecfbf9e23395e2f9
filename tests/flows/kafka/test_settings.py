"""Settings of the clients: who wins, what is passed on, what is kept secret; and what librdkafka logs."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from tests.servers.process import free_port

from headrace.features import DefinitionError, Event, EventTime, KafkaSource
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.secrets import expand, hidden, without_secrets
from headrace.flows.kafka.settings import BOOTSTRAP, admin_config, consumer_config, producer_config


class Ride(Event):
    driver_id: str
    at: EventTime


def source(**options: Any) -> KafkaSource:
    return KafkaSource("rides", Ride, **{"bootstrap_servers": "one:9092", **options})


def test_who_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    made = consumer_config(source(), "g")
    assert (made["bootstrap.servers"], made["group.id"], made["enable.auto.commit"]) == ("one:9092", "g", False)
    made = consumer_config(source(session_timeout_ms=9000, group_id="mine"), "g", {"client.id": "w1"})
    assert (made["session.timeout.ms"], made["client.id"], made["group.id"]) == (9000, "w1", "g")
    monkeypatch.setenv(BOOTSTRAP, "two:9092")
    assert consumer_config(source(), "g")["bootstrap.servers"] == "two:9092"
    assert consumer_config(source(), "g", {"bootstrap.servers": "three:9092"})["bootstrap.servers"] == "three:9092"
    assert consumer_config(source(), "g", error_cb=print)["error_cb"] is print


def test_the_other_name_of_a_setting_wins_over_the_default() -> None:
    made = consumer_config(source(fetch_message_max_bytes=5), "g")
    assert made["fetch.message.max.bytes"] == 5
    assert "max.partition.fetch.bytes" not in made
    made = producer_config(source(), {"queue.buffering.max.ms": 7, "compression.codec": "zstd"})
    assert (made["queue.buffering.max.ms"], "linger.ms" in made, "compression.type" in made) == (7, False, False)


def test_a_producer_takes_only_what_it_understands() -> None:
    given = source(sasl_username="flow", fetch_wait_max_ms=5, session_timeout_ms=9000, ssl_ca_location="ca.pem")
    made = producer_config(given, {"linger.ms": 0, "max.poll.interval.ms": 5})
    assert made.items() >= {"sasl.username": "flow", "linger.ms": 0, "ssl.ca.location": "ca.pem"}.items()
    assert not {"fetch.wait.max.ms", "session.timeout.ms", "max.poll.interval.ms"} & set(made)
    assert "linger.ms" not in admin_config(given, {"linger.ms": 0})


def test_librdkafka_takes_them_all() -> None:
    """Also: none of them is of another kind of client, of which librdkafka would warn in its log."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("headrace.kafka").addHandler(handler)
    try:
        log = logger_of({})
        consumer = Consumer(consumer_config(source(), "g", logger=log))
        consumer.poll(0)
        consumer.close()
        Producer(producer_config(source(), logger=log)).poll(0)
        AdminClient(admin_config(source(), logger=log)).poll(0)
    finally:
        logging.getLogger("headrace.kafka").removeHandler(handler)
    assert [r.getMessage() for r in records if "CONFWARN" in r.getMessage()] == []


def test_no_kafka_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"KafkaSource 'rides' names no Kafka\. Write bootstrap_servers="):
        consumer_config(KafkaSource("rides", Ride), "g")


def test_secrets_are_read_when_a_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    given = source(sasl_password="${RIDES_PASSWORD}", sasl_username="${USER_OF_RIDES}-x")
    assert given.options["sasl_password"] == "${RIDES_PASSWORD}"
    with pytest.raises(DefinitionError, match=r"takes \$\{RIDES_PASSWORD\} from the environment, where it is not set"):
        consumer_config(given, "g")
    monkeypatch.setenv("RIDES_PASSWORD", "s3cret")
    monkeypatch.setenv("USER_OF_RIDES", "flow")
    made = consumer_config(given, "g")
    assert (made["sasl.password"], made["sasl.username"]) == ("s3cret", "flow-x")
    assert hidden(made)["sasl.password"] == "•••"
    assert without_secrets("login of flow with s3cret failed", made) == "login of flow with ••• failed"
    assert expand(5, "linger.ms") == 5


def test_what_librdkafka_logs_goes_to_python_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    config = {"bootstrap.servers": f"127.0.0.1:{port}", "sasl.password": "s3cret"}
    with caplog.at_level(logging.INFO, "headrace.kafka"):
        logger_of(config).error("no login with %s", "s3cret")
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "logger": logger_of(config)})
        for _ in range(100):
            client.poll(0.05)
            if "Connection refused" in caplog.text:
                break
    assert caplog.records[0].getMessage() == "no login with •••"
    assert any("Connection refused" in r.getMessage() and r.name == "headrace.kafka" for r in caplog.records)
