"""Backfills whose work Spark's executors do: what they leave is what one process leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from headrace.features import FileSource
from headrace.features.errors import DataError
from headrace.flows.backfill import backfill
from headrace.flows.backfill.handover import hand_over
from headrace.flows.spark.crew import SparkCrew
from headrace.flows.spark.settings import SparkSettings
from tests.flows.test_backfill import Ride, rides, views_of
from tests.flows.test_backfill_apart import same
from tests.flows.test_handover import Case, Flow, Topic
from tests.flows.test_handover_refused import VIEW, case_of, events_by, source, topic_of
from tests.oracle.definitions import Happening, definition_of

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
