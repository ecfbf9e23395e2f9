"""`headrace advise`: how late the events of a file and of a topic come, and which lateness that suggests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.servers.kafka import Kafka
from typer.testing import CliRunner, Result

from headrace.cli.commands import app

VIEWS = """
from headrace.features import Entity, Event, EventTime, FeatureView, FileSource, KafkaSource

class Ride(Event):
    driver_id: str
    at: EventTime

rides = SOURCE

class DriverActivity(FeatureView, source=rides, entity=Entity("driver", key="driver_id")):
    rides_30m = Ride.count(last="30m")
"""
FILE = 'FileSource("rides.csv", Ride, lateness="10s")'
# Seconds after noon in the order of arrival: the fourth is 7 s behind, the last 35 s.
SECONDS = [0, 10, 20, 13, 30, 31, 40, 41, 50, 15]


def instant(second: int) -> str:
    return f"2026-01-01T12:00:{second:02}Z"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "views.py").write_text(VIEWS.replace("SOURCE", FILE))
    rows = [f"d{second % 2},{instant(second)}" for second in SECONDS]
    (tmp_path / "rides.csv").write_text("\n".join(["driver_id,at", *rows, "d1,yesterday", ""]))
    return tmp_path


def advise(*words: str) -> Result:
    return CliRunner().invoke(app, ["advise", "views.py", *words], env={"COLUMNS": "120", "TERM": "dumb"})


def answer(*words: str) -> dict[str, Any]:
    result = advise(*words, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    return dict(found)


def late(found: dict[str, Any]) -> dict[str, int]:
    return {each["lateness"]: each["late"] for each in found["choices"]}


def test_a_file_is_told_as_a_table_with_a_plot(folder: Path) -> None:
    result = advise("--target", "0.1")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == [
        "rides lateness 10s",
        "10 events of 1 partition(s), 2026-01-01T12:00:00Z to 2026-01-01T12:00:50Z; 80.0% in order, the longest delay "
        "is 35s",
        "Not judged: 1 unreadable",
        "lateness late share waiting delays",
        "0s 2 20 % 0 ███████████",
        "10s 1 10 % 2 █ <- now and recommended",
        "1m 0 0 % 10 █",
        'Recommended: lateness="10s" sends 10 % of the events to dead letter (target 10 %); the log settles 10s after '
        "the newest event.",
        "",
    ]


def test_the_same_as_data_with_choices_of_ones_own(folder: Path) -> None:
    found = answer("rides", "--lateness", "7s", "--lateness", "35s")
    assert found["recommended"] == "35s"
    assert (found["current"], found["longest"], found["broken"]) == ("10s", "35s", 1)
    assert (found["first"], found["last"]) == (instant(0), instant(50))
    counts = late(found)
    assert [counts[each] for each in ("5s", "7s", "10s", "30s", "35s", "1m")] == [2, 1, 1, 1, 0, 0]
    assert {each["log_settles_after"] == each["lateness"] for each in found["choices"]} == {True}


@pytest.mark.parametrize(
    ("rows", "events", "recommended"), [(3, 3, "0s"), (4, 4, "10s"), (9, 9, "10s"), (10, 10, "1m")]
)
def test_the_first_rows_only(folder: Path, rows: int, events: int, recommended: str) -> None:
    found = answer("--rows", str(rows))
    assert (found["events"], found["broken"], found["recommended"]) == (events, 0, recommended)


def test_what_is_wrong_says_so(folder: Path) -> None:
    result = advise("ride")
    assert result.exit_code == 1
    assert "views.py has no source 'ride'; did you mean 'rides'?" in " ".join(result.stderr.split())
    result = advise("--lateness", "soon")
    assert "--lateness: got 'soon', which is no duration" in " ".join(result.stderr.split())
    (folder / "rides.csv").write_text("driver_id,at\n")
    assert "No events to judge by." in advise().stdout
    assert answer()["recommended"] is None


def test_the_newest_of_a_topic_partition_by_partition(folder: Path, kafka: Kafka) -> None:
    """Partition 1 runs an hour behind partition 0 without an event out of order; partition 2 has sent nothing."""
    topic = kafka.new_topic(3, "rides")
    rows = [{"driver_id": "a", "at": instant(second)} for second in SECONDS]
    kafka.produce(topic, [*rows, "no json", {"driver_id": "a", "at": "2999-01-01T00:00:00Z"}], partition=0)
    kafka.produce(topic, [{"driver_id": "b", "at": f"2026-01-01T11:00:{n:02}Z"} for n in range(10)], partition=1)
    (folder / "views.py").write_text(
        VIEWS.replace("SOURCE", f'KafkaSource("{topic}", Ride, name="rides", keyed_by="driver_id", lateness="10s")')
    )
    (folder / "headrace.toml").write_text(f'[kafka]\nbootstrap.servers = "{kafka.bootstrap}"\n')
    found = answer("--target", "0.05")
    assert (found["events"], found["in_order"], found["partitions"]) == (20, 18, 2)
    assert (found["broken"], found["ahead"], found["longest"], found["recommended"]) == (1, 1, "35s", "10s")
    # A third of six messages for each of three partitions: the newest two of each, unreadable ones among them.
    some = answer("--rows", "6")
    assert (some["events"], some["longest"], some["broken"], some["ahead"]) == (2, "0s", 1, 1)
