"""Training sets from raw events in every form they come in, values as known then, and what is said of their skew."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import (
    Entity,
    Event,
    EventTime,
    FeatureService,
    FeatureView,
    FileSource,
    FrameSource,
    IterableSource,
    KafkaSource,
    Lifetime,
    OfflineLog,
    Request,
    derived,
    training_set,
)
from headrace.features.errors import DataError, DefinitionError
from headrace.flows.backfill import Step
from headrace.materialize import skew_report

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


class Ride(Event):
    driver_id: str
    fare: float | None
    at: EventTime


class Received(Ride):
    received_at: datetime | None
    channel: int


RIDES = KafkaSource("rides", Ride, lateness="3m")
DRIVER = Entity("driver", key="driver_id")


class Fares(FeatureView, source=RIDES, entity=DRIVER, ttl="1h", log=False):
    rides = Ride.count(last="30m")
    mean = Ride.fare.mean(last="30m")


class Lives(FeatureView, source=RIDES, entity=DRIVER):
    fares = Ride.fare.last_n(3, over=Lifetime())


# (driver, fare, minute of the ride, of its arrival)
ROWS = [("7", 10.0, 0, 0), ("7", 20.0, 4, 4), ("8", 5.0, 5, 5), ("7", 60.0, 3, 7), ("7", 99.0, 1, 8)]
EVENTS = [
    {"driver_id": who, "fare": fare, "at": at(minute), "received_at": at(arrival), "channel": 1}
    for who, fare, minute, arrival in ROWS
]
TABLE = pa.Table.from_pylist(EVENTS)
SPINE = [{"driver_id": who, "event_timestamp": at(minute)} for who, minute in (("7", 4), ("7", 7), ("8", 4), ("9", 4))]


def plain(table: Any, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


@pytest.mark.parametrize("form", ["rows", "arrow", "pandas", "polars", "parquet", "path", "source", "history"])
def test_events_are_read_from_anything_and_judged_by_the_views_source(form: str, tmp_path: Path) -> None:
    """The last ride is four minutes older than one that came before it, of a source that waits three."""
    path = tmp_path / "rides.parquet"
    pq.write_table(TABLE, path)
    events: Any = {
        "rows": EVENTS,
        "arrow": TABLE,
        "pandas": TABLE.to_pandas(),
        "polars": pl.from_arrow(TABLE),
        "parquet": str(path),
        "path": path,
        "source": FileSource(path, Received, lateness="1d"),
    }.get(form)
    view: Any = Fares
    if form == "history":
        source = KafkaSource("rides", Ride, lateness="3m", history=FileSource(path, Ride))

        class Fared(FeatureView, source=source, entity=DRIVER):
            rides = Ride.count(last="30m")
            mean = Ride.fare.mean(last="30m")

        view = Fared
    found = training_set(SPINE, view, events=events)
    assert plain(found, "rides", "mean") == [[3, 3, 0, 0], [30.0, 30.0, None, None]]


@pytest.mark.parametrize("order", ["as they came", "shuffled"])
def test_a_history_that_says_its_partitions_is_judged_by_each(order: str) -> None:
    """A connector writes one file for each partition: as one stream all that the second holds would be late."""
    rows = [
        {"driver_id": who, "fare": 1.0, "at": at(minute), "received_at": at(arrived), "part": part, "place": place}
        for part, who, its in ((0, "7", ((0, 0), (60, 60), (58, 61), (1, 62))), (1, "8", ((0, 0), (30, 31), (1, 32))))
        for place, (minute, arrived) in enumerate(its)
    ]
    table = pa.Table.from_pylist(rows if order == "as they came" else [rows[i] for i in (0, 4, 1, 2, 5, 3, 6)])

    class Told(Ride):
        received_at: datetime

    source = KafkaSource(
        "rides", Told, lateness="3m", history=FrameSource(table, Told), history_position=("part", "place")
    )

    class Ever(FeatureView, source=source, entity=DRIVER):
        rides = Told.count(over=Lifetime())

    spine = [{"driver_id": who, "event_timestamp": at(minute)} for who, minute in (("7", 60), ("7", 99), ("8", 30))]
    found = training_set(spine, Ever, arrival="received_at", as_known="beside")
    assert plain(found, "rides", "rides__known") == [[3, 3, 2], [2, 3, 1]]
    assert plain(training_set(spine, Ever, repair=True), "rides") == [[4, 4, 3]]
    (one,) = plain(training_set(spine, Ever, events=table), "rides")
    assert (one == [3, 3, 0]) == (order == "as they came")


def test_what_a_flow_would_refuse_does_not_count_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    rows = [*EVENTS, {"driver_id": "8", "fare": 1.0, "at": at(10)}, {"driver_id": "7", "fare": 9.0, "at": at(2)}, {}]
    with caplog.at_level(logging.WARNING, "headrace.training"):
        found = training_set(SPINE, Fares, events=rows)
    assert plain(found, "rides") == [[3, 3, 0, 0]]
    assert "Of 8 events of source 'rides' 3 did not count: 2 late, 1 malformed." in caplog.text
    repaired = training_set(SPINE, Fares, events=rows, repair=True)
    assert plain(repaired, "rides") == [[5, 5, 0, 0]]


def test_values_as_they_were_known_then() -> None:
    events = FrameSource(TABLE, Received)
    options: dict[str, Any] = {"events": events, "arrival": "received_at", "statuses": True}
    beside = training_set(SPINE, Fares, as_known="beside", **options)
    names = ["driver_id", "event_timestamp"]
    for name in ("rides", "mean"):
        names += [name, f"{name}__status", f"{name}__known", f"{name}__known__status"]
    assert beside.column_names == names
    assert plain(beside, "rides", "rides__known") == [[3, 3, 0, 0], [2, 3, 0, 0]]
    assert plain(beside, "mean__known", "mean__known__status") == [
        [15.0, 30.0, None, None],
        ["PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND"],
    ]
    only = training_set(SPINE, Fares, as_known="only", **options)
    assert only.column_names == [name for name in names if "__known" not in name]
    assert plain(only, "rides", "mean__status") == plain(beside, "rides__known", "mean__known__status")


def test_features_on_demand_are_of_what_was_known_and_several_sources_have_events_of_their_own() -> None:
    class Tip(Event):
        driver_id: str
        tip: float
        at: EventTime

    class Tips(FeatureView, source=IterableSource([], Tip, name="tips"), entity=DRIVER):
        tips = Tip.tip.sum(last="1h")

    service = FeatureService(
        "pricing",
        [Fares["rides"], Lives["fares"], Tips["tips"]],
        derived={"to_mean": derived(Request("amount", float) / Fares["mean"])},
    )
    spine = [row | {"amount": 60.0} for row in SPINE]
    tips = [{"driver_id": "7", "tip": 2.0, "at": at(1)}]
    with pytest.raises(DataError, match=r"sources rides, tips. Say whose events= are: events=\{'rides': ...\}"):
        training_set(spine, service, events=tips)
    with pytest.raises(DataError, match="events= names 'tip', which is no source of these features; did you mean"):
        training_set(spine, service, events={"tip": tips})
    with pytest.raises(DataError, match=r"source 'rides' is a KafkaSource, which is not read from start to end. Give"):
        training_set(spine, service, events={"tips": tips})
    found = training_set(spine, service, events={"rides": TABLE, "tips": tips}, to=None)
    assert plain(found, "tips", "to_mean", "fares") == [
        [2.0, 2.0, 0.0, 0.0],
        [2.0, 2.0, None, None],
        [[10.0, 60.0, 20.0]] * 2 + [None, None],
    ]
    options: dict[str, Any] = {"events": {"rides": FrameSource(TABLE, Received), "tips": tips}, "as_known": "only"}
    with pytest.raises(DataError, match=r"arrival= says nothing of source 'tips'. Name its column"):
        training_set(spine, service, arrival={"rides": "received_at"}, **options)
    known = training_set(spine, service, arrival={"rides": "received_at", "tips": "at"}, **options)
    assert plain(known, "tips", "to_mean", "fares") == [
        [2.0, 2.0, 0.0, 0.0],
        [4.0, 2.0, None, None],
        [[10.0, 20.0], [10.0, 60.0, 20.0], None, None],
    ]


def test_options_of_the_other_road_and_wrong_arrivals() -> None:
    log = OfflineLog("nowhere")
    for option in ({"events": TABLE}, {"arrival": "received_at"}, {"as_known": "only"}, {"repair": True}):
        (name,) = option
        with pytest.raises(DefinitionError, match=f"{name}= is of values that are recomputed from events, and log="):
            training_set(SPINE, Fares, log=log, **option)
    with pytest.raises(DefinitionError, match="memory= is of values from a log"):
        training_set(SPINE, Fares, events=TABLE, memory="1GB")
    with pytest.raises(DefinitionError, match="as_known= needs to know when events arrived"):
        training_set(SPINE, Fares, events=TABLE, as_known="only")
    with pytest.raises(DefinitionError, match="as_known='both' is unknown"):
        training_set(SPINE, Fares, events=TABLE, as_known="both", arrival="received_at")
    with pytest.raises(DefinitionError, match="arrival= is for values as known then"):
        training_set(SPINE, Fares, events=TABLE, arrival="received_at")
    with pytest.raises(DataError, match=r"arrival='received_at' is no column of Ride.*Declare it, `received_at"):
        training_set(SPINE, Fares, events=TABLE, as_known="only", arrival="received_at")
    with pytest.raises(DataError, match="arrival='channel' of Received is int64, expected an instant"):
        training_set(SPINE, Fares, events=FrameSource(TABLE, Received), as_known="only", arrival="channel")

    class Other(Event):
        driver_id: int
        fare: float | None
        at: EventTime

    with pytest.raises(DataError, match="are Other, where column 'driver_id' is int64, and Ride has it as string"):
        training_set(SPINE, Fares, events=FrameSource(TABLE, Other))
    with pytest.raises(DataError, match="Column 'rides__known' would come from the spine and from view 'fares'"):
        training_set(
            pa.Table.from_pylist(SPINE).append_column("rides__known", pa.array([1] * 4)),
            Fares,
            events=FrameSource(TABLE, Received),
            arrival="received_at",
            as_known="beside",
        )


def test_a_spine_in_portions_or_of_a_query_and_nothing_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.materialize.spine.Spine.portions.__defaults__", (2,))
    many = [SPINE[i % 4] | {"n": i} for i in range(7)]
    steps: list[Step] = []
    found = training_set(many, [Fares, Lives], events=TABLE, folder=tmp_path, progress=steps.append)
    assert plain(found, "n", "rides") == [[*range(7)], [3, 3, 0, 0, 3, 3, 0]]
    assert {(step.phase, step.what) for step in steps} == {
        ("read", "rides"),
        ("compute", "fares"),
        ("compute", "lives"),
    }
    pq.write_table(pa.Table.from_pylist(many), tmp_path / "spine.parquet")
    query = f"SELECT * FROM '{tmp_path / 'spine.parquet'}' ORDER BY n DESC"
    to = tmp_path / "train.parquet"
    assert training_set(query, Fares, events=TABLE, folder=tmp_path, to=to) == to
    assert plain(pq.read_table(to), "n", "rides") == [[6, 5, 4, 3, 2, 1, 0], [0, 3, 3, 0, 0, 3, 3]]
    with pytest.raises(DataError, match="the frame has no column 'at'"):
        training_set(many, Fares, events=TABLE.drop_columns("at"), folder=tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"spine.parquet", "train.parquet"}
    empty = training_set(pa.Table.from_pylist(many).slice(0, 0), Fares, events=TABLE, as_="pandas")
    assert list(empty.columns) == ["driver_id", "event_timestamp", "n", "rides", "mean"]


def test_the_report_on_skew() -> None:
    columns = {
        "mean": [1.0, 2.0, None, 4.0, 0.1 + 0.2],
        "mean__known": [1.0, 5.0, 3.0, 3.0, 0.3],
        "rides": [2**60, 2, 3, 4, 5],
        "rides__known": [2**60 + 1, 2, 3, 4, 5],
        "rides__status": ["PRESENT"] * 5,
        "rides__status__known": ["NULL"] * 5,
        "top": [["a"], ["a", "b"], None, [], []],
        "top__known": [["a"], ["b", "a"], None, [], []],
    }
    for form in (pa.table, pl.DataFrame, lambda each: pa.table(each).to_pandas()):
        report = skew_report(form(columns) if form is not pl.DataFrame else pl.DataFrame(columns))
        assert {name: (each.differing, each.rows, each.row) for name, each in report.features.items()} == {
            "mean": (3, 5, 1),
            "rides": (1, 5, 0),
            "top": (1, 5, 1),
        }
        mean = report.features["mean"]
        assert (mean.largest, mean.mean, mean.share) == (3.0, pytest.approx(1.0), 0.6)
        assert report.share == pytest.approx(5 / 15)
        assert report.to_dict()["features"]["top"]["largest"] is None
    assert str(report).splitlines()[1].split() == ["mean", "5", "60.0%", "1", "3", "1"]
    with pytest.raises(DataError, match="Make the training set with as_known='beside'"):
        skew_report(pd.DataFrame({"mean": [1.0]}))
