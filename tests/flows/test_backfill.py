"""Backfills beside runs of the same views: what they share, what they refuse, and how buckets become one log.

That values are right is proved in tests/oracle/test_runs.py, that kills do no harm in test_killed_runs.py.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.features import Entity, Event, EventTime, FileSource, FrameSource, KafkaSource, Lifetime, define
from headrace.features.errors import DataError
from headrace.flows.backfill import Step, backfill
from headrace.flows.backfill import stage as staging
from headrace.flows.backfill.buckets import ORDER
from headrace.flows.backfill.merging import merged, write_run
from headrace.flows.runner import run
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog

MINUTE = 60_000_000
DAY = 1_767_225_600_000_000


class Ride(Event):
    driver: str
    city: str | None
    fare: float
    at: EventTime


def rides(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    times = DAY + np.sort(rng.integers(0, 600 * MINUTE, n)) - rng.integers(0, 2 * MINUTE, n)
    cities = np.array(["oslo", "rome", "bern", None], dtype=object)
    return pa.table(
        {
            "driver": [f"d{i}" for i in rng.integers(0, 40, n)],
            "city": pa.array(cities[rng.integers(0, 4, n)], pa.string()),
            "fare": rng.gamma(3.0, 8.0, n).round(2),
            "at": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
        }
    )


def views_of(sources: list[Any]) -> list[Any]:
    """Two entities over the first source, one over the second."""
    driver, city = Entity("driver", key="driver"), Entity("city", key="city")
    rate = {"rides_1h": Ride.count(last="1h"), "fare_mean": Ride.fare.mean(last=["10m", "1h"])}
    ever = {"ever": Ride.fare.sum(over=Lifetime()), "drivers": Ride.driver.distinct(last="30m")}
    found = [
        define("by_driver", source=sources[0], entity=driver, features=rate, ttl="2h"),
        define("by_city", source=sources[0], entity=city, features=ever, log_every="5m"),
    ]
    return found if len(sources) == 1 else [*found, define("others", source=sources[1], entity=driver, features=ever)]


def online(data: Path, view: Any) -> dict[Any, Any]:
    with EmbeddedStore(data / "online", read_only=True) as store:
        return {tuple(key.values()): (row.values, row.newest_event_us) for key, row in store.scan(view)}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "rides.parquet", tmp_path / "more.parquet"]
    for seed, path in enumerate(paths):
        pq.write_table(rides(3000, seed), path)
    return paths


def test_several_entities_and_sources_end_as_a_run_does(files: list[Path], tmp_path: Path) -> None:
    views = views_of([FileSource(path, Ride, lateness="1m") for path in files])
    there = run(views, tmp_path / "run")
    here = backfill(views, tmp_path / "backfill", batch_size=700, threads=2)
    for count in ("read", "taken", "log_rows", "tail_rows", "dead", "missing", "entities"):
        assert getattr(here, count) == getattr(there, count), count
    assert here.dead["late"] > 0
    logs = [OfflineLog(tmp_path / each / "log") for each in ("backfill", "run")]
    assert logs[0].manifest().clock == logs[1].manifest().clock
    for view in views:
        assert logs[0].scan(view).equals(logs[1].scan(view))
        assert logs[0].settled_us(view) == logs[1].settled_us(view)
        got, expected = online(tmp_path / "backfill", view), online(tmp_path / "run", view)
        assert got.keys() == expected.keys()
        for key, (values, newest) in expected.items():
            for feature, value in values.items():
                close = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
                assert got[key][0][feature] == close, (key, feature)
            assert got[key][1] == newest


def test_the_log_begins_after_the_instant_named(files: list[Path], tmp_path: Path) -> None:
    view = views_of([FileSource(files[0], Ride, lateness="1m")])[0]
    since = DAY + 300 * MINUTE
    backfill([view], tmp_path / "whole")
    backfill([view], tmp_path / "part", from_us=since)
    whole, part = (OfflineLog(tmp_path / each / "log").scan(view, from_us=since) for each in ("whole", "part"))
    assert part.num_rows > 100
    assert part.equals(whole)
    assert OfflineLog(tmp_path / "part" / "log").scan(view).equals(part)


def test_a_source_that_changed_is_read_anew(files: list[Path], tmp_path: Path) -> None:
    def view() -> Any:
        return views_of([FileSource(files[0], Ride, lateness="1m")])[0]

    def stop(step: Step) -> None:
        if step.phase == "compute" and step.done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backfill([view()], tmp_path / "data", progress=stop)
    pq.write_table(rides(2000, 7), files[0])
    backfill([view()], tmp_path / "data")
    backfill([view()], tmp_path / "at once")
    logs = [OfflineLog(tmp_path / each / "log").scan(view()) for each in ("data", "at once")]
    assert logs[0].equals(logs[1])


def test_what_cannot_be_backfilled_is_told(files: list[Path], tmp_path: Path) -> None:
    source = FileSource(files[0], Ride)
    run(views_of([source]), tmp_path / "data")
    with pytest.raises(DataError, match="holds what a run wrote"):
        backfill(views_of([source]), tmp_path / "data")
    with pytest.raises(DataError, match="'rides' is a KafkaSource, which has no end"):
        backfill(views_of([KafkaSource("rides", Ride)]), tmp_path / "live")
    assert not (tmp_path / "live").exists()


def test_a_view_that_no_event_concerns(tmp_path: Path) -> None:
    table = rides(500, 1).drop_columns(["city"]).append_column("city", pa.nulls(500, pa.string()))
    pq.write_table(table, tmp_path / "rides.parquet")
    views = views_of([FileSource(tmp_path / "rides.parquet", Ride, lateness="1m")])
    assert backfill(views, tmp_path / "data").log_rows.keys() == {"by_driver"}
    assert run(views, tmp_path / "data").read["rides"] == 0
    run(views, tmp_path / "run")
    logs = [OfflineLog(tmp_path / each / "log") for each in ("data", "run")]
    assert logs[0].manifest().clock == logs[1].manifest().clock
    assert logs[0].views() == logs[1].views()


def test_no_event_at_all(tmp_path: Path) -> None:
    views = views_of([FrameSource(rides(0, 1), Ride, name="none")])
    assert backfill(views, tmp_path / "data").taken == 0
    assert run(views, tmp_path / "data").taken == 0


@pytest.mark.parametrize("slice_rows", [1, 7000, 10**9])
def test_slices_hold_every_row_once_and_ties_together(slice_rows: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    files, everything = [], []
    for number in range(5):
        instants = np.sort(rng.integers(0, 9000, 20_000))
        order = rng.integers(0, 2**62, 20_000)
        order = order[np.lexsort((order, instants))]
        rows = pa.table(
            {
                "event_timestamp": pa.array(instants).cast(pa.timestamp("us", tz="UTC")),
                "row": np.arange(20_000) + 20_000 * number,
                ORDER: order,
            }
        )
        everything += zip(instants.tolist(), order.tolist(), rows["row"].to_pylist(), strict=True)
        files.append(tmp_path / f"{number}.arrow")
        write_run(files[-1], rows)
    slices = list(merged(files, slice_rows))
    assert pa.concat_tables(slices)["row"].to_pylist() == [row for _, _, row in sorted(everything)]
    assert {1: len(slices) > 100, 7000: len(slices) > 5, 10**9: len(slices) == 1}[slice_rows]
    for before, after in pairwise(slices):
        assert before["event_timestamp"][-1].value < after["event_timestamp"][0].value


def test_what_was_staged_is_not_trusted_after_a_crash_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not flushed: another boot begins anew, and where boots cannot be told apart files are flushed."""
    boot = tmp_path / "boot"
    monkeypatch.setattr(staging, "_BOOT", boot)
    flushed: list[Path] = []
    monkeypatch.setattr(staging, "sync_file", flushed.append)
    read = staging.Read(3, (), 1, 1, 3, 0, {}, {})
    for name, flushes in (("one", False), ("two", False), (None, True)):
        boot.write_text(name) if name else boot.unlink()
        stage = staging.Stage(tmp_path / "stage", {"views": 1}, 4)
        assert stage.read is None
        stage.finish_reading(read, b"")
        stage.keep("rides", 2, b"state", stage.writing("rides", 2))
        assert staging.Stage(tmp_path / "stage", {"views": 1}, 4).read == read
        assert staging.Stage(tmp_path / "stage", {"views": 1}, 4).states("rides") == [b"state"]
        assert bool(flushed) == flushes
