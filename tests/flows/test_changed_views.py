"""A view changes between two runs over files: unchanged features go on, new ones start empty, are filled or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, FileSource, derived
from headrace.features.time import format_instant
from headrace.flows.recording import LOG, ONLINE
from headrace.flows.runner import run
from headrace.flows.snapshot import SnapshotError
from headrace.serving import Client
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog

MINUTE = 60_000_000
START = 1_767_225_600_000_000


class Ride(Event):
    driver: int
    fare: float
    at: EventTime


def views(folder: Path) -> tuple[type[FeatureView], type[FeatureView]]:
    """The view before the change and after it."""
    source = FileSource(folder, Ride, name="rides", format="jsonl", lateness="5m")
    driver = Entity("driver", key="driver")

    class Before(FeatureView, source=source, entity=driver, name="drivers"):
        rides = Ride.count(last="30m", hop="1m")
        lowest = Ride.fare.min(last="10m", hop="1m")

    class After(FeatureView, source=source, entity=driver, name="drivers"):
        rides = Ride.count(last="30m", hop="1m")
        longer = Ride.count(last="40m", hop="1m")
        spent = Ride.fare.sum(last="30m", hop="1m")
        mean = derived(spent / rides, default=0.0)

    return Before, After


def write(path: Path, first: int, count: int) -> None:
    """Rides half a minute apart, and a line that is none."""
    lines = [
        json.dumps({"driver": i * i % 7, "fare": float(i % 11), "at": format_instant(START + i * MINUTE // 2)})
        for i in range(first, first + count)
    ]
    path.write_text("\n".join([*lines[:5], "no ride", *lines[5:]]) + "\n")


def rows(data: Path, view: type[FeatureView], *, after_us: int) -> list[dict[str, Any]]:
    return OfflineLog(data / LOG).scan(view, from_us=after_us).to_pylist()


def online(data: Path, view: type[FeatureView]) -> list[dict[str, Any]]:
    with EmbeddedStore(data / ONLINE, read_only=True) as store:
        return Client(store).get_many(view, [{"driver": i} for i in range(7)]).to_dicts()


@pytest.mark.parametrize("on_change", ["start", "backfill"])
def test_a_changed_view_goes_on(tmp_path: Path, on_change: Any) -> None:
    folder = tmp_path / "rides"
    folder.mkdir()
    before, after = views(folder)
    write(folder / "1.jsonl", 0, 150)
    run([before], tmp_path / "data", batch_size=64)
    write(folder / "2.jsonl", 150, 250)
    with pytest.raises(SnapshotError, match=r"(?s)longer.*start.*backfill"):
        run([after], tmp_path / "data")
    run([after], tmp_path / "data", batch_size=64, on_change=on_change)
    run([after], tmp_path / "whole")
    assert online(tmp_path / "data", after) == online(tmp_path / "whole", after)
    settled = START + 150 * MINUTE // 2 - 5 * MINUTE
    known = settled if on_change == "backfill" else settled + 45 * MINUTE
    got, whole = (rows(tmp_path / name, after, after_us=known) for name in ("data", "whole"))
    assert len(whole) > 100
    assert got == whole
    if on_change == "start":
        some = rows(tmp_path / "data", after, after_us=settled + 5 * MINUTE)[:50]
        truth = {
            (row["driver"], row["event_timestamp"]): row for row in rows(tmp_path / "whole", after, after_us=settled)
        }
        assert any(row["longer"] < truth[row["driver"], row["event_timestamp"]]["longer"] for row in some)
        assert all(row["rides"] == truth[row["driver"], row["event_timestamp"]]["rides"] for row in some)
