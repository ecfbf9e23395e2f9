"""Messages to events: every part of a message, and whatever is wrong with one."""

from __future__ import annotations

import base64
import json
import math
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from tests.flows.kafka.sent import (
    AT,
    AT_MS,
    AT_US,
    decoded_one_by_one,
    message,
    messages,
    one,
    placed_rows,
    rows_of,
)
from tests.servers.kafka import Kafka

from headrace.features import Event, EventTime, KafkaSource, MessageBody, MessageHeader, MessageKey, MessageTime
from headrace.flows.deadletter import LATE, DeadLetter
from headrace.flows.kafka.decoding import MessageDecoder, placed


class Ride(Event):
    driver_id: str
    fare: float
    riders: int | None
    raw: bytes | None
    at: EventTime


class Click(Event):
    user: int
    page: str | None
    body: bytes
    at: EventTime


GOOD = {"driver_id": "7", "fare": 2.5, "at": AT}
EVENT = {"driver_id": "7", "fare": 2.5, "riders": None, "raw": None, "at": AT_US}
RIDES = MessageDecoder(KafkaSource("rides", Ride))


def text(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_json() -> None:
    batch, dead, gone = RIDES.decode(
        [
            message(text(), partition=3, offset=5),
            message(text(riders=2, raw="/w==", more=[{}]), partition=1, offset=2**40),
            message(json.dumps(GOOD, indent=2).encode() + b"\n", partition=3, offset=6),
        ]
    )
    assert rows_of(batch) == [EVENT, {**EVENT, "riders": 2, "raw": b"\xff"}, EVENT]
    assert (batch.partition.tolist(), batch.offset.tolist()) == ([3, 1, 3], [5, 2**40, 6])
    assert batch.partition.dtype == np.int32
    assert (dead, gone) == ([], 0)


def test_no_messages() -> None:
    batch, dead, gone = RIDES.decode([])
    assert (len(batch), dead, gone) == (0, [], 0)
    assert list(batch) == ["driver_id", "fare", "riders", "raw", "at"]


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"", "the line is no JSON: Input data was truncated"),
        (b"\x00\x00\x00\x00\x01", "the line is no JSON: JSON is malformed: invalid character"),
        (b"null", "the row is None (NoneType), expected a mapping"),
        (b"[]", "the row is [] (list)"),
        (b"{}", "field 'driver_id': the row does not have it"),
        (text()[:-1], "the line is no JSON: Input data was truncated"),
        (text() + text(), "the line is no JSON: JSON is malformed: trailing characters"),
        (text(fare="2"), "field 'fare': '2' (str) is no float"),
        (text(fare=None), "field 'fare': null, but not declared `| None`"),
        (text(fare=True), "field 'fare': True (bool) is no float"),
        (text(riders=2**63), "field 'riders': 9223372036854775808 is beyond int64"),
        (text(riders=1.5), "field 'riders': 1.5 (float) is no int"),
        (text(raw="x"), "field 'raw': 'x' is no base64"),
        (text(at="2026-05-01T12:00:00"), "field 'at': 2026-05-01T12:00:00 has no time zone"),
        (text(at=AT_MS), "is a number whose unit would be a guess"),
        (text(at="yesterday"), "field 'at': 'yesterday' is no ISO 8601 time"),
        (b'{"driver_id":"\xff","fare":1,"at":"2026-05-01T12:00:00Z"}', "the line is no JSON: "),
        (b'{"driver_id":"\\ud800","fare":1,"at":"2026-05-01T12:00:00Z"}', "field 'driver_id': '\\ud800' is no UTF-8"),
        (b"[" * 100_000, "the line is no JSON: maximum recursion depth"),
    ],
)
def test_a_poison_message_costs_itself_alone(value: bytes, detail: str) -> None:
    batch, (letter,), _ = RIDES.decode(messages([text(), value, text(riders=2)]))
    assert rows_of(batch) == [EVENT, {**EVENT, "riders": 2}]
    assert batch.offset.tolist() == [0, 2]
    assert detail in letter.detail
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == ("malformed", "rides", 0, 1)
    kept = json.loads(letter.payload)
    if isinstance(kept, dict) and set(kept) == {"base64"}:
        assert base64.b64decode(kept["base64"]) == value
    else:
        assert letter.payload.encode() == value or kept == value.decode()


def test_what_is_not_usual_is_read_all_the_same() -> None:
    assert one(RIDES, text(riders=3.0)) == {**EVENT, "riders": 3}
    assert one(RIDES, text(fare=2)) == {**EVENT, "fare": 2.0}
    assert one(RIDES, text(fare=2**70)) == {**EVENT, "fare": 2.0**70}
    assert one(RIDES, b'{"driver_id": "7", "fare": Infinity, "at": "2026-05-01T12:00:00Z"}') == {
        **EVENT,
        "fare": math.inf,
    }
    assert one(RIDES, b'{"driver_id": 5, "driver_id": "7", "fare": 2.5, "at": "2026-05-01T12:00:00Z"}') == EVENT
    assert one(RIDES, text(at="2026-05-01T14:00:00.000000+02:00")) == EVENT


