"""Each format from a topic to the online store: what a worker reads is what was sent, and broken messages are kept."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace import Client
from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource, MessageHeader, MessageKey, MessageTime
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog
from tests.flows.kafka.registering import FakeRegistry, framed, serving
from tests.flows.kafka.test_avro import SCHEMA, datum
from tests.flows.kafka.test_protobuf import RideMessage
from tests.servers.kafka import Kafka

BEGIN = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime


class Click(Event):
    user: int
    page: str | None
    body: bytes
    at: EventTime


def rides() -> list[tuple[str, float, datetime]]:
    return [(f"d{i % 3}", i / 2, BEGIN + timedelta(seconds=i)) for i in range(30)]


def avro(driver: str, fare: float, at: datetime) -> bytes:
    return framed(1, datum(SCHEMA, {"other": [], "driver_id": driver, "fare": fare, "riders": None, "at": at}))


def protobuf(driver: str, fare: float, at: datetime) -> bytes:
    made = RideMessage(driver_id=driver, fare=fare)
    made.at.FromDatetime(at)
    whole: bytes = framed(2, b"\x00" + made.SerializeToString())
    return whole


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    fake.add(1, SCHEMA)
    with serving(fake):
        yield fake


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_rides(format: str, kafka: Kafka, registry: FakeRegistry, tmp_path: Path) -> None:
    topic = kafka.new_topic(2)
    write = avro if format == "avro" else protobuf
    sent = [write(*ride) for ride in rides()]
    kafka.produce(topic, [None, *sent[:15], b"poison", *sent[15:]], partition=1)
    schema = {"schema": RideMessage} if format == "protobuf" else {}
    source = KafkaSource(
        topic,
        Ride,
        name="rides",
        keyed_by="driver_id",
        format=format,
        registry=registry.url,
        bootstrap_servers=kafka.bootstrap,
        **schema,
    )

    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver_id")):
        rides = Ride.count(last="30m")
        fares = Ride.fare.sum(last="30m")

    summary = run_worker([Drivers], settings(topic, tmp_path))
    assert (summary.taken, dict(summary.dead)) == (30, {"malformed": 1})
    with EmbeddedStore(tmp_path / "online", read_only=True) as store:
        for i in range(3):
            got = Client(store).get(Drivers, driver_id=f"d{i}").to_dict()
            assert got == {"rides": 10, "fares": sum(fare for driver, fare, _ in rides() if driver == f"d{i}")}
    (letter,) = read_dead_letters(OfflineLog(tmp_path / "log")).to_pylist()
    assert (letter["source"], letter["topic"], letter["partition"], letter["offset"]) == ("rides", topic, 1, 16)
    assert letter["payload"] == '"poison"'


def test_clicks(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(1)
    at_ms = int(BEGIN.timestamp()) * 1000
    for page in (b"/a", b"/b"):
        kafka.produce(topic, [{"user": 7}] * 5, key="user", headers={"page": page}, timestamp_ms=at_ms)
    parts: dict[str, Any] = {"user": MessageKey(), "page": MessageHeader("page"), "at": MessageTime()}
    source = KafkaSource(topic, Click, name="clicks", format="raw", columns=parts, bootstrap_servers=kafka.bootstrap)

    class Users(FeatureView, source=source, entity=Entity("user", key="user")):
        clicks = Click.count(last="30m")
        pages = Click.page.distinct(last="30m")
        page = Click.page.last(last="30m")

    assert run_worker([Users], settings(topic, tmp_path)).taken == 10
    with EmbeddedStore(tmp_path / "online", read_only=True) as store:
        assert Client(store).get(Users, user=7).to_dict() == {"clicks": 10, "pages": 2, "page": "/b"}


def settings(name: str, data: Path) -> FlowSettings:
    return FlowSettings(name=name, data=str(data), clock="stream", until_end=True)
