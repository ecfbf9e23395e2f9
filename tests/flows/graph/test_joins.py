"""Joins against plain Python over the sorted events of both sides."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flows.graph.driving import (
    FAR_US,
    SECOND,
    START_US,
    Given,
    drive,
    in_order,
    keyed,
    made,
    moment,
    rows,
    streams,
)

from headrace.features import Event, EventTime
from headrace.features.errors import DefinitionError
from headrace.features.keyed_stream import KeyedStream


class Pair(Event):
    who: str
    left: str
    right: str
    at: EventTime


def pair(left: Any, right: Any) -> dict[str, Any]:
    other = "none" if right is None else f"{right.x} {right.at}"
    return {"who": left.who, "left": f"{left.x} {left.at}", "right": other}


def by_hand(left: Given, right: Given | None, at: int) -> dict[str, Any]:
    other = "none" if right is None else f"{right.x} {moment(right.second)}"
    return {"who": left.who, "left": f"{left.x} {moment(left.second)}", "right": other, "at": moment(at)}


def sides() -> tuple[KeyedStream, KeyedStream]:
    stream = keyed().stream
    left, right = stream.branch(lambda row: row.x)
    return left.key_by("who"), right.key_by("who")


def joined(**how: Any) -> Any:
    left, right = sides()
    return made(left.join(right, pair, gives=Pair, **how))


def looked_up(**how: Any) -> Any:
    left, right = sides()
    return made(left.lookup(right, pair, gives=Pair, **how))


@given(streams(2), st.integers(0, 10), st.sampled_from(["inner", "left"]), st.data())
def test_pairs_within_a_span(arrived: list[Given], within: int, how: str, data: st.DataObject) -> None:
    out, dead = drive(joined(within=f"{within}s", how=how), arrived, data)
    ordered = in_order(arrived)
    expected = []
    for left in (each for each in ordered if each.side == 0):
        near = [e for e in ordered if e.side == 1 and e.who == left.who and abs(e.second - left.second) <= within]
        for right in near:
            later = right if right.second > left.second else left  # of one instant the right side comes first
            expected.append((by_hand(left, right, later.second), later.offset))
        if how == "left" and not near:
            expected.append((by_hand(left, None, left.second + within), left.offset))
    assert sorted(out, key=repr) == sorted(expected, key=repr)
    assert [row["at"] for row, _ in out] == sorted(row["at"] for row, _ in out)
    assert not dead


@given(streams(2), st.integers(0, 10), st.data(), st.data())
def test_pairs_come_in_one_order(arrived: list[Given], within: int, one: st.DataObject, other: st.DataObject) -> None:
    make = joined(within=f"{within}s", how="left")
    assert drive(make, arrived, one) == drive(make, arrived, other)


@given(streams(2), st.none() | st.integers(1, 10), st.sampled_from(["inner", "left"]), st.data())
def test_rows_of_a_table_as_of_the_event(
    arrived: list[Given], valid: int | None, how: str, data: st.DataObject
) -> None:
    out, dead = drive(looked_up(valid_for=None if valid is None else f"{valid}s", how=how), arrived, data)
    ordered = in_order(arrived)
    expected = []
    for left in (each for each in ordered if each.side == 0):
        older = [e for e in ordered if e.side == 1 and e.who == left.who and e.second <= left.second]
        row = older[-1] if older and (valid is None or left.second - older[-1].second < valid) else None
        if row is not None or how == "left":
            expected.append((by_hand(left, row, left.second), left.offset))
    assert out == expected
    assert not dead


def test_memory_is_bounded_by_the_span() -> None:
    for make in (joined(within="5s"), looked_up(valid_for="5s")):
        node, empty = make(), len(make().save())
        node.take(rows([Given(second, f"key {second}", 1, second) for second in range(200)]), 1)
        waiting = len(node.save())
        node.advance(START_US + 200 * SECOND)
        assert len(node.save()) - empty < (waiting - empty) / 2
        node.advance(FAR_US)
        assert len(node.save()) <= empty + 32


def test_joins_that_cannot_be_are_refused() -> None:
    left, right = sides()
    with pytest.raises(DefinitionError, match="is of another flow, expected one of 'sums'"):
        left.join(keyed(), pair, within="5s", gives=Pair)
    with pytest.raises(DefinitionError, match="takes a keyed stream"):
        left.lookup(right.stream, pair, gives=Pair)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"'who' \(string\) and 'x' \(int64\) are of two types"):
        left.join(right.stream.key_by("x"), pair, within="5s", gives=Pair)
    with pytest.raises(DefinitionError, match="how='outer' is unknown"):
        left.join(right, pair, within="5s", how="outer", gives=Pair)
    with pytest.raises(DefinitionError, match="valid_for='0s' holds no row"):
        left.lookup(right, pair, valid_for="0s", gives=Pair)
