"""Events pushed over HTTP lie in the topic, a flow computes features from them, and lookups over HTTP give these."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka
from tests.serving.compat.serving import Reply, Served

from headrace.features import Entity, Event, EventTime, FeatureService, FeatureView, KafkaSource, MessageKey
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.ops.pushes import pushing
from headrace.stores.redis import RedisStore

NOW = 1_777_636_860
"""A minute after the events, which are of a fixed day."""


class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime


def definitions(kafka: Kafka, **options: Any) -> tuple[Any, FeatureService]:
    source = KafkaSource(kafka.new_topic(2), Ride, name="rides", bootstrap_servers=kafka.bootstrap, **options)

    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver_id")):
        rides = Ride.count(last="1h")
        fares = Ride.fare.sum(last="1h")

    return Drivers, FeatureService("pricing", [Drivers])


def run(view: Any, redis: RedisAddress, data: Path, layout: Any = "feast") -> dict[str, int]:
    """The flow, until it has read its topic; how many events it read."""
    settings = FlowSettings(
        name=f"pushed-{uuid.uuid4().hex[:8]}",
        data=str(data),
        online=redis.url,
        project="pushed",
        layout=layout,
        clock="stream",
        until_end=True,
    )
    return dict(run_worker([view], settings).read)


def looked_up(server: Served, drivers: list[str]) -> dict[str, list[Any]]:
    """Feature -> values."""
    answered = server.ask({"feature_service": "pricing", "entities": {"driver_id": drivers}})
    assert answered.status == 200, answered.json
    names, results = answered.json["metadata"]["feature_names"], answered.json["results"]
    return {name: each["values"] for name, each in zip(names, results, strict=True)}


def push(server: Served, name: str, **body: Any) -> Reply:
    return server.ask({"push_source_name": name, **body}, "/push")


@pytest.mark.parametrize("options", [{"keyed_by": "driver_id"}, {"columns": {"driver_id": MessageKey()}}, {}])
def test_from_a_pushed_event_to_a_served_feature(
    kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, options: dict[str, Any]
) -> None:
    view, service = definitions(kafka, **options)
    events = [
        {"driver_id": driver, "fare": fare, "at": f"2026-05-01T12:00:{second:02d}Z"}
        for second, (driver, fare) in enumerate([("7", 1.5), ("8", 2), ("7", 3.0), ("7", 0.5)])
    ]
    with RedisStore(redis_server.url, project="pushed", expire=False) as store:
        pushes = pushing(store, service.views, {}, most=100, timeout_s=60.0)
        with Served(store, [service], pushes=pushes) as server:
            broken = [*events, {"driver_id": "7", "fare": "much", "at": "2026-05-01T12:00:09Z"}]
            refused = push(server, "rides", events=broken)
            assert (refused.status, refused.json["field"]) == (422, "events[4]")
            answered = push(server, "rides", events=events)
            assert (answered.status, answered.json) == (200, {"events": 4}), answered.json
            assert run(view, redis_server, tmp_path) == {"rides": 4}
            expected = {"driver_id": ["8", "7"], "rides": [1, 3], "fares": [2.0, 5.0]}
            assert looked_up(server, ["8", "7"]) == expected
        pushes.close()


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_a_pushed_row_and_a_flows_row_are_told_apart_by_their_instants(
    kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, layout: Any
) -> None:
    view, service = definitions(kafka)
    event = {"driver_id": "7", "fare": 2.0, "at": "2026-05-01T12:00:00Z"}
    kafka.produce(view.__view__.source.topic, [event], key="driver_id")
    with RedisStore(redis_server.url, project="pushed", layout=layout, expire=False) as store:
        pushes = pushing(store, service.views, {}, most=100, timeout_s=60.0)
        pushes._now = lambda: NOW
        with Served(store, [service], pushes=pushes) as server:

            def pushed(second: int, rides: int) -> Any:
                stamp = f"2026-05-01T12:00:{second:02d}Z"
                df = {"driver_id": ["7"], "rides": [rides], "fares": [1], "event_timestamp": [stamp]}
                return push(server, "drivers", df=df).json

            assert pushed(10, rides=100) == {"written": 1, "older": 0}
            assert run(view, redis_server, tmp_path, layout) == {"rides": 1}
            assert looked_up(server, ["7"])["rides"] == [100]  # the flow's row, as of 12:00:00, is older
            assert pushed(9, rides=200) == {"written": 0, "older": 1}
            assert looked_up(server, ["7"])["rides"] == [100]
            assert pushed(11, rides=300) == {"written": 1, "older": 0}
            assert looked_up(server, ["7"])["rides"] == [300]
        pushes.close()


def test_a_topic_that_does_not_answer_is_told_in_time(redis_server: RedisAddress) -> None:
    source = KafkaSource("rides", Ride, bootstrap_servers="127.0.0.1:1")

    class Away(FeatureView, source=source, entity=Entity("driver", key="driver_id")):
        rides = Ride.count(last="1h")

    with RedisStore(redis_server.url) as store:
        pushes = pushing(store, [Away.__view__], {}, most=100, timeout_s=1.0)  # type: ignore[list-item]
        with Served(store, [Away], pushes=pushes) as server:
            event = {"driver_id": "7", "fare": 1, "at": "2026-05-01T12:00:00Z"}
            answered = push(server, "rides", events=[event])
            assert (answered.status, answered.headers["retry-after"]) == (503, "1")
            assert "did not acknowledge the events of source 'rides' in time" in answered.json["detail"]
        pushes.close()
