"""Chains of checkpoints: a delta has what changed, names the part before it, and is refused anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource, Lifetime
from headrace.features.columns import Column
from headrace.flows.chain import LONGEST
from headrace.flows.decode import decode_rows
from headrace.flows.pipeline import SourceFlow
from headrace.flows.snapshot import SnapshotError
from headrace.stores.checkpoints import SnapshotPart


class Ride(Event):
    driver: str
    fare: Column[float | None]
    city: Column[str | None]
    at: EventTime


rides = IterableSource([], Ride, name="rides", lateness="1m")
driver = Entity("driver", key="driver")
STATE = "rides.activity"


class Activity(FeatureView, source=rides, entity=driver):
    rides_1h = Ride.count(last="1h")
    mean = Ride.fare.mean(last="1h")
    cities = Ride.city.distinct(over=Lifetime())


class Grown(FeatureView, source=rides, entity=driver, name="activity", ttl="1d"):
    rides_1h = Ride.count(last="1h", default=-1)
    rides_2h = Ride.count(last="2h")
    cities = Ride.city.distinct(over=Lifetime())


class Renamed(FeatureView, source=rides, entity=driver, name="activity", log_every="1m"):
    journeys = Ride.count(last="1h")
    fare = Ride.fare.mean(last="1h")
    towns = Ride.city.distinct(over=Lifetime())


class ByCity(FeatureView, source=rides, entity=Entity("city", key="city"), name="activity"):
    rides_1h = Ride.count(last="1h")


class Other(FeatureView, source=rides, entity=driver):
    rides_lifetime = Ride.count(over=Lifetime())


def push(flow: SourceFlow, drivers: Iterable[int], minute: float) -> None:
    seconds = int(minute * 60)
    at = f"2026-01-01T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z"
    rows = [{"driver": f"d{i}", "fare": i / 4, "city": ("oslo", "rome")[i % 2], "at": at} for i in drivers]
    batch, dead = decode_rows(rides.schema, rows, 0, int(minute * 10_000))
    assert not dead
    flow.push(batch)


def values(flow: SourceFlow, view: str = "activity") -> dict[str, dict[str, Any]]:
    return {row["driver"]: row for row in flow.rows(flow.clock_us)[view].to_pylist()}


def packed(parts: dict[str, SnapshotPart]) -> dict[str, list[bytes]]:
    return {name: [part.data] for name, part in parts.items()}


def begun(drivers: int) -> SourceFlow:
    """A flow in which all but one event has settled."""
    flow = SourceFlow(rides, [Activity])
    push(flow, range(drivers), 0)
    push(flow, range(drivers), 5)
    push(flow, [0], 10)
    return flow


def test_a_delta_has_what_changed_and_the_chain_is_the_whole() -> None:
    flow = begun(2000)
    first = flow.save()[STATE]
    push(flow, range(3), 12)
    push(flow, [2001], 13)
    push(flow, range(9), 15)
    second = flow.save()[STATE]
    assert (first.delta, second.delta) == (False, True)
    chain = [first.data, second.data]
    assert len(chain[1]) < len(chain[0]) / 2
    parts = {**packed(flow.save(full=True)), STATE: chain}
    going = SourceFlow(rides, [Activity])
    going.load(parts)
    assert values(going) == values(flow)
    assert going.changed == ()
    # The chain goes on where it was, in the new process too.
    push(going, range(5), 18)
    third = going.save()[STATE]
    assert third.delta
    again = SourceFlow(rides, [Activity])
    again.load({**parts, STATE: [*chain, third.data]})
    assert values(again) == values(going)


def test_a_missing_or_foreign_delta_is_refused() -> None:
    flow = begun(500)
    parts = packed(flow.save())
    chain = parts[STATE]
    for minute in (12, 14, 16):
        push(flow, range(minute), minute)
        chain.append(flow.save()[STATE].data)
    foreign = packed(begun(400).save())[STATE][0]
    for wrong, told in (
        (
            [chain[0], chain[2]],
            "part 2 of 2 is delta 2, which does not continue the part before it: a delta is missing",
        ),
        (chain[1:], "part 1 of 3 is delta 1"),
        ([foreign, chain[1]], "part 2 of 2 is delta 1"),
        ([chain[0], chain[0]], "part 2 of 2 is a full one"),
        ([chain[0], chain[1][:-1]], "damaged"),
        ([], "not in the checkpoint"),
    ):
        with pytest.raises(SnapshotError, match=told):
            SourceFlow(rides, [Activity]).load({**parts, STATE: wrong})
    SourceFlow(rides, [Activity]).load({**parts, STATE: chain})


def test_a_chain_begins_anew_before_it_is_longer_than_it_is_worth() -> None:
    flow = begun(300)
    deltas = []
    for number in range(2 * LONGEST):
        push(flow, [number], 11 + number / 4)
        deltas.append(flow.save()[STATE].delta)
    assert not deltas[0]
    assert not all(deltas[1:])
    assert all(False in deltas[i : i + LONGEST] for i in range(LONGEST))
    push(flow, range(300), 60)
    push(flow, [1], 63)
    assert not flow.save()[STATE].delta, "a delta of everything is larger than half of it"
    push(flow, [1], 66)
    assert flow.save()[STATE].delta
    assert not flow.save(full=True)[STATE].delta


def test_parts_may_be_packed_late_and_say_what_was_when_they_were_saved() -> None:
    flow = begun(500)
    saved = [(flow.save(), values(flow))]
    for minute in (12, 14, 16):
        push(flow, range(minute), minute)
        saved.append((flow.save(), values(flow)))
    for upto, (parts, told) in enumerate(saved):
        going = SourceFlow(rides, [Activity])
        going.load({name: [one[name].data for one, _ in saved[: upto + 1]] for name in parts if name == STATE} | {
            "rides.-admission": [parts["rides.-admission"].data]
        })  # fmt: skip
        assert values(going) == told


def changed(view: Any, on_change: Any = "start", *more: Any) -> SourceFlow:
    flow = SourceFlow(rides, [Activity])
    push(flow, range(4), 0)
    push(flow, range(2), 30)
    going = SourceFlow(rides, [view, *more])
    going.load(packed(flow.save()), on_change)
    return going


def test_a_changed_view_is_refused_with_what_changed() -> None:
    with pytest.raises(
        SnapshotError,
        match=r"ttl changed from none to 1d; feature mean removed \(was mean of Ride.fare .*\); feature rides_1h: "
        r"default changed from none to -1; feature rides_2h added: count \(last 2h, hop 2m\)\. .*--on-change start.*",
    ):
        changed(Grown, "refuse")


def test_what_is_computed_as_before_keeps_its_state() -> None:
    going = changed(Grown)
    assert (going.changed, going.backfills) == (("activity",), ())
    assert values(going)["d1"] | {"rides_1h": 2, "rides_2h": 0, "cities": 1} == values(going)["d1"]
    push(going, [1], 31)
    assert values(going)["d1"] | {"rides_1h": 3, "rides_2h": 1, "cities": 1} == values(going)["d1"]


def test_another_name_ttl_default_or_thinning_needs_no_word() -> None:
    going = changed(Renamed, "refuse")
    assert going.changed == ("activity",)
    assert values(going)["d1"] | {"journeys": 2, "fare": 0.25, "towns": 1} == values(going)["d1"]


def test_other_keys_are_refused_whatever_is_wanted() -> None:
    for on_change in ("refuse", "start", "backfill"):
        with pytest.raises(
            SnapshotError, match=r"keys 'driver' .* now has keys 'city' .* Give the changed view another"
        ):
            changed(ByCity, on_change)


def test_a_view_that_was_not_there_begins_empty_or_takes_its_history() -> None:
    going = changed(Activity, "start", Other)
    assert going.changed == ("other",)
    push(going, [1], 31)
    assert {who: row["rides_lifetime"] for who, row in values(going, "other").items()} == {"d1": 1}

    going = changed(Grown, "backfill", Other)
    assert going.backfills == ("activity", "other")
    history = SourceFlow(rides, [Grown, Other])
    push(history, range(4), 0)
    push(history, range(2), 30)
    going.graft(history)
    assert going.backfills == ()
    push(going, [1], 31)
    assert values(going, "other")["d1"]["rides_lifetime"] == 3
    assert values(going)["d1"] | {"rides_1h": 3, "rides_2h": 3, "cities": 1} == values(going)["d1"]


def test_history_of_another_view_or_further_on_is_refused() -> None:
    for history in (SourceFlow(rides, [Activity]), SourceFlow(rides, [Other])):
        with pytest.raises(SnapshotError, match=r"View 'activity'.*of the same views"):
            changed(Grown, "backfill").graft(history)
    history = SourceFlow(rides, [Grown])
    push(history, range(4), 90)
    with pytest.raises(
        SnapshotError, match=r"history has settled to 2026-01-01T01:28:.*Feed it up to the same offsets"
    ):
        changed(Grown, "backfill").graft(history)
