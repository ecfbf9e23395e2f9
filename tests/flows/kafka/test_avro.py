"""Avro messages: of a schema given, of a registry's, of one that changes, and broken ones."""

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flows.kafka.registering import FakeRegistry, framed, serving
from tests.flows.kafka.sent import AT_MS, AT_US, decoded_one_by_one, messages, one, placed_rows, rows_of

from headrace.features import DefinitionError, Event, EventTime, KafkaSource
from headrace.flows.kafka.decoding import MessageDecoder

SCHEMA = {
    "type": "record",
    "name": "Ride",
    "fields": [
        {"name": "other", "type": {"type": "array", "items": "string"}},
        {"name": "driver_id", "type": "string"},
        {"name": "fare", "type": "double"},
        {"name": "riders", "type": ["null", "int"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
ROW = {"other": ["a", "b"], "driver_id": "7", "fare": 2.5, "riders": None, "at": datetime(2026, 5, 1, 12, tzinfo=UTC)}


class Ride(Event):
    driver_id: str
    fare: float
    riders: int | None
    at: EventTime


EVENT = {"driver_id": "7", "fare": 2.5, "riders": None, "at": AT_US}


def datum(schema: Any, row: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return out.getvalue()


GIVEN = MessageDecoder(KafkaSource("rides", Ride, format="avro", schema=SCHEMA))


@pytest.mark.parametrize("given", ["object", "text", "file"])
def test_a_schema_that_is_given(given: str, tmp_path: Path) -> None:
    file = tmp_path / "ride.avsc"
    file.write_text(json.dumps(SCHEMA))
    schema = {"object": SCHEMA, "text": json.dumps(SCHEMA), "file": file}[given]
    decoder = MessageDecoder(KafkaSource("rides", Ride, format="avro", schema=schema))
    assert one(decoder, datum(SCHEMA, ROW)) == EVENT
    assert one(decoder, datum(SCHEMA, ROW | {"riders": 3})) == {**EVENT, "riders": 3}


@pytest.mark.parametrize(
    ("kind", "value", "dtype", "expected"),
    [
        ("string", "x", str, "x"),
        ("bytes", b"\xff", bytes, b"\xff"),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", bytes, b"ab"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", str, "B"),
        ({"type": "string", "logicalType": "uuid"}, UUID(int=5), str, str(UUID(int=5))),
        ("int", 5, int, 5),
        ("int", 5, float, 5.0),
        ("float", 0.5, float, 0.5),
        ("double", 3.0, int, 3),
        ("double", 3.5, int, "field 'value': 3.5 (double) is no int"),
        ("long", 5, str, "field 'value': 5 (int64) is no str"),
        ("boolean", True, bool, True),
        ({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}, Decimal("1.25"), float, 1.25),
        ({"type": "long", "logicalType": "timestamp-micros"}, AT_US + 1, datetime, AT_US + 1),
        ({"type": "long", "logicalType": "timestamp-nanos"}, AT_US * 1000 + 1999, datetime, AT_US + 1),
        (["null", {"type": "long", "logicalType": "timestamp-millis"}], AT_MS, datetime, AT_US),
        ([{"type": "long", "logicalType": "timestamp-millis"}, "null"], None, datetime, None),
        ([{"type": "long", "logicalType": "timestamp-millis"}, "null"], AT_MS, datetime, AT_US),
        ({"type": "long", "logicalType": "timestamp-millis"}, 2**60, datetime, "is outside the years 1 to 9999"),
        ("long", AT_MS, datetime, "is a number whose unit would be a guess"),
        ({"type": "int", "logicalType": "date"}, date(2026, 5, 1), datetime, "has no time zone"),
        ({"type": "long", "logicalType": "timestamp-millis"}, AT_MS, int, "is no int"),
        (["null", "string", "long"], 5, int, 5),
        (["null", "string", "long"], "x", int, "field 'value': 'x' (str) is no int"),
        ({"type": "array", "items": "int"}, [1], int, "field 'value': [1] (list) is no int"),
    ],
)
def test_types(kind: Any, value: Any, dtype: Any, expected: Any) -> None:
    class Reading(Event):
        value: dtype | None  # type: ignore[valid-type]
        at: EventTime

    schema = {"type": "record", "name": "R", "fields": [{"name": "value", "type": kind}, SCHEMA["fields"][-1]]}
    decoder = MessageDecoder(KafkaSource("readings", Reading, format="avro", schema=schema))
    plain = json.loads(json.dumps(schema).replace('"logicalType": "timestamp', '"was": "timestamp'))
    got = one(decoder, datum(plain, {"value": value, "at": AT_MS}))
    if isinstance(got, dict):
        assert (got["value"], got["at"]) == (expected, AT_US)
        assert type(got["value"]) is type(expected)
    else:
        assert expected in got


def test_broken_messages() -> None:
    whole = datum(SCHEMA, ROW)
    sent = [whole, b"", *(whole[:cut] for cut in range(1, len(whole))), whole + b"x", b"\xff" * 50, b'{"a": 1}']
    batch, dead, _ = GIVEN.decode(messages(sent))
    assert batch.offset.tolist() == [0]
    assert len(dead) == len(sent) - 1
    assert all(letter.detail.startswith(("the message is no datum of the given schema", "field ")) for letter in dead)
    assert "1 bytes are left over" in dead[-3].detail


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('{"type": "record"', r"neither Avro's JSON nor a file of it"),
        ("no/such/file.avsc", r"neither Avro's JSON nor a file of it: .*No such file"),
        ({"type": "string"}, "the given schema is no Avro record"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "driverid", "type": "string"}]},
            r"the given schema \('R'\) has no field 'driver_id'; did you mean 'driverid'\?",
        ),
        ({"type": "record", "name": "R", "fields": [{"name": "a", "type": "strin"}]}, "no Avro schema|has no field"),
    ],
)
def test_schemas_that_do_not_fit_fail_at_once(schema: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        MessageDecoder(KafkaSource("rides", Ride, format="avro", schema=schema))


def without(name: str) -> dict[str, Any]:
    return {**SCHEMA, "fields": [f for f in SCHEMA["fields"] if f["name"] != name]}


def in_micros() -> dict[str, Any]:
    at = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
    more = {"name": "new", "type": "string"}
    return {**SCHEMA, "fields": [more, *SCHEMA["fields"][:-1], at]}


def test_schemas_of_a_registry() -> None:
    """Old and new writers, and all that can be wrong with an id, in one batch."""
    registry = FakeRegistry()
    registry.add(1, SCHEMA)
    registry.add(2, in_micros(), "AVRO")
    registry.add(3, without("riders"))
    registry.add(4, without("fare"))
    registry.add(5, "syntax = ...", "PROTOBUF")
    registry.add(6, "{")
    fares = [{**f, "type": "string"} if f["name"] == "fare" else f for f in SCHEMA["fields"]]
    registry.add(7, {**SCHEMA, "fields": fares})
    payloads = [
        framed(1, datum(SCHEMA, ROW)),
        framed(2, datum(in_micros(), ROW | {"new": "x", "riders": 2})),
        framed(3, datum(without("riders"), ROW)),
        framed(4, datum(without("fare"), ROW)),
        framed(5, b""),
        framed(6, b""),
        framed(7, datum({**SCHEMA, "fields": fares}, ROW | {"fare": "2.5"})),
        framed(9, datum(SCHEMA, ROW)),
        framed(1, datum(SCHEMA, ROW)[:-1]),
        datum(SCHEMA, ROW),
        b'{"driver_id": "7"}',
        b"\x00\x00",
        framed(1, datum(SCHEMA, ROW | {"driver_id": "8"})),
    ]
    with serving(registry):
        decoder = MessageDecoder(KafkaSource("rides", Ride, format="avro", registry=registry.url))
        batch, dead, _ = decoder.decode(messages(payloads))
        assert rows_of(batch) == [EVENT, {**EVENT, "riders": 2}, EVENT, {**EVENT, "driver_id": "8"}]
        assert batch.offset.tolist() == [0, 1, 2, 12]
        assert [(letter.offset, letter.detail) for letter in dead] == [
            (3, "schema 4 ('Ride') has no field 'fare'."),
            (4, "schema 5 is of type PROTOBUF, expected AVRO"),
            (5, dead[2].detail),
            (6, "field 'fare': '2.5' (string) is no float (schema 7)"),
            (7, "schema 9 is not in the registry"),
            (8, dead[5].detail),
            (9, "the first byte is 0x04, and 0x00 in the registry's wire format"),
            (10, "the first byte is 0x7b, and 0x00 in the registry's wire format; it looks like JSON"),
            (11, "2 bytes are too few for the registry's wire format, which begins with five of its own"),
        ]
        assert "schema 6 is no Avro schema that can be read" in dead[2].detail
        assert "no datum of schema 1: it ends too early" in dead[5].detail
        asked = len(registry.asked)
        decoder.decode(messages(payloads))
        assert len(registry.asked) == asked  # neither for known ids nor, for a while, for unknown ones


def test_a_schema_that_refers_to_another() -> None:
    city = {"type": "record", "name": "City", "namespace": "geo", "fields": [{"name": "name", "type": "string"}]}
    ride = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "city", "type": "geo.City"}]}
    registry = FakeRegistry()
    registry.add(1, ride, references=[{"name": "geo.City", "subject": "city", "version": 3}])
    registry.versions["city", "3"] = {"subject": "city", "version": 3, "id": 8, "schema": json.dumps(city)}
    whole = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "city", "type": city}]}
    with serving(registry):
        decoder = MessageDecoder(KafkaSource("rides", Ride, format="avro", registry=registry.url))
        assert one(decoder, framed(1, datum(whole, ROW | {"city": {"name": "Rome"}}))) == EVENT


@given(st.lists(st.one_of(st.binary(max_size=40), st.just(datum(SCHEMA, ROW)), st.integers(0, 25)), max_size=10))
def test_a_mixture_is_decoded_as_one_by_one(parts: list[bytes | int]) -> None:
    whole = datum(SCHEMA, ROW)
    sent = messages([whole[:part] if isinstance(part, int) else part for part in parts])
    batch, dead, gone = GIVEN.decode(sent)
    assert (placed_rows(batch), dead, gone) == decoded_one_by_one(GIVEN, sent)
