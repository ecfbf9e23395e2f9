"""`headrace materialize`: an online store filled from the log of the starter project."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress
from typer.testing import CliRunner, Result

from headrace.cli.commands import app
from headrace.cli.loading import load
from headrace.stores.opening import open_online

NEWEST = "2026-01-01T22:03:16Z"
VIEW = "driver_activity"


def headrace(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160", "TERM": "dumb"})


def answer(*words: str | Path) -> Any:
    result = headrace("materialize", *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def complaint(*words: str | Path) -> str:
    result = headrace("materialize", *words)
    assert result.exit_code == 1, result.output
    assert not result.stdout
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter project, run once."""
    project = tmp_path_factory.mktemp("rides")
    assert headrace("init", project).exit_code == 0
    assert headrace("run", project / "views.py", "--data", project / "data", "--quiet").exit_code == 0
    return project


@pytest.fixture
def project(ran: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HEADRACE_DATA", str(ran / "data"))
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    return ran


def values(folder: Path, place: Path | str, **how: Any) -> dict[int, dict[str, Any]]:
    """Driver -> stored values."""
    store = open_online(place, read_only=True, **how)
    try:
        view = load(folder / "views.py").view(VIEW)
        return {key["driver_id"]: row.values for key, row in store.scan(view)}
    finally:
        store.close()


def test_a_store_is_filled_and_then_brought_up_to_date(project: Path, tmp_path: Path) -> None:
    told = answer(project / "views.py", "--online", tmp_path / "there")
    (view,) = told["views"]
    assert (view["view"], view["from"], view["to"], view["went_on"]) == (VIEW, None, NEWEST, False)
    assert (view["entities"], view["written"]) == (8, 8)
    assert len(values(project, tmp_path / "there")) == 8
    (again,) = answer(project / "views.py", VIEW, "--online", tmp_path / "there")["views"]
    assert again["went_on"]
    assert again["from"] < again["settled"] < NEWEST
    assert answer(project / "views.py", "--online", tmp_path / "there", "--all")["views"][0]["entities"] == 8


def test_it_tells_what_it_did(project: Path, tmp_path: Path) -> None:
    shown = headrace("materialize", project / "views.py", "--online", tmp_path / "there", "--from", "2026-01-01T21:00Z")
    assert shown.exit_code == 0, shown.stderr
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines[0] == "Done"
    assert f"entities that changed since 2026-01-01T21:00:00Z, as of {NEWEST}, in " in lines[1]
    assert lines[2].startswith("settled up to 2026-01-01T21:")
    assert lines[3] == f"online store {tmp_path / 'there'}"
    nothing = headrace(
        *("materialize", project / "views.py", "--online", tmp_path / "there", "--quiet"),
        *("--from", "2025-01-01T21:00Z", "--to", "2025-01-02T21:00Z"),
    )
    assert nothing.stdout.startswith("Nothing new")


def test_by_now_what_has_expired_is_written_too(project: Path, tmp_path: Path) -> None:
    """Of a year ago nothing is in a window any more; the newest value of a city is out of its six hours, too."""
    answer(project / "views.py", "--online", tmp_path / "then")
    assert any(row["rides_30m"] for row in values(project, tmp_path / "then").values())
    (view,) = answer(project / "views.py", "--online", tmp_path / "now", "--to", "now")["views"]
    assert view["to"] > NEWEST
    assert {(row["rides_30m"], row["last_city"]) for row in values(project, tmp_path / "now").values()} == {(0, None)}


def test_the_store_of_the_run_by_default(project: Path) -> None:
    before = values(project, project / "data" / "online")
    told = answer(project / "views.py")
    assert told["online"] == str(project / "data" / "online")
    assert values(project, project / "data" / "online") == before


def test_a_rehearsal_makes_no_store(project: Path, tmp_path: Path) -> None:
    told = answer(project / "views.py", "--online", tmp_path / "there", "--dry-run", "--to", "2026-01-01T09:00Z")
    (view,) = told["views"]
    assert "written" not in view
    assert view["to"] == "2026-01-01T09:00:00Z"
    assert not (tmp_path / "there").exists()
    shown = headrace("materialize", project / "views.py", "--online", tmp_path / "there", "--dry-run")
    assert shown.stdout.startswith("Would write\n")


def test_into_redis_where_rows_of_a_replay_do_not_expire(
    project: Path, tmp_path: Path, redis_server: RedisAddress
) -> None:
    place = ("--online", redis_server.url, "--project", "rides", "--layout", "packed")
    told = answer(project / "views.py", *place, "--log", project / "data" / "log")
    assert told["views"][0]["written"] == 8
    answer(project / "views.py", "--online", tmp_path / "there")
    assert values(project, redis_server.url, project="rides", layout="packed") == values(project, tmp_path / "there")
    with redis_server.client() as client:
        assert {client.ttl(key) for key in client.scan_iter("headrace:rides:*")} == {-1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--log", "nowhere"], "There is no log at nowhere (--log nowhere). Name the folder or URL that a flow wrote"),
        (["--online", "redis://127.0.0.1:1/0"], "What was written stays; the same command goes on from there."),
        (["--memory", "much"], "--memory is 'much', expected a size such as 512MB or 2GB"),
        (["--from", "2026-01-01T09:00"], "--from"),
        (["--from", "2026-01-02T09:00Z"], f"from 2026-01-02T09:00:00Z to {NEWEST}, which is before"),
        (["driver_activty"], "has no feature view 'driver_activty'; did you mean 'driver_activity'?"),
    ],
)
def test_what_is_wrong_is_told(project: Path, words: list[str], says: str) -> None:
    assert says in complaint(project / "views.py", *words)


def test_a_view_without_a_log_is_left_out_or_refused(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    unlogged = (
        "class Unlogged(FeatureView, source=rides, entity=driver, log=False):\n    rides = Ride.count(last='1h')\n"
    )
    file.write_text(f"{(project / 'views.py').read_text()}\n\n{unlogged}")
    assert [view["view"] for view in answer(file, "--online", tmp_path / "there")["views"]] == [VIEW]
    assert "View 'unlogged' has no log (log=False)" in complaint(file, "unlogged", "--online", tmp_path / "there")
