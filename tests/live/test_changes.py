"""A view changes between two runs: what is unchanged goes on, what is new starts empty, is filled, or is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, FileSource, KafkaSource, derived
from headrace.features.time import format_instant
from headrace.flows import view_flow
from headrace.flows.backfill.handover import hand_over
from headrace.flows.recording import LOG
from headrace.flows.snapshot import SnapshotError
from headrace.flows.worker.forgetting import forget
from headrace.flows.worker.history import Topic
from headrace.flows.worker.online import OnlineWriter
from headrace.flows.worker.preparing import prepare
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
    history: FileSource | None = None

    def send(self, count: int) -> None:
        """Rides a minute apart or less, in order."""
        for i in range(self.sent, self.sent + count):
            driver = DRIVERS[i * i % 7]
            row = {"driver": driver, "fare": float(i % 11), "at": format_instant(START + i * MINUTE // 2)}
            self.kafka.produce(self.topic, [row], partition=DRIVERS.index(driver) % 3 if self.keyed else i % 3)
        self.sent += count

    def source(self) -> KafkaSource:
        options: dict[str, Any] = {"keyed_by": "driver"} if self.keyed else {}
        options |= {} if self.history is None else {"history": self.history}
        return KafkaSource(
            self.topic, Ride, name="rides", lateness="5m", bootstrap_servers=self.kafka.bootstrap, **options
        )

    def run(self, view: type[FeatureView], name: str, on_change: Any = "refuse", clock: Any = "stream") -> FlowSettings:
        settings = FlowSettings(
            name=f"{self.topic}-{name}",
            data=str(self.folder / name),
            online=self.url,
            project=name,
            clock=clock,
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


def test_a_live_flow_that_stopped_behind_a_small_batch_is_filled_from_history(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as small:  # a live flow settles now and then, and may be stopped in between
        small.setattr(view_flow, "SETTLE_US", 2**63)
        small.setattr(view_flow, "SETTLE_EVENTS", 2**63)
        bench.run(before(bench.source()), "flow", clock="wall")
    bench.send(100)
    view = after(bench.source())
    bench.run(view, "flow", "backfill", clock="wall")
    bench.run(view, "whole", clock="wall")
    got, whole = bench.log(view, "flow"), bench.log(view, "whole")
    settled = START + 150 * MINUTE // 2 - 5 * MINUTE
    new = {at: row for at, row in whole.items() if us(at[1]) > settled}
    assert len(new) > 100
    assert {at: got.get(at) for at in new} == new


def test_a_change_is_prepared_beside_the_flow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = bench.run(before(bench.source()), "flow")
    view = after(bench.source())
    made = prepare([view], settings)
    assert {part.views for part in made} == {("drivers",)}
    assert len(made) == 3
    bench.send(60)
    bench.run(before(bench.source()), "flow")  # goes on as it was
    again = prepare([view], settings)
    assert sum(part.read for part in again) == (60 if bench.keyed else 3 * 60), "it went on from the first one"
    bench.send(40)
    bench.run(before(bench.source()), "flow")
    read: list[tuple[int | None, int]] = []
    batches = Topic.batches

    def counted(self: Topic, number: int, first: int | None, upto: int, progress: Any = None) -> Iterator[Any]:
        read.append((first, upto))
        return batches(self, number, first, upto, progress)

    monkeypatch.setattr(Topic, "batches", counted)
    with monkeypatch.context() as broken:  # dies when all is ready, before anything is shown
        broken.setattr(OnlineWriter, "migrate", _dies)
        with pytest.raises(KeyboardInterrupt):
            bench.run(view, "flow", "backfill")
    old = before(bench.source())
    assert bench.online(old, "flow")
    assert "gone" in next(iter(bench.log(old, "flow").values()))
    assert list((bench.folder / "flow").rglob("prepared/*.state"))
    bench.run(view, "flow", "backfill")
    assert all(first is not None and upto - first <= 40 for first, upto in read)
    assert sum(upto - (first or 0) for first, upto in read[-3:]) <= 40 * (1 if bench.keyed else 3)
    assert not list((bench.folder / "flow").rglob("prepared/*.state")), "nobody needs it any more"
    bench.run(view, "whole")
    assert bench.online(view, "flow") == bench.online(view, "whole")
    got, whole = bench.log(view, "flow"), bench.log(view, "whole")
    settled = START + 250 * MINUTE // 2 - 5 * MINUTE
    new = {at: row for at, row in whole.items() if us(at[1]) > settled}
    assert len(new) > 30
    assert {at: got.get(at) for at in new} == new
    assert prepare([view], settings) == []


@pytest.mark.parametrize("keyed", [True, False])
def test_a_flow_that_began_with_files_is_prepared_from_them(
    kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, keyed: bool
) -> None:
    rows = [
        {"driver": DRIVERS[i * i % 7], "fare": float(i % 11), "at": format_instant(START + i * MINUTE // 2)}
        for i in range(300)
    ]
    whole = Bench(kafka, kafka.new_topic(3, "whole"), redis_server.url, tmp_path, keyed)
    kafka.produce(whole.topic, rows, key="driver")
    past = tmp_path / "past.jsonl"
    past.write_text("".join(json.dumps(row) + "\n" for row in rows[:120]))
    bench = Bench(kafka, kafka.new_topic(3, "rides"), redis_server.url, tmp_path, keyed)
    bench.history = FileSource(past, Ride, format="jsonl")
    kafka.produce(bench.topic, rows[90:150], key="driver")  # some of it is in the file
    settings = FlowSettings(
        name=f"{bench.topic}-flow", data=str(tmp_path / "flow"), online=bench.url, project="flow", clock="stream"
    )
    hand_over([before(bench.source())], settings)
    bench.run(before(bench.source()), "flow")
    view = after(bench.source())
    with pytest.raises(SnapshotError, match="headrace prepare"):
        bench.run(view, "flow", "backfill")
    prepare([view], settings)
    kafka.produce(bench.topic, rows[150:], key="driver")
    bench.run(view, "flow", "backfill")
    whole.run(after(whole.source()), "whole")
    whole_view = after(whole.source())
    assert bench.online(view, "flow") == whole.online(whole_view, "whole")
    got, expected = bench.log(view, "flow"), whole.log(whole_view, "whole")
    settled = START + 150 * MINUTE // 2 - 5 * MINUTE
    new = {at: row for at, row in expected.items() if us(at[1]) > settled}
    assert len(new) > 60
    assert {at: got.get(at) for at in new} == new


def _dies(*_: Any) -> None:
    raise KeyboardInterrupt


def test_started_afresh(bench: Bench) -> None:
    settings = bench.run(before(bench.source()), "flow")
    view = after(bench.source())
    forget([view], settings)
    bench.run(view, "flow")
    bench.run(view, "whole")
    assert bench.log(view, "flow") == bench.log(view, "whole")
    assert bench.online(view, "flow") == bench.online(view, "whole")
