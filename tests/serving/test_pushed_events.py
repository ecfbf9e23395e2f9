"""Events pushed over HTTP lie in the topic, a flow computes features from them, and lookups over HTTP give these."""

import time
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka
from tests.serving.http.asgi import ask

from headrace.features import Entity, Event, EventTime, FeatureService, FeatureView, KafkaSource, MessageKey
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.ops.pushes import pushing
from headrace.serving import AsyncClient
from headrace.serving.http import lookup_app
from headrace.stores.redis import RedisStore


class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime


def looked_up(store: RedisStore, service: FeatureService, drivers: list[str]) -> dict[str, list[Any]]:
    """What the server answers: feature -> values. One server for each request, as each has an event loop of its own."""
    app = lookup_app(AsyncClient(store, [service]))
    answered = ask(
        app, "POST", "/get-online-features", {"feature_service": "pricing", "entities": {"driver_id": drivers}}
    )
    assert answered.status == 200, answered.json
    names, results = answered.json["metadata"]["feature_names"], answered.json["results"]
    return {name: each["values"] for name, each in zip(names, results, strict=True)}


def definitions(kafka: Kafka, **options: Any) -> tuple[Any, FeatureService]:
    source = KafkaSource(kafka.new_topic(2), Ride, name="rides", bootstrap_servers=kafka.bootstrap, **options)

    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver_id")):
        rides = Ride.count(last="1h")
        fares = Ride.fare.sum(last="1h")

    return Drivers, FeatureService("pricing", [Drivers])


@pytest.mark.parametrize("options", [{"keyed_by": "driver_id"}, {"columns": {"driver_id": MessageKey()}}, {}])
def test_from_a_pushed_event_to_a_served_feature(
    kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, options: dict[str, Any]
) -> None:
    view, service = definitions(kafka, **options)
    with RedisStore(redis_server.url, project="pushed", expire=False) as store:
        pushes = pushing(store, service.views, {}, most=100, timeout_s=20.0)
        app = lookup_app(AsyncClient(store, [service]), pushes=pushes)
        events = [
            {"driver_id": driver, "fare": fare, "at": f"2026-05-01T12:00:{second:02d}Z"}
            for second, (driver, fare) in enumerate([("7", 1.5), ("8", 2), ("7", 3.0), ("7", 0.5)])
        ]
        body = {"push_source_name": "rides", "events": events}
        broken = {**body, "events": [*events, {"driver_id": "7", "fare": "much", "at": "2026-05-01T12:00:09Z"}]}
        refused = ask(app, "POST", "/push", broken)
        assert (refused.status, refused.json["field"]) == (422, "events[4]")
        answered = ask(app, "POST", "/push", body)
        assert (answered.status, answered.json) == (200, {"events": 4}), answered.json
        flow = FlowSettings(
            name="pushed", data=str(tmp_path), online=redis_server.url, project="pushed", clock="stream", until_end=True
        )
        assert run_worker([view], flow).read == {"rides": 4}
        expected = {"driver_id": ["8", "7"], "rides": [1, 3], "fares": [2.0, 5.0]}
        assert looked_up(store, service, ["8", "7"]) == expected
        pushes.close()


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_a_pushed_row_and_a_flows_row_are_told_apart_by_their_instants(
    kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, layout: Any
) -> None:
    view, service = definitions(kafka)
    kafka.produce(
        view.__view__.source.topic, [{"driver_id": "7", "fare": 2.0, "at": "2026-05-01T12:00:00Z"}], key="driver_id"
    )
    with RedisStore(redis_server.url, project="pushed", layout=layout, expire=False) as store:
        pushes = pushing(store, service.views, {}, most=100, timeout_s=20.0)
        app = lookup_app(AsyncClient(store, [service]), pushes=pushes)

        def push(second: int, rides: int) -> Any:
            df = {
                "driver_id": ["7"],
                "rides": [rides],
                "fares": [1],
                "event_timestamp": [f"2026-05-01T12:00:{second:02d}Z"],
            }
            return ask(app, "POST", "/push", {"push_source_name": "drivers", "df": df}).json

        def rides() -> Any:
            return looked_up(store, service, ["7"])["rides"]

        now = 1_777_636_800 + 60
        pushes._now = lambda: now  # the events are of a fixed day
        assert push(10, rides=100) == {"written": 1, "older": 0}
        flow = FlowSettings(
            name=f"pushed-{layout}",
            data=str(tmp_path),
            online=redis_server.url,
            project="pushed",
            layout=layout,
            clock="stream",
            until_end=True,
        )
        run_worker([view], flow)
        assert rides() == [100]  # the flow's row, as of 12:00:00, is older
        assert push(9, rides=200) == {"written": 0, "older": 1}
        assert rides() == [100]
        assert push(11, rides=300) == {"written": 1, "older": 0}
        assert rides() == [300]
        pushes.close()


def test_a_topic_that_does_not_answer_is_503_in_time(kafka: Kafka, redis_server: RedisAddress) -> None:
    source = KafkaSource("rides", Ride, bootstrap_servers="127.0.0.1:1")

    class Away(FeatureView, source=source, entity=Entity("driver", key="driver_id")):
        rides = Ride.count(last="1h")

    with RedisStore(redis_server.url) as store:
        pushes = pushing(store, [Away.__view__], {}, most=100, timeout_s=1.0)  # type: ignore[list-item]
        app = lookup_app(AsyncClient(store, [Away]), pushes=pushes)
        began = time.monotonic()
        event = {"driver_id": "7", "fare": 1, "at": "2026-05-01T12:00:00Z"}
        answered = ask(app, "POST", "/push", {"push_source_name": "rides", "events": [event]})
        assert (answered.status, answered.headers["retry-after"]) == (503, "1")
        assert "did not acknowledge the events of source 'rides' in time" in answered.json["detail"]
        assert time.monotonic() - began < 60
        pushes.close()
