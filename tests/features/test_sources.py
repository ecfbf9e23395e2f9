"""Sources: what they hold for the readers of files, frames and topics."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FileSource, FrameSource, IterableSource, KafkaSource
from headrace.features.sources import Source


class Ride(Event):
    ride_id: str
    driver_id: str
    fare: float
    at: EventTime


def test_common_attributes() -> None:
    source: Source = KafkaSource(
        "rides",
        Ride,
        lateness="10s",
        max_ahead=timedelta(minutes=5),
        dedup=Ride.ride_id,
        idle_after="30s",
        late="count",
        bootstrap_servers="kafka:9092",
    )
    assert (source.name, source.kind, source.event, source.schema.name) == ("rides", "kafka", Ride, "Ride")
    assert (source.lateness_us, source.max_ahead_us, source.idle_after_us) == (10_000_000, 300_000_000, 30_000_000)
    assert (source.dedup, source.late) == ("ride_id", "count")
    assert source.options == {"bootstrap_servers": "kafka:9092"}  # type: ignore[attr-defined]
    assert repr(source) == (
        "KafkaSource('rides', Ride, lateness='10s', max_ahead='5m', dedup='ride_id', idle_after='30s', late='count')"
    )


def test_defaults() -> None:
    source = FileSource("rides.csv", Ride)
    assert (source.lateness_us, source.max_ahead_us, source.idle_after_us) == (0, None, None)
    assert (source.dedup, source.late, source.zone, source.unit) == (None, "dead_letter", None, None)
    assert source.columns == {}
    assert FileSource("rides.csv", Ride, dedup="ride_id").dedup == "ride_id"


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("data/rides.parquet", "rides", "parquet"),
        (Path("data/rides.csv"), "rides", "csv"),
        ("rides.csv.gz", "rides", "csv"),
        ("RIDES.JSONL", "RIDES", "jsonl"),
        ("rides.ndjson", "rides", "jsonl"),
        ("data/2026-*.parquet", "2026", "parquet"),  # the name goes into those of snapshots
        ("data/rides/*.parquet", "rides", "parquet"),
        ("**/*.csv", "ride", "csv"),
        ("my rides (1).csv", "my-rides-1", "csv"),
    ],
)
def test_the_suffix_tells_the_format(path: Any, name: str, kind: str) -> None:
    source = FileSource(path, Ride)
    assert (source.path, source.name, source.format) == (str(path), name, kind)


def test_a_folder_says_its_format() -> None:
    source = FileSource("data/rides/", Ride, format="parquet", columns={"fare": "total_amount"}, zone="Europe/Berlin")
    assert (source.name, source.columns, source.zone) == ("rides", {"fare": "total_amount"}, "Europe/Berlin")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_are_kept_as_they_are(library: str) -> None:
    frame = pytest.importorskip(library).DataFrame({"ride_id": ["a"]})
    source = FrameSource(frame, Ride, unit="ms")
    assert source.data is frame
    assert (source.name, source.unit) == ("ride", "ms")


def test_arrow_tables_are_frames() -> None:
    table = pytest.importorskip("pyarrow").table({"ride_id": ["a"]})
    assert FrameSource(table, Ride, name="mine").name == "mine"


def test_iterables_are_kept_as_they_are() -> None:
    rows = ({"ride_id": str(i)} for i in range(3))
    assert IterableSource(rows, Ride).iterable is rows


def test_definitions_cannot_be_changed() -> None:
    for made in (KafkaSource("rides", Ride), FileSource("r.csv", Ride), Entity("driver", key="driver_id")):
        with pytest.raises(AttributeError):
            made.name = "other"  # type: ignore[misc]


def test_equal_sources_are_equal() -> None:
    assert KafkaSource("rides", Ride, client_id="a") == KafkaSource("rides", Ride, client_id="a")
    assert KafkaSource("rides", Ride) != KafkaSource("rides", Ride, lateness="1s")
    assert len({KafkaSource("rides", Ride, client_id="a"), KafkaSource("rides", Ride, client_id="a")}) == 1
