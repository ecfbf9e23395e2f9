"""Events are written as their source reads them: what its decoder makes of the messages is the event that was given."""

import base64
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.kafka import Kafka

from headrace.features import Event, EventTime, KafkaSource, MessageBody, MessageHeader, MessageKey, MessageTime
from headrace.features.errors import DataError
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.publishing import SourcePublisher
from headrace.stores.errors import UnreachableError

AT = "2026-05-01T12:00:00.123Z"
AT_US = 1_777_636_800_123_000


class Ride(Event):
    driver_id: str
    city: str | None
    fare: float
    seats: int | None
    paid: bool | None
    raw: bytes | None
    at: EventTime


class Plain(Event):
    body: bytes
    driver: int
    trace: str | None
    at: EventTime


RIDE = {"driver_id": "7", "city": None, "fare": 12, "seats": 3, "paid": True, "raw": "AP8=", "at": AT}
PARTS = {"driver_id": MessageKey(), "city": MessageHeader("city"), "at": MessageTime(), "fare": "price"}


def decoded(source: KafkaSource, events: list[Any]) -> list[dict[str, Any]]:
    messages, wrong = SourcePublisher(source).prepared(events)
    assert wrong == {}
    batch, letters, gone = MessageDecoder(source).decode(messages, np.zeros(len(messages), dtype=np.int32))
    assert (letters, gone) == ([], 0)
    names = [field.name for field in source.schema.fields]
    columns = [batch.arrow(name).to_pylist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def read(event: dict[str, Any]) -> dict[str, Any]:
    raw = event.get("raw")
    moment = datetime.fromisoformat(event["at"]).astimezone(UTC)
    names = ("driver_id", "city", "seats", "paid")
    return {
        **{name: event.get(name) for name in names},
        "fare": float(event["fare"]),
        "raw": None if raw is None else base64.b64decode(raw),
        "at": moment,
    }


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
EVENTS = st.fixed_dictionaries(
    {
        "driver_id": TEXT,
        "fare": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
        "at": st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(
            lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000).isoformat()
        ),
    },
    optional={
        "city": st.none() | TEXT,
        "seats": st.none() | st.integers(-(2**63), 2**63 - 1),
        "paid": st.none() | st.booleans(),
        "raw": st.none() | st.binary(max_size=4).map(lambda raw: base64.b64encode(raw).decode()),
    },
)


@pytest.mark.parametrize(
    "columns", [{}, PARTS, {"driver_id": MessageKey("json", "id"), "seats": MessageKey("json", "n")}]
)
@given(events=st.lists(EVENTS, min_size=1, max_size=4))
def test_the_decoder_reads_the_event_that_was_given(columns: dict[str, Any], events: list[dict[str, Any]]) -> None:
    assert decoded(KafkaSource("rides", Ride, columns=columns), events) == [read(event) for event in events]


def test_the_parts_of_a_message() -> None:
    (made,), wrong = SourcePublisher(KafkaSource("rides", Ride, columns=PARTS)).prepared([RIDE | {"city": "Bern"}])
    assert wrong == {}
    assert (made.key(), made.headers()) == (b"7", [("city", b"Bern")])
    assert made.timestamp() == (1, AT_US // 1000)
    assert made.value() == b'{"price":12,"seats":3,"paid":true,"raw":"AP8="}'


def test_a_raw_message() -> None:
    columns = {"driver": MessageKey("int"), "trace": MessageHeader("trace"), "at": MessageTime(), "body": MessageBody()}
    source = KafkaSource("plain", Plain, format="raw", columns=columns)
    event = {"body": "AP8=", "driver": -2, "trace": None, "at": AT}
    (made,), wrong = SourcePublisher(source).prepared([event])
    assert (wrong, made.value(), made.key()) == ({}, b"\x00\xff", b"\xff" * 7 + b"\xfe")
    assert decoded(source, [event])[0]["driver"] == -2
    _, wrong = SourcePublisher(source).prepared(
        [{"driver": 1, "at": AT}, {**event, "driver": "7"}, {**event, "body": 7}]
    )
    assert [why.partition(",")[0] for why in wrong.values()] == [
        "the column that is the message's payload is missing or null",
        "field 'driver': got '7'",
        "field 'body': got 7",
    ]


@pytest.mark.parametrize(
    ("keyed_by", "key"),
    [
        (None, None),
        ("driver_id", b"7"),
        ("seats", b"3"),
        ("raw", b"\x00\xff"),
        (["driver_id", "seats"], b'["7",3]'),
        ("city", None),
    ],
)
def test_the_key_is_made_of_what_the_source_is_keyed_by(keyed_by: Any, key: bytes | None) -> None:
    (made,), _ = SourcePublisher(KafkaSource("rides", Ride, keyed_by=keyed_by)).prepared([RIDE])
    assert made.key() == key


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (7, "got 7, expected an object with the columns of Ride"),
        (RIDE | {"fair": 1}, "event 'Ride' has no column 'fair'; did you mean 'fare'? Its columns are: driver_id"),
        ({"driver_id": "7", "at": AT}, "field 'fare'"),
        (RIDE | {"fare": "12"}, "field 'fare'"),
        (RIDE | {"seats": 1.5}, "field 'seats'"),
        (RIDE | {"raw": "AP8"}, "field 'raw'"),
        (RIDE | {"at": "2026-05-01T12:00:00"}, "field 'at'"),
        (RIDE | {"at": 1_777_636_800}, "field 'at'"),
        (RIDE | {"driver_id": None}, "field 'driver_id': null, but not declared `| None`"),
    ],
)
def test_what_a_flow_could_not_read_is_refused_with_its_place(event: Any, said: str) -> None:
    _, wrong = SourcePublisher(KafkaSource("rides", Ride)).prepared([RIDE, event, RIDE])
    assert list(wrong) == [1]
    assert wrong[1].startswith(said), wrong


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (RIDE | {"driver_id": 7}, "field 'driver_id': got 7, expected string"),
        (RIDE | {"city": "\ud800"}, "field 'city'"),
        (RIDE | {"at": "2026-05-01T12:00:00.0001Z"}, "field 'at': 2026-05-01T12:00:00.0001Z is no record time"),
        (RIDE | {"at": 5}, "field 'at': 5 (int) is a number"),
        ({name: RIDE[name] for name in RIDE if name != "at"}, "field 'at'"),
    ],
)
def test_what_does_not_fit_a_part_of_a_message(event: Any, said: str) -> None:
    _, wrong = SourcePublisher(KafkaSource("rides", Ride, columns=PARTS)).prepared([event])
    assert wrong[0].startswith(said), wrong


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (KafkaSource(["a", "b"], Ride), "reads 2 topics"),
        (KafkaSource("a", Ride, format="avro", registry="http://registry"), "reads avro, which is not written here"),
        (KafkaSource("a", Ride, columns={"raw": MessageBody()}), "reads 'raw' from the whole payload"),
    ],
)
def test_sources_that_take_no_events(source: KafkaSource, said: str) -> None:
    with pytest.raises(DataError, match=said):
        SourcePublisher(source).prepared([RIDE])


