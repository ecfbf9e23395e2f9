"""Where a flow over topics is cut, and where it cannot be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from headrace.features import Event, EventTime, Flow, KafkaSource, Stream
from headrace.features.errors import DefinitionError
from headrace.features.events import schema_of
from headrace.flows.decode import decode_rows
from headrace.flows.graph.cutting import Cut, cut
from headrace.flows.graph.running import GraphRun


class Ride(Event):
    driver: str
    city: str
    km: float
    at: EventTime


def read(flow: Flow, name: str = "rides", **more: Any) -> Stream:
    return flow.read(KafkaSource(name, Ride, name=name, bootstrap_servers="nowhere:9092", **more))


def add(state: Any, row: Any) -> Any:
    return state, row


def homes(made: Cut) -> dict[str, list[str]]:
    """The steps of each stage."""
    stages = [*made.beside.values(), *made.stages]
    return {stage.name: [step.name for step in stage.steps] for stage in stages}


def ways(made: Cut) -> set[tuple[str, str, str]]:
    """From where to where rows go, by which edge."""
    return {
        (sender, edge.name, stage.name) for stage in made.stages for edge, its in stage.after.items() for sender in its
    }


def test_nothing_is_cut_where_all_rows_come_by_one_partition() -> None:
    flow = Flow("trips")
    read(flow).map_rows(lambda row: row, name="m").key_by("driver").stateful(add, name="a").key_by("city").stateful(add)
    assert ways(cut(flow, {"rides": 1})) == set()
    assert set(homes(cut(flow, {"rides": 1}))) == {"rides"}


def test_rows_that_are_kept_as_they_are_stay_parted_by_the_key_of_their_topic() -> None:
    flow = Flow("trips")
    rides = read(flow, keyed_by="driver")
    rides.filter(Ride.km > 1).inspect(lambda row: None).key_by("driver").stateful(add, name="kept")
    rides.map_rows(lambda row: row, name="mapped").key_by("driver").stateful(add, name="moved")
    rides.key_by("city").stateful(add, name="other")
    made = cut(flow, {"rides": 4})
    assert homes(made) == {
        "rides": ["rides", "filter", "inspect", "kept", "mapped"],
        "trips.by.driver": ["moved"],
        "trips.by.city": ["other"],
    }
    assert ways(made) == {
        ("rides", "mapped/driver", "trips.by.driver"),
        ("rides", "rides/city", "trips.by.city"),
    }


def test_both_sides_of_a_join_come_by_one_topic_and_steps_after_it_stay() -> None:
    flow = Flow("trips")
    rides, calls = read(flow), read(flow, "calls")
    pairs = rides.key_by("driver").join(calls.key_by("driver"), lambda one, two: one, within="5s", name="pairs")
    pairs.filter(Ride.km > 1).key_by("city").stateful(add, name="cities")
    rides.key_by("driver").lookup(calls.key_by("driver"), lambda one, two: one, name="known")
    made = cut(flow, {"rides": 3, "calls": 2})
    assert homes(made) == {
        "rides": ["rides"],
        "calls": ["calls"],
        "trips.by.driver": ["pairs", "filter", "known"],
        "trips.by.city": ["cities"],
    }
    assert ways(made) == {
        ("rides", "rides/driver", "trips.by.driver"),
        ("calls", "calls/driver", "trips.by.driver"),
        ("trips.by.driver", "filter/city", "trips.by.city"),
    }
    by_city = made.stages[1]
    assert made.behind(by_city) == ("rides", "calls")
    numbers = [made.number(stage, 1) for stage in (*made.beside.values(), *made.stages)]
    assert len(set(numbers)) == 4
    assert max(numbers) < 1 << 15


def test_what_comes_after_streams_of_two_sources_is_computed_with_each() -> None:
    flow = Flow("trips")
    both = read(flow).merge(read(flow, "calls"))
    both.map_rows(lambda row: row, name="m").key_by("driver").stateful(add, name="a")
    made = cut(flow, {"rides": 3, "calls": 2})
    assert homes(made) == {"rides": ["rides", "merge", "m"], "calls": ["calls", "merge", "m"], "trips.by.driver": ["a"]}
    assert ways(made) == {("rides", "m/driver", "trips.by.driver"), ("calls", "m/driver", "trips.by.driver")}


def test_branches_that_meet_again_are_sorted_on_their_way() -> None:
    flow = Flow("trips")
    far, near = read(flow).branch(Ride.km > 1)
    far.map_rows(lambda row: row).merge(near).key_by("driver").stateful(add)
    (stage,) = cut(flow, {"rides": 2}).stages
    assert [edge.sorted for edge in stage.after] == [True]


def test_what_cannot_be_cut_is_refused() -> None:
    flow = Flow("trips")
    rides = read(flow)
    rides.key_by("driver").join(rides.key_by("city"), lambda one, two: one, within="5s", name="selves")
    with pytest.raises(DefinitionError, match=r"takes the rows of step 'rides' twice, by 'driver' and by 'city'"):
        cut(flow, {"rides": 2})
    flow = Flow("trips")
    rides = read(flow, keyed_by="driver")
    totals = rides.key_by("driver").stateful(add, name="totals")
    rides.merge(totals).key_by("city").stateful(add)
    with pytest.raises(DefinitionError, match="merged that give rows at different times"):
        cut(flow, {"rides": 2})
    flow = Flow("trips")
    stream = read(flow)
    for n in range(9):
        stream = stream.key_by("city" if n % 2 else "driver").stateful(add)
    with pytest.raises(DefinitionError, match="has 10 stages over topics, at most 8 are possible"):
        cut(flow, {"rides": 2})


def test_rows_for_a_step_by_key_are_not_merged_where_they_come_to() -> None:
    flow = Flow("trips")
    rides = read(flow)
    rides.key_by("city").stateful(add, name="a").merge(rides, name="both")
    made = cut(flow, {"rides": 2})
    at = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"driver": "d", "city": "c", "km": 1.0, "at": at}
    events, _ = decode_rows(schema_of(Ride), [row], 0, np.array([0], dtype=np.int64))
    later = int(at.timestamp()) * 1_000_000 + 1
    stage = GraphRun(flow, made.stages[0].steps).push({"rides": events}, later)
    beside = GraphRun(flow, made.beside["rides"].steps).push({"rides": events}, later)
    assert [len(each.given["trips.both"]) for each in (stage, beside)] == [1, 1]  # a's row, and the event
