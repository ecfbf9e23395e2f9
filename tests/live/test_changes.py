"""A view changes between two runs: what is unchanged goes on, what is new starts empty, is filled, or is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource, derived
from headrace.features.time import format_instant
from headrace.flows.recording import LOG
from headrace.flows.snapshot import SnapshotError
from headrace.flows.worker.forgetting import forget
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.serving import Client
from headrace.stores.offline import OfflineLog
from headrace.stores.opening import open_online
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka

MINUTE = 60_000_000
START = 1_767_225_600_000_000  # 2026-01-01T00:00Z
DRIVERS = [f"d{i}" for i in range(7)]


class Ride(Event):
    driver: str
    fare: float
    at: EventTime


def before(source: KafkaSource) -> type[FeatureView]:
    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver"), name="drivers"):
        rides = Ride.count(last="30m", hop="1m")
        gone = Ride.fare.min(last="10m", hop="1m")

    return Drivers


def after(source: KafkaSource) -> type[FeatureView]:
    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver"), name="drivers"):
        rides = Ride.count(last="30m", hop="1m")
        longer = Ride.count(last="40m", hop="1m")
        spent = Ride.fare.sum(last="30m", hop="1m")
        mean = derived(spent / rides, default=0.0)

    return Drivers


def us(instant: Any) -> int:
    return int(instant.timestamp() * 1e6)


@dataclass
class Bench:
    """A topic of rides, and flows over it."""

    kafka: Kafka
    topic: str
    url: str
    folder: Path
    keyed: bool
    sent: int = 0

    def send(self, count: int) -> None:
        """Rides a minute apart or less, in order."""
        for i in range(self.sent, self.sent + count):
            driver = DRIVERS[i * i % 7]
            row = {"driver": driver, "fare": float(i % 11), "at": format_instant(START + i * MINUTE // 2)}
            self.kafka.produce(self.topic, [row], partition=DRIVERS.index(driver) % 3 if self.keyed else i % 3)
        self.sent += count

    def source(self) -> KafkaSource:
        options: dict[str, Any] = {"keyed_by": "driver"} if self.keyed else {}
        return KafkaSource(
            self.topic, Ride, name="rides", lateness="5m", bootstrap_servers=self.kafka.bootstrap, **options
        )

    def run(self, view: type[FeatureView], name: str, on_change: Any = "refuse") -> FlowSettings:
        settings = FlowSettings(
            name=f"{self.topic}-{name}",
            data=str(self.folder / name),
            online=self.url,
            project=name,
            clock="stream",
            until_end=True,
            on_change=on_change,
        )
        run_worker([view], settings)
        return settings

    def log(self, view: type[FeatureView], name: str) -> dict[tuple[str, Any], dict[str, Any]]:
        """Every row by driver and instant."""
        rows = OfflineLog(self.folder / name / LOG).scan(view).to_pylist()
        found = {(row["driver"], row["event_timestamp"]): row for row in rows}
        assert len(found) == len(rows), "a row came twice"
        return found

    def online(self, view: type[FeatureView], name: str) -> dict[str, Mapping[str, Any]]:
        store = open_online(self.url, project=name, expire=False)
        try:
            client = Client(store)
            return {driver: dict(client.get(view, {"driver": driver})) for driver in DRIVERS}
        finally:
            store.close()


@pytest.fixture(params=["keyed", "re-keyed"])
def bench(request: pytest.FixtureRequest, kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> Bench:
    made = Bench(kafka, kafka.new_topic(3, "rides"), redis_server.url, tmp_path, request.param == "keyed")
    made.send(150)
    return made


def test_refused_in_words(bench: Bench) -> None:
    bench.run(before(bench.source()), "flow")
    with pytest.raises(SnapshotError, match=r"(?s)longer.*start.*backfill"):
        bench.run(after(bench.source()), "flow")
    bench.run(before(bench.source()), "flow")  # nothing was harmed


def test_new_features_start_empty(bench: Bench) -> None:
    bench.run(before(bench.source()), "flow")
    bench.send(200)
    view = after(bench.source())
    bench.run(view, "flow", "start")
    bench.run(view, "whole")
    got, whole = bench.log(view, "flow"), bench.log(view, "whole")
    changed = START + 150 * MINUTE // 2 - 5 * MINUTE
    after_all = {at: row for at, row in whole.items() if us(at[1]) > changed + 45 * MINUTE}
    assert len(after_all) > 100
    assert {at: row for at, row in got.items() if us(at[1]) > changed + 45 * MINUTE} == after_all
    both = got.keys() & whole.keys()
    assert all(got[at]["rides"] == whole[at]["rides"] for at in both)
    assert all(row["longer"] is None for at, row in got.items() if us(at[1]) < changed - 5 * MINUTE)
    fewer = [at for at in both if got[at]["longer"] not in (None, whole[at]["longer"])]
    assert fewer, "a window that began before the change knows only what came after it"
    assert all(got[at]["longer"] < whole[at]["longer"] for at in fewer)


def test_new_features_are_filled_from_history(bench: Bench) -> None:
    bench.run(before(bench.source()), "flow")
    bench.send(100)
    bench.run(after(bench.source()), "flow", "backfill")
    bench.run(after(bench.source()), "whole")
    assert bench.online(after(bench.source()), "flow") == bench.online(after(bench.source()), "whole")
    got, whole = bench.log(after(bench.source()), "flow"), bench.log(after(bench.source()), "whole")
    settled = START + 150 * MINUTE // 2 - 5 * MINUTE
    new = {at: row for at, row in whole.items() if us(at[1]) > settled}
    assert len(new) > 100
    assert {at: got.get(at) for at in new} == new


def test_started_afresh(bench: Bench) -> None:
    settings = bench.run(before(bench.source()), "flow")
    view = after(bench.source())
    forget([view], settings)
    bench.run(view, "flow")
    bench.run(view, "whole")
    assert bench.log(view, "flow") == bench.log(view, "whole")
    assert bench.online(view, "flow") == bench.online(view, "whole")