def test_a_giant_payload() -> None:
    giant = "x" * 20_000_000
    batch, dead, _ = RIDES.decode(messages([text(driver_id=giant), text(fare=giant)]))
    assert len(rows_of(batch)[0]["driver_id"]) == len(giant)
    assert len(dead[0].payload) > len(giant)
    assert len(dead[0].detail) < 200


def test_times_as_numbers_and_other_names() -> None:
    source = KafkaSource("rides", Ride, unit="ms", columns={"at": "event_ts", "driver_id": "id", "fare": "id"})
    decoder = MessageDecoder(source)
    assert one(decoder, json.dumps({"event_ts": AT_MS, "id": 5}).encode()) == "field 'driver_id': 5 (int) is no str"
    renamed = MessageDecoder(KafkaSource("rides", Ride, unit="ms", columns={"at": "event_ts"}))
    assert one(renamed, json.dumps({**GOOD, "event_ts": AT_MS}).encode()) == EVENT
    assert one(renamed, json.dumps({**GOOD, "event_ts": float(AT_MS)}).encode()) == EVENT
    assert "outside the years" in one(renamed, json.dumps({**GOOD, "event_ts": 2**62}).encode())
    local = MessageDecoder(KafkaSource("rides", Ride, zone="Europe/Berlin"))
    assert one(local, text(at="2026-05-01T14:00:00")) == EVENT


@pytest.mark.parametrize("tombstones", ["skip", "dead_letter"])
def test_tombstones(tombstones: str) -> None:
    decoder = MessageDecoder(KafkaSource("rides", Ride, tombstones=tombstones))
    batch, dead, gone = decoder.decode(messages([None, text(), None]))
    assert batch.offset.tolist() == [1]
    assert gone == 2
    assert [(d.offset, d.detail, d.payload, d.topic) for d in dead] == (
        [(i, "a tombstone: the message has no payload", "null", "rides") for i in (0, 2)]
        if tombstones != "skip"
        else []
    )
    batch, dead, gone = decoder.decode(messages([None]))
    assert (len(batch), gone) == (0, 1)


def test_several_topics_number_their_partitions() -> None:
    source = KafkaSource(["rides", "trips"], Ride)
    batch, dead, _ = MessageDecoder(source).decode(
        [
            message(text(), topic="trips", partition=2),
            message(text(), partition=2),
            message(b"", topic="trips", partition=3),
        ]
    )
    assert batch.partition.tolist() == [1 << 10 | 2, 2]
    assert [source.place(n) for n in batch.partition.tolist()] == [("trips", 2), ("rides", 2)]
    assert (dead[0].topic, dead[0].partition) == ("trips", 3)
    late = DeadLetter(LATE, "5 s", source.name, 1 << 10 | 2, 7, AT_US, "{}")
    (told,) = placed(source, [late])
    assert (told.topic, told.partition, told.offset) == ("trips", 2, 7)
    assert placed(source, [told]) == [told]
    assert str(told).startswith("rides-trips (topic trips) partition 2 offset 7 at 2026-05-01T12:00:00Z: late")


RAW_PARTS = {"user": MessageKey(), "page": MessageHeader("page"), "at": MessageTime()}
RAW = MessageDecoder(KafkaSource("clicks", Click, format="raw", columns=RAW_PARTS))


def test_raw_messages() -> None:
    event = {"user": 5, "page": None, "body": b"\xff", "at": AT_US}
    assert one(RAW, b"\xff", key=b"5", topic="clicks") == event
    assert one(RAW, b"", key=b"5", topic="clicks") == {**event, "body": b""}
    headers = [("page", b"/a"), ("other", b"\xff"), ("page", "/\N{GREEK SMALL LETTER ALPHA}".encode())]
    assert one(RAW, b"\xff", key=b"-5", headers=headers, topic="clicks") == {**event, "user": -5, "page": "/α"}
    assert one(RAW, b"x", key=b"\xff", topic="clicks") == "field 'user': b'\\xff' is no UTF-8 text"
    assert one(RAW, b"x", key=b"five", topic="clicks") == "field 'user': 'five' is no int"
    assert one(RAW, b"x", topic="clicks") == "field 'user': null, but not declared `| None`"
    assert "field 'page': b'\\xff' is no" in one(RAW, b"x", key=b"5", headers=[("page", b"\xff")], topic="clicks")
    assert one(RAW, b"x", key=b"5", headers=[("page", None)], topic="clicks") == {**event, "body": b"x"}
    assert one(RAW, b"x", key=b"5", at_ms=None, topic="clicks") == "field 'at': the record has no timestamp"
    assert "is outside the years" in one(RAW, b"x", key=b"5", at_ms=2**60, topic="clicks")


