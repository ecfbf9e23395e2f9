"""Which runs are live flows, what they are told, and how several workers are shown as one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from headrace.cli.commands import app
from headrace.cli.flowing import Request, command_of, configured, flow_name
from headrace.cli.loading import load
from headrace.cli.supervised import Rates, total, workers_table
from headrace.ops.supervising import Worker

VIEWS = """
from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource, KafkaSource

class Ride(Event):
    driver_id: str
    at: EventTime

driver = Entity("driver", key="driver_id")

class Live(FeatureView, source=KafkaSource("rides", Ride), entity=driver):
    rides = Ride.count(last="1h")

class Replayed(FeatureView, source=IterableSource([], Ride, name="past"), entity=driver):
    rides = Ride.count(last="1h")
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "views.py").write_text(VIEWS)
    return tmp_path / "views.py"


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code in (1, 78), result.output
    return " ".join(result.stderr.split())


def test_a_run_has_one_kind_of_source(file: Path) -> None:
    said = refused("run", str(file))
    assert "views and flows of Kafka topics (live) and of other sources (replayed)" in said
    assert "headrace run views.py --view live" in said


def test_options_of_live_flows_are_refused_for_a_replay(file: Path) -> None:
    said = refused("run", str(file), "--view", "replayed", "--workers", "2", "--until-end")
    assert "--workers, --until-end: for live flows, and source 'past' is no KafkaSource" in said


def test_a_replay_writes_into_a_folder(file: Path) -> None:
    assert "A replay writes into a folder" in refused("run", str(file), "--view", "replayed", "--data", "s3://a/b")


def test_a_wrong_setting_has_an_exit_code_of_its_own(file: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(file), "--view", "live", "--checkpoint-every", "soon"])
    assert result.exit_code == 78
    assert "option --checkpoint-every" in result.stderr


def test_the_name_of_a_flow_is_that_of_its_file_or_folder() -> None:
    assert flow_name(Path("/x/rides.py")) == "rides"
    assert flow_name(Path("/x/city rides/views.py")) == "city-rides"


def request(file: Path, **options: Any) -> Request:
    loaded = load(file)
    config = configured(file, None, {"flow": options})
    return Request(loaded, loaded.only(["live"]), config, "host", False, False, ("--view", "live"), None, False, False)


def test_settings_come_from_the_configuration(file: Path) -> None:
    (file.parent / "headrace.toml").write_text(
        '[flow]\nname = "n"\ncheckpoint_every = "2s"\n[online]\nurl = "redis://r"\nproject = "p"\nlayout = "packed"\n'
        '[offline]\ndata = "d"\n[dead_letters]\ntopic = "dead"\n[drift]\ntopic = "drifts"\n'
        '[kafka]\nbootstrap.servers = "b:9092"\n'
    )
    settings = request(file, batch_size=7, clock="stream", on_change="start", group="g").settings
    assert (settings.name, settings.worker, settings.consumer_group) == ("n", "host", "g")
    assert (settings.data, settings.online, settings.project, settings.layout) == ("d", "redis://r", "p", "packed")
    assert (settings.clock, settings.on_change, settings.batch_size) == ("stream", "start", 7)
    topics = settings.dead_letter_topic, settings.drift_topic
    assert (settings.checkpoint_every_s, *topics) == (2.0, "dead", "drifts")
    assert settings.kafka == {"bootstrap.servers": "b:9092"}
    assert request(file).settings.batch_size == 20_000


def test_a_worker_process_is_started_with_the_options_given(file: Path) -> None:
    words = command_of(request(file, workers=3), "host-1", 9401, "json")
    assert words[1:] == [
        *("-m", "headrace", "run", str(file), "--view", "live"),
        *("--workers", "1", "--worker-id", "host-1", "--log-format", "json", "--metrics-port", "9401"),
    ]


def test_summaries_of_workers_add_up() -> None:
    first = {"read": {"a": 1, "b": 2}, "taken": 3, "dead": {"late": 1}, "seconds": 2.0, "stopped": False, "data": "d"}
    second = {"read": {"a": 5}, "taken": 5, "dead": {}, "seconds": 1.0, "stopped": True, "data": "d"}
    assert total([first, second]) == {
        "read": {"a": 6, "b": 2},
        "taken": 8,
        "dead": {"late": 1},
        "seconds": 2.0,
        "stopped": True,
        "data": "d",
    }
    assert total([]) == {}


def test_the_table_shows_each_worker_with_its_rate() -> None:
    clock = [0.0]
    rates = Rates(now=lambda: clock[0])
    first = Worker(0, "host-0", state="running", starts=1)
    second = Worker(1, "host-1", state="waiting", starts=3)
    for at, events in ((0.0, 0), (1.0, 1_000), (2.0, 3_000)):
        clock[0] = at
        status = {"events": events, "lag": 7, "parts": 2, "ready": True, "dead": 1, "trouble": None, "fresh_s": 0.012}
        first.status = status
        table = workers_table("rides", [first, second], rates)
    console = Console(width=140)
    with console.capture() as shown:
        console.print(table)
    lines = shown.get().splitlines()
    assert lines[0].strip() == "flow rides"
    assert lines[2].split() == ["host-0", "ready", "2", "7", "3,000", "1,500", "12", "ms", "1", "0"]
    assert lines[3].split() == ["host-1", "waiting", "2"]
    # Started again, it counts from nothing.
    clock[0] = 3.0
    first.status = {"events": 10}
    assert rates.of(first) is None
