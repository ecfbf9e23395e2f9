"""Frames of a span's rows beside the state of their keys, against list programs: any batches, restarts, order."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flows.graph.driving import Given, Reading, drive, in_order, keyed, made, moment, rows, streams

from headrace.features import DefinitionError, Event, EventTime, Flow, IterableSource
from headrace.flows.graph.rows import StepError
from headrace.flows.snapshot import SnapshotError
from headrace.testing import replay_flow

BAD = -3


class Running(Event):
    who: str
    n: int
    total: int
    at: EventTime


def refusing(frame: Any) -> None:
    if (frame.x == BAD).any():
        raise ValueError("bad")


def running(state: Any, frame: Any) -> Any:
    """Of each row how many its key has had, and their sum."""
    refusing(frame)
    by = frame.x.fillna(0).astype("int64").groupby(frame.who, sort=False)
    n = by.cumcount() + 1 + frame.who.map(state.n)
    total = by.cumsum() + frame.who.map(state.total)
    state["n"] += by.size()
    state["total"] += by.sum()
    return state.iloc[::-1], pd.DataFrame({"who": frame.who, "n": n, "total": total})


def summed(state: Any, frame: Any) -> Any:
    """Of each key that has rows in a span one row, at its last."""
    refusing(frame)
    state["n"] += frame.groupby("who").size()
    state["total"] += frame.groupby("who").x.sum().astype("int64")
    return state, state[["n", "total"]]


START = {"n": 0, "total": 0}


def spans(given: Sequence[Given], every: int) -> list[list[Given]]:
    """The rows of each span in order; a bad row is in none."""
    found: dict[int, list[Given]] = {}
    for each in in_order(given):
        if each.x != BAD:
            found.setdefault(-(-each.second // every), []).append(each)
    return [found[at] for at in sorted(found)]


@given(st.data(), streams(), st.sampled_from((1, 3, 7, 100)))
def test_each_row(data: st.DataObject, given: list[Given], every: int) -> None:
    out, dead = drive(
        made(keyed().stateful_batches(running, state=START, every=f"{every}s", gives=Running)), given, data
    )
    states: dict[str | None, tuple[int, int]] = {}
    expected = []
    for each in (row for span in spans(given, every) for row in span):
        n, total = states.get(each.who, (0, 0))
        states[each.who] = n, total = n + 1, total + (each.x or 0)
        expected.append(({"who": each.who, "n": n, "total": total, "at": moment(each.second)}, each.offset))
    assert out == expected
    assert sorted(letter.offset for letter in dead) == [
        each.offset for each in given if each.x == BAD and each.who is not None
    ]


@given(st.data(), streams(), st.sampled_from((1, 3, 7, 100)))
def test_each_key(data: st.DataObject, given: list[Given], every: int) -> None:
    good = [each for each in given if each.x != BAD]
    out, dead = drive(made(keyed().stateful_batches(summed, state=START, every=f"{every}s", gives=Running)), good, data)
    states: dict[str | None, tuple[int, int]] = {}
    expected = []
    for span in spans(good, every):
        for who in dict.fromkeys(each.who for each in span):
            its = [each for each in span if each.who == who]
            n, total = states.get(who, (0, 0))
            states[who] = n, total = n + len(its), total + sum(each.x or 0 for each in its)
            row = {"who": who, "n": n, "total": total, "at": moment(its[-1].second)}
            expected.append((row, its[-1].offset))
    assert out == expected
    assert not dead


def wrong(given: Any) -> str:
    """What the letter says of a function that gives this for a row."""
    step = made(keyed().stateful_batches(lambda state, frame: given(state, frame), state=START, gives=Running))()
    step.take(rows([Given(1, "a", 1, 0)]))
    (letter,) = step.advance(2**60).dead
    return letter.detail


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda state, frame: frame, "gave DataFrame, expected a pair"),
        (lambda state, frame: (None, frame), "gave a NoneType as state"),
        (lambda state, frame: (state.drop(columns="n"), frame), "a state without column 'n'"),
        (lambda state, frame: (state.iloc[:0], frame), "lacks keys or has them twice"),
        (lambda state, frame: (state.assign(n=None), frame), "a missing value in column 'n'"),
        (lambda state, frame: (state, [1]), "gave a list, expected a frame or None"),
        (lambda state, frame: (state, frame.set_index("x")), "whose index is 'x'"),
        (lambda state, frame: (state, frame.set_axis([5])), "labels in its index that none of its rows has"),
        (lambda state, frame: (state, frame[["who"]]), "does not fit Running: field 'n'"),
    ],
)
def test_what_a_function_must_give(given: Any, told: str) -> None:
    assert told in wrong(given)


def test_definitions_that_cannot_be() -> None:
    for state in ({}, {"n": None}, {"n": []}, 3):
        with pytest.raises(DefinitionError, match="state"):
            keyed().stateful_batches(running, state=state)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="every='0s' holds no row"):
        keyed().stateful_batches(running, state=START, every="0s")


def test_a_flow_stops_and_another_state_is_refused() -> None:
    stopping = made(keyed().stateful_batches(running, state=START, gives=Running, on_error="stop"))()
    stopping.take(rows([Given(1, "a", 1, 0), Given(1, "b", BAD, 1)]))
    with pytest.raises(StepError, match="ValueError: bad"):
        stopping.advance(2**60)
    other = made(keyed().stateful_batches(running, state={**START, "more": ""}, gives=Running))()
    with pytest.raises(SnapshotError, match="is not the one whose state"):
        other.load(stopping.save())


def test_in_a_flow_with_other_steps_and_restarts() -> None:
    flow = Flow("sums")
    read = flow.read(IterableSource([], Reading, name="readings", lateness="2s")).filter(lambda row: row.x is not None)
    sums = read.key_by("who").stateful_batches(running, state=START, every="5s", gives=Running, name="sums")
    sums.key_by("who").stateful(lambda last, row: (row.n, row), name="again")
    with replay_flow(flow) as t:
        for second in (1, 4, 3, 9, 8, 12):
            t.send([{"who": "ab"[second % 2], "x": second, "at": moment(second)}])
            t.restart()
        assert [row["total"] for row in t.rows("again")] == [1, 4, 4]
        t.end()
        assert [(row["who"], row["n"], row["total"]) for row in t.rows("again")] == [
            ("b", 1, 1), ("b", 2, 4), ("a", 1, 4), ("a", 2, 12), ("b", 3, 13), ("a", 3, 24),
        ]  # fmt: skip
