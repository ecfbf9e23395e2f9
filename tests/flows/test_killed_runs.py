"""Runs and backfills that are killed and started again end as an uninterrupted run does (contract C13, C14)."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FileSource, Tumbling, define
from headrace.features.views import definition
from headrace.flows.recording import LOG, ONLINE
from headrace.flows.runner import Step, run
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog

EVENTS = 20_000
BATCH = 500
KILLS = 8

VIEWS = """
import sys
from headrace.features import Entity, Event, EventTime, FeatureView, FileSource, LastN, Lifetime, Session
from headrace.flows.backfill import backfill
from headrace.flows.runner import run

class Ride(Event):
    ride_id: int
    driver_id: str
    fare: float | None
    city: str
    at: EventTime

rides = FileSource(sys.argv[1], Ride, lateness="30s", dedup="ride_id")
driver = Entity("driver", key="driver_id")

class Activity(FeatureView, source=rides, entity=driver, ttl="1h"):
    rides_1m = Ride.count(last="1m")
    fare_mean = Ride.fare.mean(last=["1m", "10m"])
    fare_std = Ride.fare.std(last="10m", ending="1m")
    last_fare = Ride.fare.last(over=LastN(3))
    in_session = Ride.count(over=Session("20s"))
    all_time = Ride.fare.sum(over=Lifetime())

class Cities(FeatureView, source=rides, entity=driver):
    by_city = Ride.count(last="5m", by=Ride.city)
    distinct = Ride.city.distinct(last="2m")

