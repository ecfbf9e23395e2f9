"""Backfills whose work Spark's executors do: what they leave is what one process leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer

from headrace.features import FileSource, KafkaSource
from headrace.features.errors import DataError
from headrace.flows.backfill import backfill
from headrace.flows.backfill.handover import hand_over
from headrace.flows.spark.crew import SparkCrew
from headrace.flows.spark.query import run_on_spark
from headrace.flows.spark.settings import SparkSettings
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.stores.offline import OfflineLog
from tests.flows.test_backfill import Ride, online, rides, views_of
from tests.flows.test_backfill_apart import same
from tests.flows.test_handover import Case, Flow, Topic
from tests.flows.test_handover_refused import VIEW, case_of, events_by, source, topic_of
from tests.oracle.definitions import Happening, definition_of
from tests.servers.kafka import Kafka

pytestmark = pytest.mark.timeout(480)  # beside others a JVM and its Python processes take their time

VIEWS = """
from headrace.features import Entity, Event, EventTime, FeatureView, FileSource

class Ride(Event):
    driver: str
    fare: float
    at: EventTime

rides = FileSource("rides/*.csv", Ride, lateness="1m")

class ByDriver(FeatureView, source=rides, entity=Entity("driver", key="driver")):
    count_1h = Ride.count(last="1h")
    fare_mean = Ride.fare.mean(last="10m")
"""


def written(folder: Path, pieces: int) -> Path:
    folder.mkdir()
    events = rides(3000, 3)
    for at in range(pieces):
        pa.csv.write_csv(events.slice(at * 3000 // pieces, 3000 // pieces), folder / f"{at}.csv")
    return folder


def views(folder: Path, killed: Path) -> list[Any]:
    """The process that is asked for them first, unless it is the driver, is killed."""
    if not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return views_of([FileSource(folder, Ride, name="rides", format="csv", lateness="1m")])


def histories(past: Path) -> list[Any]:
    return [definition_of(VIEW, source=source(history=FileSource(past, Happening, format="parquet"), lateness="1m"))]


def refused(folder: Path) -> list[Any]:
    return views_of([FileSource(folder, Ride, name="rides", format="csv")])


def test_executors_leave_what_one_process_leaves(tmp_path: Path) -> None:
    folder, killed = written(tmp_path / "rides", 5), tmp_path / "killed"
    with SparkCrew(SparkSettings("local[2]"), partial(views, folder, killed)) as crew:
        killed.touch()
        its = views(folder, killed)
        killed.unlink()
        backfill(its, tmp_path / "spark", batch_size=300, crew=crew)
        assert killed.exists(), "no process of an executor was killed"
        backfill(its, tmp_path / "here")
        same(its, tmp_path / "spark", tmp_path / "here")

        # A history that a live flow goes on from: Kafka is a topic in memory, of which the driver alone is told.
        events = events_by("murmur2")
        case: Case = case_of(events, 30)
        past = tmp_path / "past"
        past.mkdir()
        table = case.table()
        for at in range(3):
            pq.write_table(table.slice(at * 10, 10), past / f"{at}.parquet")
        topic: Topic = topic_of(events)
        flow = Flow(case, topic, tmp_path / "flow")
        load = partial(histories, past)
        crew.load = load
        hand_over(load(), flow.settings, look=lambda *_: topic, crew=crew)
        flow.run(7, 1.0, killed=False)
        flow.check()

        # What an executor finds wrong is said as it would be here.
        other = tmp_path / "other"
        other.mkdir()
        (other / "0.csv").write_text("driver,at\nd1,2026-01-01T00:00:00Z\n")
        crew.load = partial(refused, other)
        with pytest.raises(DataError, match=r"fare"):
            backfill(refused(other), tmp_path / "refused", crew=crew)


def from_history(topic: str, bootstrap: str, past: Path) -> list[Any]:
    """A view keyed like the topic, and one that is not."""
    history = FileSource(past, Ride, format="parquet", name="past")
    source = KafkaSource(
        topic, Ride, name="rides", lateness="1m", keyed_by="driver", partitioner="crc32", history=history,
        bootstrap_servers=bootstrap,
    )  # fmt: skip
    return views_of([source])


def test_a_live_flow_on_spark_goes_on_from_history(kafka: Kafka, tmp_path: Path) -> None:
    """As workers do, of which this test knows by others that they are right."""
    past = tmp_path / "past"
    past.mkdir()
    events = rides(2000, 3)
    pq.write_table(events.slice(0, 1200), past / "0.parquet")
    topic = kafka.new_topic(3, "rides")
    load = partial(from_history, topic, kafka.bootstrap, past)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "consistent_random"})
    for row in events.slice(1200).to_pylist():
        said = {**row, "at": row["at"].isoformat()}
        producer.produce(topic, json.dumps(said), key=row["driver"])
    producer.flush(30)
    settings = FlowSettings(topic, str(tmp_path / "workers"), clock="stream", until_end=True)
    hand_over(load(), settings, allow_gap=True)
    shutil.copytree(tmp_path / "workers", tmp_path / "spark")
    run_worker(load(), settings)
    there = replace(settings, data=str(tmp_path / "spark"), group=f"{topic}-spark")
    run_on_spark(load(), there, SparkSettings("local[2]"), load=load)
    logs = [OfflineLog(tmp_path / each / "log") for each in ("workers", "spark")]
    for view in load():
        rows = [sorted(log.scan(view).to_pylist(), key=repr) for log in logs]
        assert len(rows[0]) > 300
        assert rows[0] == rows[1]
        assert online(tmp_path / "workers", view) == online(tmp_path / "spark", view)


def test_the_command_does_it_on_spark(tmp_path: Path) -> None:
    written(tmp_path / "rides", 3)
    (tmp_path / "views.py").write_text(VIEWS)

    def command(*words: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("headrace")), *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command("backfill", "views.py", "--data", "spark", "--engine", "spark", "--master", "local[2]", "--quiet")
    command("backfill", "views.py", "--data", "here", "--quiet")
    asked = ("history", "by_driver", "driver=d7", "--limit", "0", "--json")
    told = command(*asked, "--data", "spark")
    assert told == command(*asked, "--data", "here")
    assert told.count("fare_mean") > 20