class Keyed(Event):
    key: int | None
    seen: datetime | None
    at: EventTime


@pytest.mark.parametrize(
    ("part", "key", "expected"),
    [
        (MessageKey("int"), (5).to_bytes(8, "big"), 5),
        (MessageKey("int"), (-5).to_bytes(4, "big", signed=True), -5),
        (MessageKey("int"), b"12345", "field 'key': the key b'12345' has 5 bytes; an integer has 4 or 8"),
        (MessageKey("text"), b"12345", 12345),
        (MessageKey("json"), b"12", 12),
        (MessageKey("json"), b"12.0", 12),
        (MessageKey("json"), b'"12"', "field 'key': '12' (str) is no int"),
        (MessageKey("json", "id"), b'{"id": 9}', 9),
        (MessageKey("json", "id"), b"{}", None),
        (MessageKey("json", "id"), b"[]", "field 'key': the key b'[]' is no JSON object, so it has no 'id'"),
        (MessageKey("json"), b"\xff", "field 'key': the key b'\\xff' is no JSON: JSON is malformed"),
        (MessageKey("json"), None, None),
    ],
)
def test_keys(part: MessageKey, key: bytes | None, expected: Any) -> None:
    decoder = MessageDecoder(KafkaSource("rides", Keyed, columns={"key": part, "at": MessageTime()}))
    got = one(decoder, b"{}", key=key)
    assert got["key"] == expected if isinstance(got, dict) else got.startswith(expected)


def test_the_whole_payload_beside_its_fields() -> None:
    class Kept(Event):
        driver_id: str
        whole: str
        at: EventTime

    decoder = MessageDecoder(KafkaSource("rides", Kept, columns={"whole": MessageBody(), "at": MessageTime()}))
    assert one(decoder, b'{"driver_id": "7"}') == {"driver_id": "7", "whole": '{"driver_id": "7"}', "at": AT_US}


PAYLOADS = st.one_of(
    st.just(text()),
    st.none(),
    st.binary(max_size=5),
    st.fixed_dictionaries(
        {},
        optional={
            "driver_id": st.text(max_size=2) | st.integers() | st.none(),
            "fare": st.floats() | st.integers() | st.text(max_size=1) | st.none(),
            "riders": st.integers() | st.floats() | st.booleans() | st.none(),
            "raw": st.sampled_from(["", "QQ==", "Q", "/w=="]),
            "at": st.sampled_from([AT, "2026-05-01T12:00:00+02:00", "2026-05-01", "x", 5]),
            "other": st.recursive(st.none() | st.text(max_size=2), st.lists, max_leaves=3),
        },
    ).map(lambda row: json.dumps({**GOOD, **row}).encode()),
    st.tuples(st.just(text()), st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]]),
)


@given(st.lists(st.tuples(PAYLOADS, st.none() | st.binary(max_size=3), st.integers(0, 3)), max_size=12))
def test_a_mixture_is_decoded_as_one_by_one(parts: list[tuple[bytes | None, bytes | None, int]]) -> None:
    sent = [message(value, key=key, partition=p, offset=i) for i, (value, key, p) in enumerate(parts)]
    for decoder in (RIDES, RAW):
        sent = [message(m.value(), key=m.key(), partition=m.partition(), offset=m.offset()) for m in sent]
        batch, dead, gone = decoder.decode(sent)
        events, letters, tombstones = decoded_one_by_one(decoder, sent)
        assert repr(placed_rows(batch)) == repr(events)
        assert dead == letters
        assert gone == tombstones
        assert len(batch) + len(dead) + gone == len(sent)


def test_from_a_broker(kafka: Kafka) -> None:
    """What a consumer hands out has the parts that the tests above give their messages."""
    topic = kafka.new_topic(2)
    kafka.produce(topic, [b"a", None, b""], key=None, partition=1, headers={"page": b"/a"}, timestamp_ms=AT_MS)
    source = KafkaSource(topic, Click, format="raw", columns=RAW_PARTS)
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "tests.decoding", "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition(topic, 1, 0)])
    got: list[Any] = []
    while len(got) < 3:
        got += consumer.consume(3, 5)
    consumer.close()
    batch, dead, gone = MessageDecoder(source).decode(got)
    assert gone == 1
    assert [(d.topic, d.partition, d.offset, d.event_time_us) for d in dead] == [
        (topic, 1, 0, AT_US),
        (topic, 1, 2, AT_US),
    ]
    assert len(batch) == 0
