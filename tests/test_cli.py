"""The command line on the starter project: what a newcomer types, and what is told when it goes wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from headrace import OfflineLog, training_set
from headrace.cli.commands import app
from headrace.cli.loading import load
from headrace.stores.embedded import EmbeddedStore

DRIVER = ["driver_activity", "driver_id=1"]
NEWEST = "2026-01-01T22:03:16Z"  # the last ride of driver 1 is the last of all


def headrace(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160", "TERM": "dumb"})


def answer(*words: str | Path) -> Any:
    result = headrace(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def complaint(*words: str | Path) -> str:
    """What stderr says of a command that must fail."""
    result = headrace(*words)
    assert result.exit_code == 1, result.output
    assert not result.stdout
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The starter project, run once."""
    project = tmp_path_factory.mktemp("rides")
    assert headrace("init", project).exit_code == 0
    return project, headrace("run", project / "views.py", "--data", project / "data")


@pytest.fixture
def project(ran: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_DATA", str(ran[0] / "data"))
    monkeypatch.setattr(sys, "path", sys.path[:])
    return ran[0]


def test_help_teaches_the_first_steps() -> None:
    shown = headrace("--help").stdout
    for step in ("headrace init", "headrace views", "headrace run", "headrace get", "headrace history"):
        assert step in shown


@pytest.mark.parametrize(
    "command", ["init", "views", "run", "backfill", "prepare", "verify", "get", "history", "dead", "demo"]
)
def test_every_command_explains_itself(command: str) -> None:
    shown = headrace(command, "--help")
    assert shown.exit_code == 0
    assert f"headrace {command}" in shown.stdout or f"root {command}" in shown.stdout


def test_init_writes_a_project_and_never_over_one(tmp_path: Path) -> None:
    assert headrace("init", tmp_path / "rides").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "rides").iterdir()) == [
        "README.md",
        "rides.csv",
        "test_views.py",
        "views.py",
    ]
    (tmp_path / "rides" / "rides.csv").unlink()
    assert "already has views.py, test_views.py, README.md" in complaint("init", tmp_path / "rides")
    assert not (tmp_path / "rides" / "rides.csv").exists()


def test_the_starter_projects_own_tests_pass(tmp_path: Path) -> None:
    headrace("init", tmp_path)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ran.returncode == 0, ran.stdout


def test_views_says_how_exact_each_feature_is(project: Path) -> None:
    shown = headrace("views", project / "views.py").stdout
    assert "driver_activity: 6 features of driver (driver_id)" in shown
    assert "events up to 30s older" in shown
    (view,) = answer("views", project / "views.py")
    assert view["name"] == "driver_activity"
    assert view["features"]["rides_30m"] == {"dtype": "int64"}


def test_run_says_what_it_did_and_where_things_are(ran: tuple[Path, Result]) -> None:
    project, result = ran
    assert result.exit_code == 0, result.stderr
    figures = {line.split("  ")[0].strip(): line for line in result.stdout.splitlines()}
    assert "394 in" in figures["events read"]
    assert "391" in figures["taken"]
    assert "1 seen before" in figures["duplicates"]
    assert "1" in figures["dead: late"]
    assert "1" in figures["dead: malformed"]
    assert "8 online rows" in figures["driver_activity"]
    for part in ("online", "log", "log/dead_letters"):
        assert (project / "data" / part).is_dir()


def test_a_second_run_goes_on_where_the_first_ended(project: Path) -> None:
    before = answer("get", *DRIVER)
    summary = answer("run", project / "views.py", "--quiet")
    assert summary["read"].get("rides", 0) == 0
    assert summary["dead"] == {}
    assert answer("get", *DRIVER) == before


