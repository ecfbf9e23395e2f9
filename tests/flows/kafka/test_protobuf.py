"""Protobuf messages: every kind of field, by class and by descriptor file, with and without the registry's frame."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.flows.kafka.registering import framed
from tests.flows.kafka.sent import AT_US, decoded_one_by_one, messages, one, placed_rows, rows_of

from headrace.features import DefinitionError, Event, EventTime, KafkaSource
from headrace.flows.kafka.decoding import MessageDecoder

F = descriptor_pb2.FieldDescriptorProto
KINDS: list[tuple[str, int, str | None]] = [
    ("driver_id", F.TYPE_STRING, None),
    ("fare", F.TYPE_DOUBLE, None),
    ("status", F.TYPE_ENUM, ".rides.Status"),
    ("at", F.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
    ("tip", F.TYPE_MESSAGE, ".google.protobuf.DoubleValue"),
    ("riders", F.TYPE_INT32, None),
    ("stops", F.TYPE_STRING, None),
    ("car", F.TYPE_MESSAGE, ".rides.Car"),
    ("raw", F.TYPE_BYTES, None),
    ("big", F.TYPE_UINT64, None),
    ("at_ms", F.TYPE_INT64, None),
]


def described() -> descriptor_pb2.FileDescriptorSet:
    """What protoc makes of a file with these messages, the files that it imports included."""
    file = descriptor_pb2.FileDescriptorProto(
        name="rides.proto",
        package="rides",
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"],
    )
    file.message_type.add(name="Car").field.add(name="seats", number=1, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL)
    status = file.enum_type.add(name="Status")
    for number, name in enumerate(("UNKNOWN", "COMPLETED")):
        status.value.add(name=name, number=number)
    ride = file.message_type.add(name="Ride")
    for number, (name, kind, of) in enumerate(KINDS, 1):
        label = F.LABEL_REPEATED if name == "stops" else F.LABEL_OPTIONAL
        field = ride.field.add(name=name, number=number, type=kind, type_name=of, label=label)
        if name == "riders":
            field.proto3_optional = True
            field.oneof_index = 0
            ride.oneof_decl.add(name="_riders")
    found = descriptor_pb2.FileDescriptorSet()
    for imported in (timestamp_pb2, wrappers_pb2):
        imported.DESCRIPTOR.CopyToProto(found.file.add())
    found.file.append(file)
    return found


def message_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in described().file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rides.Ride"))


RideMessage = message_class()


class Ride(Event):
    driver_id: str
    fare: float
    status: str
    tip: float | None
    riders: int | None
    raw: bytes
    big: int
    missing: str | None
    at: EventTime


SENT = RideMessage(driver_id="7", fare=2.5, status=1, tip={"value": 0.0}, riders=0, raw=b"\xff", big=5, stops=["a"])
SENT.at.FromMicroseconds(AT_US + 1)
EVENT = {
    "driver_id": "7",
    "fare": 2.5,
    "status": "COMPLETED",
    "tip": 0.0,
    "riders": 0,
    "raw": b"\xff",
    "big": 5,
    "missing": None,
    "at": AT_US + 1,
}
RIDES = MessageDecoder(KafkaSource("rides", Ride, format="protobuf", schema=RideMessage))


def changed(**fields: Any) -> bytes:
    made = RideMessage()
    made.CopyFrom(SENT)
    for name, value in fields.items():
        if value is None:
            made.ClearField(name)
        else:
            setattr(made, name, value)
    whole: bytes = made.SerializeToString()
    return whole


def test_fields() -> None:
    assert one(RIDES, changed()) == EVENT
    assert one(RIDES, changed(tip=None, riders=None)) == {**EVENT, "tip": None, "riders": None}
    assert one(RIDES, changed(fare=None, driver_id=None, raw=None)) == {
        **EVENT,
        "fare": 0.0,
        "driver_id": "",
        "raw": b"",
    }
    assert one(RIDES, changed(status=7)) == {**EVENT, "status": "7"}
    assert one(RIDES, changed(big=2**63)) == "field 'big': 9223372036854775808 is beyond int64"
    assert one(RIDES, changed(at=None)) == "field 'at': null, but not declared `| None`"
    assert one(RIDES, b"") == "field 'at': null, but not declared `| None`"
    late = changed() + RideMessage(at={"seconds": 2**60}).SerializeToString()
    assert "is outside the years 1 to 9999" in one(RIDES, late)


def test_numbers_of_enums_and_instants_as_numbers() -> None:
    class Plain(Event):
        status: int
        at: EventTime

    source = KafkaSource("rides", Plain, format="protobuf", schema=RideMessage, columns={"at": "at_ms"}, unit="ms")
    assert one(MessageDecoder(source), changed(at_ms=AT_US // 1000)) == {"status": 1, "at": AT_US}


def test_a_descriptor_file(tmp_path: Path) -> None:
    file = tmp_path / "rides.desc"
    file.write_bytes(described().SerializeToString())
    source = KafkaSource("rides", Ride, format="protobuf", schema=f"{file}:rides.Ride")
    assert one(MessageDecoder(source), changed()) == EVENT
    for schema, message in [
        (f"{file}:rides.Rides", r"has no message 'rides.Rides'; did you mean 'rides.Ride'\?"),
        (f"{tmp_path / 'none'}:rides.Ride", "is no file descriptor set: .*No such file"),
    ]:
        with pytest.raises(DefinitionError, match=message):
            MessageDecoder(KafkaSource("rides", Ride, format="protobuf", schema=schema))


def event(**annotations: Any) -> Any:
    return type("Other", (Event,), {"__annotations__": {**annotations, "at": EventTime}})


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"stops": str}, "column 'stops'.* is repeated, and a column holds one value"),
        ({"car": int}, r"column 'car'.* is a rides\.Car, and a column holds one value"),
        ({"fares": float}, r"message rides\.Ride has no field 'fares'; did you mean 'fare'\?"),
    ],
)
def test_messages_that_do_not_fit_fail_at_once(annotations: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        MessageDecoder(KafkaSource("rides", event(**annotations), format="protobuf", schema=RideMessage))


def test_a_timestamp_of_another_column_type() -> None:
    booked = event(booked=datetime)
    source = KafkaSource("rides", booked, format="protobuf", schema=RideMessage, columns={"booked": "at"})
    assert one(MessageDecoder(source), changed()) == {"booked": AT_US + 1, "at": AT_US + 1}


FRAMED = MessageDecoder(
    KafkaSource("rides", Ride, format="protobuf", schema=RideMessage, registry="http://registry:8081")
)


@pytest.mark.parametrize("indexes", [b"\x00", b"\x02\x02", b"\x04\x02\x00", b"\x02\xe8\x07"])
def test_the_wire_format_of_a_registry(indexes: bytes) -> None:
    assert one(FRAMED, framed(5, indexes + changed())) == EVENT


def test_broken_messages() -> None:
    whole = changed()
    sent = [whole, whole[:-1], b"\xff\xff", b"{}", b'{"driver_id": "7"}']
    batch, dead, _ = RIDES.decode(messages(sent))
    assert rows_of(batch) == [EVENT]
    assert all("the message is no rides.Ride: " in letter.detail for letter in dead)
    broken = [framed(5, b"\x00" + whole), b"", whole, framed(5, b""), framed(5, b"\xff\xff"), framed(5, b"\x04\x02")]
    batch, dead, _ = FRAMED.decode(messages(broken))
    assert rows_of(batch) == [EVENT]
    assert [letter.offset for letter in dead] == [1, 2, 3, 4, 5]
    assert dead[0].detail.startswith("0 bytes are too few")
    assert dead[1].detail == "the first byte is 0x0a, and 0x00 in the registry's wire format"
    assert dead[3].detail == "the list of message indexes of schema 5 cannot be read"


@given(st.lists(st.one_of(st.binary(max_size=30), st.just(changed()), st.integers(0, 40)), max_size=10))
def test_a_mixture_is_decoded_as_one_by_one(parts: list[bytes | int]) -> None:
    whole = changed()
    sent = messages([whole[:part] if isinstance(part, int) else part for part in parts])
    for decoder in (RIDES, FRAMED):
        batch, dead, gone = decoder.decode(sent)
        events, letters, tombstones = decoded_one_by_one(decoder, sent)
        assert repr((placed_rows(batch), dead, gone)) == repr((events, letters, tombstones))