if __name__ == "__main__":
    def shown(step):
        print(getattr(step, "phase", "run"), step.done, flush=True)
    how = {"run": run, "backfill": backfill}[sys.argv[4]]
    often = {"checkpoint_every_s": 0.02} if how is run else {}
    how([Activity, Cities], sys.argv[2], batch_size=int(sys.argv[3]), progress=shown, **often)
    print("end", flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the events, out of order, some late, broken and repeated, and with the program that runs them."""
    made = tmp_path_factory.mktemp("killed")
    rng = random.Random(20260101)
    start = 1_767_225_600_000_000
    with open(made / "rides.jsonl", "w") as file:
        for i in range(EVENTS):
            late = rng.choice([0, 0, 0, 5, 25, 25, 120]) if i % 50 == 0 else rng.uniform(0, 20)
            at = start + i * 100_000 - int(late * 1_000_000)
            row: dict[str, Any] = {
                "ride_id": i if rng.random() > 0.01 else max(0, i - 3),
                "driver_id": f"d{int(rng.paretovariate(0.7)) % 200}",
                "fare": None if rng.random() < 0.05 else round(rng.gammavariate(3, 8), 2),
                "city": rng.choice(["oslo", "rome", "bern"]),
                "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 1_000_000)) + f".{at % 1_000_000:06d}Z",
            }
            if i % 5000 == 77:
                row["fare"] = "broken"
            file.write(json.dumps(row) + "\n")
    (made / "views.py").write_text(VIEWS)
    return made


def start(folder: Path, data: Path, batch: int = BATCH, how: str = "run") -> "subprocess.Popen[str]":
    command = [sys.executable, str(folder / "views.py"), str(folder / "rides.jsonl"), str(data), str(batch), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def outcome(folder: Path, data: Path) -> dict[str, Any]:
    """Everything a reader can see in a data folder."""
    names: dict[str, Any] = {"__name__": "views"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["views.py", str(folder / "rides.jsonl")])
        exec(compile(VIEWS, "views.py", "exec"), names)
    views = [definition(names["Activity"]), definition(names["Cities"])]
    log = OfflineLog(data / LOG)
    store = EmbeddedStore(data / ONLINE, read_only=True)
    dead = read_dead_letters(log).to_pylist()
    seen = {
        "log": {view.name: log.scan(view, tail=False).to_pylist() for view in views},
        "with tail": {view.name: log.scan(view).to_pylist() for view in views},
        "online": {view.name: list(store.scan(view)) for view in views},
        "dead": sorted((letter["offset"], letter["reason"], letter["payload"]) for letter in dead),
        "clock": store.clock(),
    }
    store.close()
    return seen


def assert_same(got: dict[str, Any], expected: dict[str, Any], *, as_of: bool = True) -> None:
    """Equal to the last bit in the log; online to 1e-9, where events are folded in another order (contract C3).

    as_of: also the instants that online rows are as of, which are those of the batches that wrote them.
    """
    for name in ("log", "with tail", "dead", "clock"):
        assert got[name] == expected[name], name
    for view, rows in expected["online"].items():
        for (key, row), (same_key, same) in zip(got["online"][view], rows, strict=True):
            assert key == same_key
            assert row.newest_event_us == same.newest_event_us
            assert not as_of or row.event_timestamp_us == same.event_timestamp_us
            for feature, value in same.values.items():
                close = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
                assert row.values[feature] == close, (key, feature)


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    """The outcome of a run that nobody disturbed."""
    finish(start(folder, folder / "whole"))
    seen = outcome(folder, folder / "whole")
    assert len(seen["log"]["activity"]) > EVENTS
    assert {reason for _, reason, _ in seen["dead"]} == {"late", "malformed"}
    return seen


def test_killed_at_any_moment(folder: Path, whole: dict[str, Any]) -> None:
    data = folder / "killed"
    rng = random.Random(7)
    for _ in range(KILLS):
        process = start(folder, data)
        assert process.stdout is not None
        for _ in range(rng.randint(1, 12)):
            if process.stdout.readline() == "end\n":
                break
        time.sleep(rng.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        rows = OfflineLog(data / LOG)  # a reader sees whole files only, whenever it looks
        if rows.views():
            assert all(path.stat().st_size for path in (data / LOG).rglob("view=*/**/*.parquet"))
    finish(start(folder, data))
    # Where a value may have come and gone since the checkpoint, a row is written again, as of a later instant.
    assert_same(outcome(folder, data), whole, as_of=False)


def test_a_backfill_killed_at_any_moment(folder: Path, whole: dict[str, Any]) -> None:
    """Its steps are 40 batches read, 16 buckets of each view computed, and the rows of each view written."""
    data = folder / "backfilled"
    for steps in (20, 50, 10, 4):
        process = start(folder, data, how="backfill")
        assert process.stdout is not None
        for _ in range(steps):
            assert process.stdout.readline() not in ("", "end\n")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not OfflineLog(data / LOG).views()  # nothing counts before all is there
    process = start(folder, data, how="backfill")
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "read" not in told, "it began anew instead of going on"
    # A replay's online rows are as of the batches that wrote them.
    assert_same(outcome(folder, data), whole, as_of=False)
    assert not (data / "backfill").exists()


def test_stopped_by_signal(folder: Path, whole: dict[str, Any]) -> None:
    data = folder / "stopped"
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(folder, data)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        finish(process)
    finish(start(folder, data))
    assert_same(outcome(folder, data), whole)


@pytest.mark.parametrize("batch", [97, 10_000])
def test_other_batches(folder: Path, whole: dict[str, Any], batch: int) -> None:
    data = folder / f"batches-{batch}"
    finish(start(folder, data, batch))
    seen = outcome(folder, data)
    for name in ("activity", "cities"):
        instants = [(row["driver_id"], row["event_timestamp"]) for row in seen["log"][name]]
        assert len(set(instants)) == len(instants)
    assert_same(seen, whole, as_of=False)


class Ride(Event):
    driver: str
    fare: float
    at: EventTime


def test_a_row_that_a_dead_run_left_does_not_stay(tmp_path: Path) -> None:
    """
    12:00:01 event   :04 the first run ends   :06 in the window | killed |   :11 out of it again, as at the checkpoint
    """
    file, data = tmp_path / "rides.jsonl", tmp_path / "data"
    features = {"highest": Ride.fare.max(over=Tumbling("5s"))}
    view = define("rides", source=FileSource(file, Ride), entity=Entity("driver", key="driver"), features=features)

    def send(driver: str, second: int) -> None:
        with open(file, "a") as out:
            print(json.dumps({"driver": driver, "fare": 7.0, "at": f"2026-01-01T12:00:{second:02d}Z"}), file=out)

    def highest() -> Any:
        with EmbeddedStore(data / ONLINE, read_only=True) as store:
            row = store.read(view, [{"driver": "a"}])[0]
        return None if row is None else row.values["highest"]

    def dies(_: Step) -> None:
        raise ConnectionAbortedError

    send("a", 1)
    send("b", 4)
    run([view], data)
    assert highest() is None
    send("b", 6)
    with pytest.raises(ConnectionAbortedError):
        run([view], data, progress=dies)
    assert highest() == 7.0
    send("b", 11)
    run([view], data)
    assert highest() is None
