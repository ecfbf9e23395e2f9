"""From files to a live flow: history and topic together give what the topic alone would have given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from headrace.cli.commands import app
from headrace.features import Entity, Event, EventTime, FeatureView, FileSource, KafkaSource
from headrace.features.time import format_instant
from headrace.flows.backfill.handover import hand_over
from headrace.flows.recording import LOG, Summary
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.serving import Client
from headrace.stores.offline import OfflineLog
from headrace.stores.opening import open_online
from tests.servers.kafka import Kafka

MINUTE = 60_000_000
START = 1_767_225_600_000_000  # 2026-01-01T00:00Z
DRIVERS = [f"d{i}" for i in range(9)]


class Ride(Event):
    ride: str
    driver: str
    fare: float
    at: EventTime


def rides(count: int) -> list[dict[str, Any]]:
    """Rides half a minute apart, every fifth a minute late, three at one instant now and then."""
    made = []
    for i in range(count):
        us = START + (i - (i % 3 if i % 24 > 20 else 0) - (2 if i % 5 == 4 else 0)) * MINUTE // 2
        fare = float(i * 7 % 11)
        made.append({"ride": f"r{i}", "driver": DRIVERS[i * i % 9], "fare": fare, "at": format_instant(us)})
    return made


def view_over(source: KafkaSource) -> type[FeatureView]:
    class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver"), name="drivers"):
        rides = Ride.count(last="30m", hop="1m")
        fare = Ride.fare.last(last="20m", hop="1m")
        spent = Ride.fare.sum(last="10m", exact=True)

    return Drivers


@dataclass
class Bench:
    """A topic of rides, and flows over it. history: more arguments of the source."""

    kafka: Kafka
    topic: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def send(self, rows: list[dict[str, Any]], topic: str = "", **settings: Any) -> list[tuple[int, int]]:
        return self.kafka.produce(topic or self.topic, rows, key="driver", **settings)

    def view(self, topic: str = "", **options: Any) -> type[FeatureView]:
        source = KafkaSource(
            topic or self.topic,
            Ride,
            name="rides",
            lateness="5m",
            bootstrap_servers=self.kafka.bootstrap,
            **self.options,
            **options,
        )
        return view_over(source)

    def settings(self, name: str, **more: Any) -> FlowSettings:
        return FlowSettings(
            name=f"{self.topic}-{name}", data=str(self.folder / name), clock="stream", until_end=True, **more
        )

    def history(self, rows: list[dict[str, Any]], **columns: Any) -> FileSource:
        """The rows as a file, those of odd numbers and of even ones in one each, in order."""
        frame = pl.DataFrame(rows).with_columns(pl.col("at").str.to_datetime("%+", time_unit="us", time_zone="UTC"))
        frame = frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})
        half = len(rows) // 2
        (self.folder / "past").mkdir(exist_ok=True)
        frame[:half].write_parquet(self.folder / "past" / "1.parquet")
        frame[half:].write_parquet(self.folder / "past" / "2.parquet")
        return FileSource(str(self.folder / "past" / "*.parquet"), Ride)

    def hand_over(self, view: type[FeatureView], name: str = "flow", **options: Any) -> Summary:
        return hand_over([view], self.settings(name), **options)

    def run(self, view: type[FeatureView], name: str) -> Summary:
        return run_worker([view], self.settings(name))

    def log(self, name: str) -> dict[tuple[str, Any], dict[str, Any]]:
        """Every row by driver and instant."""
        found: dict[tuple[str, Any], dict[str, Any]] = {}
        for row in OfflineLog(self.folder / name / LOG).scan(self.view()).to_pylist():
            at = row["driver"], row["event_timestamp"]
            assert at not in found, "a row came twice"
            found[at] = row
        return found

    def online(self, name: str) -> dict[str, Mapping[str, Any]]:
        store = open_online(str(self.folder / name / "online"))
        try:
            client = Client(store)
            return {driver: dict(client.get(self.view(), {"driver": driver})) for driver in DRIVERS}
        finally:
            store.close()

    def same(self, name: str, other: str) -> None:
        log, whole = self.log(name), self.log(other)
        assert len(whole) > 100
        assert log == whole
        assert self.online(name) == self.online(other)


@pytest.fixture(params=["keyed", "re-keyed"])
def bench(request: pytest.FixtureRequest, kafka: Kafka, tmp_path: Path) -> Bench:
    options = {"keyed_by": "driver"} if request.param == "keyed" else {}
    return Bench(kafka, kafka.new_topic(3, "rides"), tmp_path, options)


def test_history_by_time_and_then_the_topic(bench: Bench) -> None:
    rows = rides(400)
    whole = bench.kafka.new_topic(3, "whole")
    bench.send(rows, whole)
    bench.run(bench.view(whole), "whole")
    bench.send(rows[120:250])  # what is left of the past, and some of it is in the file
    view = bench.view(history=bench.history(rows[:250]))
    bench.hand_over(view)
    bench.send(rows[250:330])
    summary = bench.run(view, "flow")
    assert summary.taken == 80
    bench.send(rows[330:])
    bench.run(view, "flow")
    bench.same("flow", "whole")


def test_history_by_offset_and_then_the_topic(bench: Bench) -> None:
    rows = rides(300)
    places = bench.send(rows[:200])
    last = {n: int(0.6 * sum(place[0] == n for place in places)) for n in range(3)}
    old = [(row, *place) for row, place in zip(rows, places, strict=False) if place[1] < last[place[0]]]
    history = bench.history(
        [row for row, _, _ in old],
        kafka_partition=[partition for _, partition, _ in old],
        kafka_offset=[offset for _, _, offset in old],
    )
    view = bench.view(history=history, history_position=("kafka_partition", "kafka_offset"))
    assert bench.hand_over(view).taken == len(old)
    bench.send(rows[200:])
    assert bench.run(view, "flow").taken == 300 - len(old)
    bench.run(bench.view(), "whole")
    bench.same("flow", "whole")


VIEWS = """
from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource


