"""A view changes while its stream goes on: what is computed as before keeps its state, what is new begins empty, or
takes the state of a flow that was fed the history."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.changed import drive
from tests.oracle.described import MISSING, Clock, Derived, Feature, Sent, Stream, View, Where, Window, happened
from tests.oracle.strategies import (
    COMPILED,
    JANUARY,
    KINDS,
    MINUTE,
    NUMBERS,
    UNITS,
    cuts,
    default_of,
    is_whole,
    questions,
    scripts,
    streams,
)
from tests.oracle.strategies import features as any_feature


@st.composite
def pools(draw: st.DrawFn, unit: int, kinds: tuple[str, ...]) -> list[Feature]:
    """Features, many of which share windows, or differ in the width or the kind alone."""
    pool: list[Feature] = []
    for i in range(draw(st.integers(2, 5))):
        feature = draw(any_feature(f"f{i}", unit, kinds))
        if pool and draw(st.booleans()):
            like = draw(st.sampled_from(pool))
            window = like.window
            if window.kind in ("sliding", "hopping") and draw(st.booleans()):
                window = replace(window, width=window.width + draw(st.sampled_from((1, 2))) * window.hop)
                feature = replace(like, name=f"f{i}", window=window)
            else:
                feature = replace(feature, window=window, where=like.where)
        pool.append(feature)
    return pool


@st.composite
def histories(draw: st.DrawFn, unit: int, kinds: tuple[str, ...], most: int) -> list[View]:
    """Two or three definitions of one view, with features of one pool, under any names."""
    pool = draw(pools(unit, kinds))
    stream = draw(streams(unit))
    keys = draw(st.sampled_from((("who",), ("who", "where_from"))))
    views = []
    for _ in range(draw(st.integers(2, most))):
        chosen = draw(st.lists(st.sampled_from(pool), min_size=1, unique_by=lambda f: f.name))
        named: list[Feature | Derived] = []
        for i, f in enumerate(chosen):
            name = draw(st.sampled_from((f.name, f"g{i}")))
            default = f.default
            if f.by is None and draw(st.integers(0, 5)) == 0:
                default = draw(st.sampled_from((MISSING, default_of(f.kind, f.column))))
            named.append(replace(f, name=name, default=default))
        numbers = [f for f in named if isinstance(f, Feature) and f.by is None and f.kind in NUMBERS]
        if numbers and draw(st.integers(0, 2)) == 0:
            left, right = (draw(st.sampled_from(numbers)) for _ in range(2))
            op = draw(st.sampled_from("+-*/"))
            whole = op != "/" and is_whole(left) and is_whole(right)
            named.append(
                Derived("d", op, left.name, right.name, draw(st.sampled_from((MISSING, -7 if whole else -7.5))))
            )
        views.append(View(tuple(named), keys=keys, ttl=draw(st.sampled_from((None, 4 * unit))), stream=stream))
    return views


def run(data: st.DataObject, kinds: tuple[str, ...], how: Literal["start", "backfill"]) -> None:
    unit = data.draw(st.sampled_from(UNITS))
    views = data.draw(histories(unit, kinds, 3 if how == "start" else 2))
    script = data.draw(scripts(unit, views[0].stream))
    where = data.draw(st.lists(st.integers(0, 5), min_size=len(views) - 1, max_size=len(views) - 1))
    drive(views, script, data.draw(cuts), where, data.draw(questions(unit, script)), how)


@given(st.data())
def test_compiled_features_keep_their_state(data: st.DataObject) -> None:
    run(data, COMPILED, "start")


@given(st.data())
def test_all_features_keep_their_state(data: st.DataObject) -> None:
    run(data, KINDS, "start")


@given(st.data())
def test_new_compiled_features_take_their_history(data: st.DataObject) -> None:
    run(data, COMPILED, "backfill")


@given(st.data())
def test_all_new_features_take_their_history(data: st.DataObject) -> None:
    run(data, KINDS, "backfill")


def test_a_new_feature_whose_neighbour_is_old_takes_only_its_own_events_of_those_that_wait() -> None:
    """In the history both share tiles; here the new one has its own, which take what it takes and no more."""
    paid, abroad = Where("==", ("paid", True)), Where("!=", ("city", "rome"))
    old = Feature("paid", "top_k", Window("sliding", 5 * MINUTE, MINUTE), "city", paid, params={"k": 3})
    new = Feature("abroad", "count", Window("current", MINUTE), where=abroad)
    stream = Stream(lateness=10 * MINUTE)
    script: list[Sent | Clock] = [
        happened(JANUARY + at * MINUTE + 1, offset=at, paid=True, city=city)
        for at, city in enumerate((None, "rome", "oslo"))
    ]
    views = [View((old,), stream=stream), View((old, new), stream=stream)]
    drive(views, script, [1, 2], [1], [JANUARY + 1, JANUARY + 30 * MINUTE], "backfill")
