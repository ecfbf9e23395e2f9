"""Served answers beside the log: what was right when it was given is told from what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.features import Entity, Event, EventTime, FeatureService, FrameSource, ViewDefinition, define
from headrace.features.services import ServedFeature
from headrace.features.time import format_instant, instant_us
from headrace.flows.runner import run
from headrace.materialize.comparing import Check
from headrace.materialize.served import check_served
from headrace.serving import Client, FeatureLog
from headrace.serving.logged_answers import logged_answers
from headrace.stores.memory import MemoryStore
from headrace.stores.offline import OfflineLog

START = instant_us("2026-01-01T00:00Z", "start")
SECOND = 1_000_000


class Ride(Event):
    driver: str
    fare: float
    at: EventTime


def view_of(rides: Sequence[tuple[str, int, float]], lateness: str = "30s") -> ViewDefinition:
    """rides: driver, seconds after the start, fare; in the order in which they came."""
    times = pa.array([START + at * SECOND for _, at, _ in rides]).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table({"driver": [d for d, _, _ in rides], "fare": [fare for _, _, fare in rides], "at": times})
    features = {"rides": Ride.count(last="10m"), "spent": Ride.fare.sum(last="10m"), "mean": Ride.fare.mean(last="1h")}
    return define(
        "drivers",
        source=FrameSource(table, Ride, name="rides", lateness=lateness),
        entity=Entity("driver", key="driver"),
        features=features,
        ttl="2h",
    )


def log_of(view: ViewDefinition, folder: Path) -> OfflineLog:
    run([view], folder)
    return OfflineLog(folder / "log")


def answered(folder: Path, asked: Any, view: ViewDefinition, log: OfflineLog, instants: Sequence[int],
             lag_s: int = 0) -> None:  # fmt: skip
    """Answers of all drivers at these seconds, from the rows that a flow had written `lag_s` before."""
    with FeatureLog(folder) as served:
        for seconds in instants:
            at = START + seconds * SECOND
            store = MemoryStore()
            store.write(view, log.latest(view, to_us=at - lag_s * SECOND))
            client = Client(store, [asked] if isinstance(asked, FeatureService) else [], watchers=[served])
            name = asked.name if isinstance(asked, FeatureService) else [view]
            client.features(name, {"driver": ["a", "b", "c"]}, at=format_instant(at))


RIDES = [(d, i * 40 + s, 1.0 + i % 7) for i in range(60) for s, d in enumerate("ab")]
"""Two drivers, each some 40 s; c never drives."""


def found(folder: Path, view: ViewDefinition, *services: FeatureService) -> tuple[Sequence[ServedFeature], pa.Table]:
    ((answers,), left) = logged_answers(folder, services, [view])
    assert left == {}
    return answers.features, pa.concat_tables(answers.tables())


@pytest.mark.parametrize("by_service", [True, False])
def test_right_answers_and_each_kind_of_damage(tmp_path: Path, by_service: bool) -> None:
    view = view_of(RIDES)
    log = log_of(view, tmp_path / "data")
    service = FeatureService("pricing", [view["spent", "rides"]])
    answered(tmp_path / "served", service if by_service else view, view, log, range(0, 2450, 50))
    features, table = found(tmp_path / "served", view, *([service] if by_service else []))

    def checked(some: pa.Table, share: float = 1.0) -> Check:
        (check,) = check_served(features, [some.slice(0, 60), some.slice(60)], log, share=share)
        return check

    check = checked(table)
    assert (check.differences, check.behind, check.maybe_later, check.entities) == (0, 0, 0, 3)
    assert check.undecided == sum(at >= (log.settled_us(view) or 0) for at in instants(table)) > 0
    assert check.rows + check.undecided == table.num_rows
    assert check.features["spent"].compared == check.features["rides"].compared > 60

    settled = table.slice(30, 3)  # a, b and c at 500 s
    wrong = damaged(settled, "spent", 999.5)
    check = checked(pa.concat_tables([table.slice(0, 30), wrong, table.slice(33)]))
    # Two drivers had rides within the moment before, and no one can tell: the lateness is not 0.
    assert (check.maybe_later, check.missing, check.extra) == (2, 0, 1)
    assert "driver=c" in str(check.example)
    quiet = view_of(RIDES, lateness="0s")
    (check,) = check_served(
        [ServedFeature(each.name, quiet, each.feature) for each in features], [wrong], log_of(quiet, tmp_path / "quiet")
    )
    assert (check.features["spent"].mismatched, check.features["rides"].mismatched) == (2, 0)
    assert check.features["spent"].largest == pytest.approx(999.5, rel=0.2)
    assert check.differences == 2 + check.extra
    lost = settled.set_column(
        settled.column_names.index("event_times"), "event_times",
        pa.chunked_array([pa.StructArray.from_arrays([pa.nulls(3, pa.timestamp("us", tz="UTC"))], names=["drivers"])]),
    )  # fmt: skip
    check = checked(lost)
    assert (check.missing, check.extra, check.rows) == (2, 0, 1)
    assert "was not found" in str(check.example)
    assert checked(table, share=1e-9).entities == 0


def instants(table: pa.Table) -> list[int]:
    return table.column("at").cast(pa.int64()).to_pylist()


def damaged(table: pa.Table, feature: str, value: float) -> pa.Table:
    """Everybody was found and had `value`."""
    columns = table.column("features").combine_chunks()
    arrays = [pa.array([value] * len(table)) if f.name == feature else columns.field(f.name) for f in columns.type]
    made = pa.StructArray.from_arrays(arrays, fields=list(columns.type))
    table = table.set_column(table.column_names.index("features"), "features", made)
    times = pa.StructArray.from_arrays([table.column("at").combine_chunks()], names=["drivers"])
    return table.set_column(table.column_names.index("event_times"), "event_times", times)


def test_an_answer_of_a_moment_before_and_one_before_a_late_event(tmp_path: Path) -> None:
    view = view_of(RIDES)
    log = log_of(view, tmp_path / "data")
    answered(tmp_path / "lagging", view, view, log, range(100, 1800, 50), lag_s=20)
    (check,) = check_served(*found_one(tmp_path / "lagging", view), log)
    assert (check.differences, check.maybe_later) == (0, 0)
    assert check.behind > 10
    answered(tmp_path / "stuck", view, view, log, range(500, 1800, 50), lag_s=300)
    (check,) = check_served(*found_one(tmp_path / "stuck", view), log)
    assert check.differences + check.maybe_later > 30, "a flow that stands still for minutes is no moment behind"

    came_late = [("a", 900, 3.0), ("a", 950, 4.0), ("a", 930, 100.0), ("a", 1500, 1.0)]
    for lateness, expected in (("30s", (1, 0)), ("0s", (0, 0))):
        late, before = view_of(came_late, lateness), view_of(came_late[:2], lateness)
        folder = tmp_path / f"late-{lateness}"
        then = log_of(before, folder / "then")
        answered(folder / "served", before, before, then, [960])
        (check,) = check_served(*found_one(folder / "served", late), log_of(late, folder / "data"))
        # With no lateness the late event is a dead letter, and the answer was right.
        assert (check.maybe_later, check.differences) == expected


def found_one(folder: Path, view: ViewDefinition) -> tuple[Sequence[ServedFeature], list[pa.Table]]:
    features, table = found(folder, view)
    return features, [table]


def test_answers_of_another_definition_are_named(tmp_path: Path) -> None:
    view = view_of(RIDES)
    log = log_of(view, tmp_path / "data")
    service = FeatureService("pricing", [view])
    answered(tmp_path / "served", service, view, log, [100])
    answered(tmp_path / "served", view, view, log, [100])
    other = define("drivers", source=view.source, entity=view.entity, features={"rides": Ride.count(last="5m")})
    made, left = logged_answers(tmp_path / "served", [FeatureService("pricing", [other])], [other])
    assert made == []
    assert len(left) == 2
    assert set(left.values()) == {"of another definition than the file has now"}
    made, left = logged_answers(tmp_path / "served", [service], [view])
    assert (len(made), left) == (2, {})
    assert logged_answers(tmp_path / "nowhere", [service], [view]) == ([], {})
