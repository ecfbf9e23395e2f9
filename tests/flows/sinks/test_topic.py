"""Kafka sinks: every row is in the topic, under its key, with an id that is the same when it comes again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from tests.flows.sinks.simulated import Flow, alert, place, rows
from tests.servers.kafka import Kafka

from headrace.features.errors import DefinitionError
from headrace.features.sinks import KafkaSink
from headrace.flows.kafka.settings import BOOTSTRAP
from headrace.stores.errors import StoreError


@pytest.fixture(autouse=True)
def no_other_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BOOTSTRAP, raising=False)


def test_rows_in_the_topic(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(3)
    flow = Flow(KafkaSink(topic, key="driver_id", bootstrap_servers=kafka.bootstrap), tmp_path)
    flow.send(6)
    flow.checkpoint()
    flow.send(3)
    flow.checkpoint("flushed")  # killed before it counts: rows 6 to 8 come again
    flow.send(6)
    flow.end()
    messages = kafka.consume(topic)
    found = [msgspec.json.decode(message.value()) for message in messages]
    ids = [dict(message.headers())["headrace-id"].decode() for message in messages]
    assert sorted(row["number"] for row in found) == sorted([*range(12), 6, 7, 8])
    assert {row_id: row["number"] for row_id, row in zip(ids, found, strict=True)} == {
        f"pickups.alerts/0-{i}-0": i for i in range(12)
    }
    places: dict[bytes, set[int]] = {}
    for message, row in zip(messages, found, strict=True):
        assert message.key() == row["driver_id"].encode()
        assert message.timestamp()[1] == (alert(row["number"])["at"]) // 1_000
        places.setdefault(message.key(), set()).add(message.partition())
    assert all(len(each) == 1 for each in places.values())
    (first,) = (row for row in found if row["number"] == 1)
    assert first == {"number": 1, "driver_id": "d1", "fare": 0.25, "raw": "Af8=", "at": "2025-12-31T23:59:57.5Z"}


def test_a_message_that_is_too_large_is_a_dead_letter(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(1, max_message_bytes="400")
    large = rows(0, 3)
    names = large.table.column("driver_id").to_pylist()
    wide = pa.array([names[0], "".join(chr(200 + i % 900) for i in range(2_000)), names[2]])
    table = large.table.set_column(1, "driver_id", wide)
    flow = Flow(KafkaSink(topic, bootstrap_servers=kafka.bootstrap, batch_num_messages=1), tmp_path)
    flow.writer.write(type(large)(table, large.time_us, large.position, large.index))
    flow.end()
    assert sorted(msgspec.json.decode(message.value())["number"] for message in kafka.consume(topic)) == [0, 2]
    assert [letter.offset for letter in flow.dead] == [1]
    assert "does not take it" in flow.dead[0].detail


def test_a_topic_that_is_not_there_is_said_at_once(kafka: Kafka, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no topic 'no-such-topic'"):
        Flow(KafkaSink("no-such-topic", bootstrap_servers=kafka.bootstrap), tmp_path)


def test_definitions_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="is no topic name"):
        KafkaSink("a b")
    with pytest.raises(DefinitionError, match="sasl_password is a secret"):
        KafkaSink("alerts", sasl_password="abc")
    with pytest.raises(DefinitionError, match="has no column 'fair'"):
        KafkaSink("alerts", key="fair").check(place(tmp_path).schema)
    with pytest.raises(DefinitionError, match="KafkaSink 'alerts' names no Kafka"):
        Flow(KafkaSink("alerts"), tmp_path)
