"""`headrace checkpoints`: the parts of a log, and what is in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.stores.logs import visits
from typer.testing import CliRunner

from headrace.cli.commands import app
from headrace.stores.checkpoints import SnapshotPart
from headrace.stores.deadletters import dead_letter_table
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock
from headrace.stores.testing import AT, Visits


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in (3, 4):
        with OfflineLog(tmp_path / "log", f"rides-000{number}") as log:
            log.claim(steal=True)
            log.append(Visits, visits(1, 2, user=str(number)))
            log.tail(Visits, visits(9, user=str(number)))
            log.dead_letters(
                dead_letter_table(
                    [
                        {"reason": "late", "detail": "", "source": "s", "partition": 0, "offset": 1, "payload": ""}
                        | {"event_time_us": None}
                    ]
                )
            )
            log.commit(snapshots={"rides.visits": b"x" * 2000}, offsets={"rides": {number: 5}})
            log.commit(
                snapshots={"rides.visits": SnapshotPart(b"y" * 500, delta=True)},
                offsets={"rides": {number: 100 + number}},
                settled_us={"visits": AT + number * 1_000_000},
                clock=Clock(AT, "wall"),
            )
    return tmp_path


def ask(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["checkpoints", *words], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == code, result.output
    return result.output


def test_the_parts_are_listed(data: Path) -> None:
    lines = [line.split() for line in ask("--data", str(data)).splitlines()]
    assert lines[1][:4] == ["part", "checkpoint", "epoch", "age"]
    assert lines[2] == ["rides-0003", "2", "1", *lines[2][3:5], "2.5", "kB", "rides", "3:103", "2026-01-01T00:00:03Z"]
    assert lines[3][0] == "rides-0004"
    found = json.loads(ask("--data", str(data), "--json"))["parts"]
    assert [each["part"] for each in found] == ["rides-0003", "rides-0004"]
    assert found[1] | {"at": None, "age_s": None} == {
        "part": "rides-0004",
        "checkpoint": 2,
        "epoch": 1,
        "at": None,
        "age_s": None,
        "state_bytes": 2500,
        "offsets": {"rides": {"4": 104}},
        "clock": "2026-01-01T00:00:00Z",
        "settled": {"visits": "2026-01-01T00:00:04Z"},
        "dead_letters": 1,
    }
    assert 0 <= found[1]["age_s"] < 600


def test_one_part_is_inspected(data: Path) -> None:
    found: dict[str, Any] = json.loads(ask("rides-0003", "--data", str(data), "--json"))
    assert found["state"] == {"rides.visits": [2000, 500]}
    assert found["views"]["visits"] == {
        "settled": "2026-01-01T00:00:03Z",
        "rows": 2,
        "files": 1,
        "waiting_files": 0,
        "provisional_rows": 0,
        "first": "2026-01-01T00:00:00.000001Z",
        "last": "2026-01-01T00:00:00.000002Z",
        "definitions": 1,
    }
    text = ask("rides-0003", "--data", str(data))
    assert "2.5 kB, of it 1 changes; whole" in text
    assert "2 rows in 1 files, 0 provisional, settled up to 2026-01-01T00:00:03Z" in text


def test_damage_and_what_is_not_there_are_said(data: Path) -> None:
    assert "has no part 'rides-003'; did you mean 'rides-0003'" in ask("rides-003", "--data", str(data), code=1)
    assert "holds no checkpoints" in ask("--data", str(data / "nothing"), code=1)
    next((data / "log/_headrace/parts/rides-0003/snapshots").iterdir()).write_bytes(b"?")
    assert "Snapshot 'rides.visits' is not what was written" in ask("rides-0003", "--data", str(data), code=1)


def test_a_run_with_one_writer_has_one_part(tmp_path: Path) -> None:
    with OfflineLog(tmp_path / "log") as log:
        log.commit(snapshots={"flow": b"state"})
    (part,) = json.loads(ask("--data", str(tmp_path), "--json"))["parts"]
    assert part["part"] == "-"
    assert json.loads(ask("-", "--data", str(tmp_path), "--json"))["state"] == {"flow": [5]}