def taken(kafka: Kafka, topic: str, n: int) -> list[Any]:
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": f"read-{topic}", "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([topic])
        found: list[Any] = []
        until = time.monotonic() + 60
        while len(found) < n:
            assert time.monotonic() < until
            found += [each for each in consumer.consume(n, 0.2) if each.error() is None]
        return found
    finally:
        consumer.close()


def test_events_lie_where_other_producers_put_them(kafka: Kafka) -> None:
    topic = kafka.new_topic(4)
    rides = [RIDE | {"driver_id": str(number)} for number in range(20)]
    places = {
        row["driver_id"]: at for row, (at, _) in zip(rides, kafka.produce(topic, rides, key="driver_id"), strict=True)
    }
    publisher = SourcePublisher(KafkaSource(topic, Ride, keyed_by="driver_id", bootstrap_servers=kafka.bootstrap))
    messages, wrong = publisher.prepared(rides)
    assert wrong == {}
    publisher.publish(messages)
    publisher.publish([])
    publisher.close()
    found = taken(kafka, topic, 40)
    assert len(found) == 40
    assert all(each.partition() == places[each.key().decode()] for each in found)


def test_a_topic_that_is_not_there_is_not_made(kafka: Kafka) -> None:
    publisher = SourcePublisher(KafkaSource("no-such-topic", Ride, bootstrap_servers=kafka.bootstrap))
    messages, _ = publisher.prepared([RIDE])
    with pytest.raises(DataError, match="has no topic 'no-such-topic'"):
        publisher.publish(messages)


def test_a_message_that_is_too_large(kafka: Kafka) -> None:
    topic = kafka.new_topic(1)
    publisher = SourcePublisher(
        KafkaSource(topic, Ride, bootstrap_servers=kafka.bootstrap), {"message.max.bytes": "2000"}
    )
    messages, _ = publisher.prepared([RIDE, RIDE | {"city": "x" * 3_000}])
    with pytest.raises(DataError, match=r"events\[1\]: its message of 3\d\d\d bytes is larger than Kafka takes"):
        publisher.publish(messages)
    publisher.close()


def test_a_broker_that_is_not_there_is_given_up_in_time() -> None:
    publisher = SourcePublisher(KafkaSource("rides", Ride, bootstrap_servers="127.0.0.1:1"), timeout_s=0.5)
    messages, _ = publisher.prepared([RIDE])
    with pytest.raises(UnreachableError):
        publisher.publish(messages)


@pytest.mark.slow
def test_a_broker_that_stalls_and_comes_back(new_kafka: Any) -> None:
    server = new_kafka()
    kafka = Kafka(server.bootstrap, server.sasl_bootstrap)
    topic = kafka.new_topic(1)
    publisher = SourcePublisher(KafkaSource(topic, Ride, bootstrap_servers=server.bootstrap), timeout_s=1.0)
    messages, _ = publisher.prepared([RIDE])

    def publish_at_last() -> None:
        """A broker that has just started, or goes on, may need longer than the second that it has."""
        until = time.monotonic() + 60
        while True:
            try:
                return publisher.publish(messages)
            except UnreachableError:
                assert time.monotonic() < until

    publish_at_last()
    server.pause()
    with pytest.raises(UnreachableError, match="Cannot send events to topic"):
        publisher.publish(messages)
    server.resume()
    publish_at_last()
    publisher.close()