class Ride(Event):
    ride: str
    driver: str
    fare: float
    at: EventTime


source = KafkaSource({topic!r}, Ride, name="rides", keyed_by="driver", lateness="5m", dedup=Ride.ride,
                     bootstrap_servers={bootstrap!r})


class Drivers(FeatureView, source=source, entity=Entity("driver", key="driver"), name="drivers"):
    rides = Ride.count(last="30m", hop="1m")
    fare = Ride.fare.last(last="20m", hop="1m")
    spent = Ride.fare.sum(last="10m", exact=True)
"""


def test_by_the_command_line_from_an_export_cut_anywhere(kafka: Kafka, tmp_path: Path) -> None:
    bench = Bench(kafka, kafka.new_topic(3, "rides"), tmp_path, {"keyed_by": "driver", "dedup": "ride"})
    rows = rides(240)
    bench.send(rows[:180])
    bench.history([row for i, row in enumerate(rows[:150]) if i < 140 or i % 3])  # late ones were not there yet
    (tmp_path / "views.py").write_text(VIEWS.format(topic=bench.topic, bootstrap=kafka.bootstrap))
    (tmp_path / "headrace.toml").write_text(f'[flow]\nname = "{bench.topic}-flow"\nclock = "stream"\n')
    words = ["backfill", str(tmp_path / "views.py"), "--data", str(tmp_path / "flow"), "--quiet", "--json"]
    made = CliRunner().invoke(app, [*words, "--history", f"rides={tmp_path}/past/*.parquet"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["taken"] == 147
    bench.send(rows[180:])
    summary = bench.run(bench.view(), "flow")
    assert summary.taken == 93
    bench.run(bench.view(), "whole")
    bench.same("flow", "whole")