def test_batch_size_changes_no_value(project: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    summary = answer("run", project / "views.py", "--quiet", "--data", small, "--batch-size", "7")
    assert summary["read"] == {"rides": 394}
    assert answer("get", *DRIVER, "--data", small) == answer("get", *DRIVER)
    assert answer("history", *DRIVER, "-n", "0", "--data", small) == answer("history", *DRIVER, "-n", "0")


def test_a_backfill_leaves_what_a_run_does(project: Path, tmp_path: Path) -> None:
    data = tmp_path / "backfilled"
    summary = answer("backfill", project / "views.py", "--quiet", "--data", data)
    ran = answer("run", project / "views.py", "--quiet", "--data", tmp_path / "ran")
    same = ("read", "taken", "dead", "duplicates", "log_rows", "tail_rows", "entities")
    assert {name: summary[name] for name in same} == {name: ran[name] for name in same}
    assert answer("get", *DRIVER, "--data", data) == answer("get", *DRIVER)
    assert answer("history", *DRIVER, "-n", "0", "--data", data) == answer("history", *DRIVER, "-n", "0")
    assert answer("run", project / "views.py", "--quiet", "--data", data)["read"].get("rides", 0) == 0
    assert "holds what a run wrote" in complaint("backfill", project / "views.py", "--data", data)
    since = "2026-01-01T12:00:00Z"
    answer("backfill", project / "views.py", "--quiet", "--data", data, "--fresh", "--from", since)
    rows = answer("history", *DRIVER, "-n", "0", "--data", data)["rows"]
    assert rows == [row for row in answer("history", *DRIVER, "-n", "0")["rows"] if row["event_timestamp"] > since]
    assert rows


def test_verify_finds_nothing_after_a_run_and_says_what_it_finds(project: Path, tmp_path: Path) -> None:
    views, data = project / "views.py", tmp_path / "data"
    answer("run", views, "--quiet", "--data", data)
    found = answer("verify", views, "--sample", "100%", "--extra", "--data", data)
    assert [check["places"] for check in found["checks"]] == [["online", "log"], ["log", "computed anew"]]
    assert [(check["differences"], check["undecided"], check["entities"]) for check in found["checks"]] == [
        (0, 0, 8)
    ] * 2
    assert (
        "online beside log: 8 entities, 8 rows: equal"
        in headrace("verify", views, "--sample", "100%", "--data", data, "--no-recompute").stdout
    )
    (view,) = load(views).views
    with EmbeddedStore(data / "online") as store:
        store.delete(view, [{"driver_id": "1"}])
    missed = headrace("verify", views, "--sample", "1.0", "--data", data)
    assert missed.exit_code == 3
    assert "missing 1, extra 0: driver_id=1 is not online" in missed.stdout
    assert "expected a share of the entities" in complaint("verify", views, "--sample", "half", "--data", data)
    assert "There is no log" in complaint("verify", views, "--data", tmp_path / "nowhere")
    served = headrace("verify", views, "--data", data, "--no-recompute", "--served", tmp_path / "nothing", "--json")
    assert json.loads(served.stdout)["not_compared"] == {str(tmp_path / "nothing"): "no answers are there"}
    assert "only flows over Kafka are prepared" in complaint("prepare", views, "--data", data)


def test_get_answers_now_with_value_status_and_freshness(project: Path) -> None:
    got = answer("get", *DRIVER)
    assert got["at"] == got["newest_event"] == NEWEST
    assert got["features"]["rides_30m"] == 7
    assert got["features"]["last_city"] == "Lyon"
    assert set(got["status"].values()) == {"PRESENT"}
    shown = headrace("get", *DRIVER).stdout
    assert "rides_30m" in shown
    assert f"newest event: {NEWEST}" in shown


def test_get_of_the_class_name_asks_the_same_view(project: Path) -> None:
    assert answer("get", "DriverActivity", "driver_id=1") == answer("get", *DRIVER)


def test_get_at_a_time_sees_nothing_from_after_it(project: Path) -> None:
    rides = [line.split(",") for line in (project / "rides.csv").read_text().splitlines()]
    # The rides of driver 1 in (floor(08:29:30), 09:00]: a hop of 30 s divides the half hour, so nothing older counts.
    late = "r9001"
    times = {row[0]: row[5] for row in rides if row[1] == "1" and row[0] != late}
    expected = [t for t in times.values() if "2026-01-01T08:30:00Z" < t <= "2026-01-01T09:00:00Z"]
    got = answer("get", *DRIVER, "--at", "2026-01-01T09:00Z")
    assert got["at"] == "2026-01-01T09:00:00Z"
    assert got["features"]["rides_30m"] == len(expected) == 3
    assert got["newest_event"] == max(expected)


def test_a_value_falls_as_time_passes(project: Path) -> None:
    got = answer("get", *DRIVER, "--at", "2026-01-02T22:00Z")
    assert got["features"]["rides_30m"] == 0
    assert got["features"]["fare_mean_1h"] is None
    assert got["status"]["fare_mean_1h"] == "NULL"
    assert got["status"]["completion_rate"] == "DEFAULT"
    old = answer("get", *DRIVER, "--at", "2026-01-09T22:00Z")
    assert set(old["status"].values()) == {"OUTSIDE_MAX_AGE"}


def test_get_at_a_time_equals_the_training_set(project: Path) -> None:
    view = load(project / "views.py").view("driver_activity")
    times = [f"2026-01-01T{hour:02}:{minute:02}:07Z" for hour in range(5, 23, 4) for minute in (0, 31)]
    spine = [{"driver_id": driver, "event_timestamp": time} for driver in "138" for time in times]
    for row in training_set(spine, view, log=OfflineLog(project / "data" / "log")).to_pylist():
        asked = [f"driver_id={row['driver_id']}", "--at", row["event_timestamp"]]
        got = answer("get", "driver_activity", *asked)["features"]
        assert got == {name: row[name] for name in got}


def test_an_entity_never_seen_is_not_found(project: Path) -> None:
    for words in ([], ["--at", "2026-01-01T09:00Z"]):
        got = answer("get", "driver_activity", "driver_id=99", *words)
        assert got["newest_event"] is None
        assert got["features"]["rides_30m"] == 0
        assert set(got["status"].values()) == {"NOT_FOUND"}
    assert "never seen" in headrace("get", "driver_activity", "driver_id=99").stdout


def test_history_ends_now_with_what_get_says(project: Path) -> None:
    found = answer("history", *DRIVER)
    assert len(found["rows"]) == 20
    assert found["older"] > 100
    last = found["rows"][-1]
    assert last["event_timestamp"] == NEWEST
    assert not last["settled"]
    assert {name: last[name] for name in answer("get", *DRIVER)["features"]} == answer("get", *DRIVER)["features"]
    times = [row["event_timestamp"] for row in found["rows"]]
    assert times == sorted(times)


def test_history_between_two_instants(project: Path) -> None:
    found = answer("history", *DRIVER, "--from", "2026-01-01T08:00Z", "--to", "2026-01-01T08:30Z")
    assert found["rows"]
    for row in found["rows"]:
        assert "2026-01-01T08:00:00Z" < row["event_timestamp"] <= "2026-01-01T08:30:00Z"
        assert row["settled"]
    shown = headrace("history", *DRIVER, "--from", "2026-01-01T08:00Z", "--to", "2026-01-01T08:30Z").stdout
    assert found["rows"][0]["event_timestamp"] in shown


def test_dead_shows_the_events_that_were_not_taken(project: Path) -> None:
    found = answer("dead")
    assert sorted(letter["reason"] for letter in found["dead"]) == ["late", "malformed"]
    assert "yesterday" in headrace("dead").stdout


def test_another_definition_is_refused_and_the_way_out_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    headrace("init", tmp_path)
    views, data = tmp_path / "views.py", tmp_path / "data"
    assert headrace("run", views, "--data", data).exit_code == 0
    views.write_text(views.read_text().replace('last="30m"', 'last="20m"').replace("rides_30m", "rides_20m"))
    said = complaint("run", views, "--data", data, "--quiet")
    assert "driver_activity" in said
    assert "headrace run views.py --fresh" in said
    summary = answer("run", views, "--data", data, "--quiet", "--fresh")
    assert summary["read"] == {"rides": 394}
    assert "rides_20m" in answer("get", *DRIVER, "--data", data)["features"]


STOPPING = """
import os, signal
from pathlib import Path
from headrace import Entity, Event, EventTime, FeatureView, IterableSource

class Ride(Event):
    driver_id: str
    at: EventTime

class Rides:
    "Ten rides; Ctrl-C is pressed at the sixth, unless the file `on` is there."
    def __iter__(self):
        for minute in range(10):
            if minute == 5 and not Path(__file__).with_name("on").exists():
                os.kill(os.getpid(), signal.SIGINT)
            yield {"driver_id": "1", "at": f"2026-01-01T12:{minute:02}:00Z"}

class DriverActivity(FeatureView, source=IterableSource(Rides(), Ride), entity=Entity("driver", key="driver_id")):
    rides = Ride.count(last="1h")
"""


def test_ctrl_c_stops_with_a_checkpoint_from_which_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    views, data = tmp_path / "stopping_views.py", tmp_path / "data"
    views.write_text(STOPPING)
    stopped = headrace("run", views, "--data", data, "--batch-size", "2", "--quiet")
    assert stopped.exit_code == 130
    assert "Stopped; the next run goes on from here" in stopped.stdout
    done = answer("get", *DRIVER, "--data", data)["features"]["rides"]
    assert 0 < done < 10
    (tmp_path / "on").touch()
    assert answer("run", views, "--data", data, "--batch-size", "2", "--quiet")["read"] == {"ride": 10 - done}
    assert answer("get", *DRIVER, "--data", data)["features"] == {"rides": 10}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "driver_activty", "driver_id=1"], "no feature view 'driver_activty'; did you mean 'driver_activity'?"),
        (["get", "driver_activity", "driver=1"], "'driver' is no key of entity 'driver'; did you mean 'driver_id'?"),
        (["get", "driver_activity", "1"], "'1' is no key=value. View 'driver_activity' is asked by driver_id=..."),
        (["get", *DRIVER, "--at", "2026-01-01T09:00"], "--at: '2026-01-01T09:00' has no time zone"),
        (["get", *DRIVER, "--at", "soon"], "--at: 'soon' is no instant"),
        (["get", *DRIVER, "--data", "nowhere"], "There is no data folder nowhere. Fill it with `headrace run FILE"),
        (["history", *DRIVER, "--from", "9"], "--from: '9' is no instant"),
        (["run", "nowhere.py"], "There is no file"),
        (["dead", "--data", "nowhere"], "nowhere holds no log"),
    ],
)
def test_mistakes_are_told_without_a_traceback(project: Path, words: list[str], message: str) -> None:
    said = complaint(*words)
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said


def test_debug_shows_the_traceback_wherever_it_stands(project: Path) -> None:
    for words in (["--debug", "get", "nothing", "a=1"], ["get", "nothing", "a=1", "--debug"]):
        assert "no feature view 'nothing'" in str(headrace(*words).exception)


def test_without_its_libraries_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; import headrace.cli; headrace.cli.main([])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "pip install 'headrace[cli,flow]'" in ran.stderr


def test_python_dash_m_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "headrace", "--version"], capture_output=True, text=True)
    assert ran.stdout.startswith("headrace 0.")
