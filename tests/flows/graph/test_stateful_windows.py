"""Frames and folds per key against plain Python over the sorted events."""

from collections import defaultdict
from datetime import datetime
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flows.graph.driving import (
    FAR_US,
    READING,
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

from headrace.features import Event, EventTime, Hopping, LastN, Session, Sliding, Tumbling
from headrace.features.errors import DefinitionError
from headrace.flows.graph.framing import frames_of
from headrace.flows.graph.rows import StepError
from headrace.flows.snapshot import SnapshotError


class Total(Event):
    who: str
    total: int
    at: EventTime


class Span(Event):
    who: str
    seen: str
    window_start: datetime
    window_end: datetime
    at: EventTime


def summed(frame: pd.DataFrame) -> dict[str, Any]:
    return {"who": frame["who"].iloc[-1], "total": int(frame["x"].fillna(0).sum()) * 100 + len(frame)}


@given(streams(), st.integers(1, 20), st.data())
def test_frames_hold_the_last_span(arrived: list[Given], over: int, data: st.DataObject) -> None:
    out, dead = drive(made(keyed().stateful_frame(summed, over=f"{over}s", gives=Total)), arrived, data)
    ordered = in_order(arrived)
    expected = []
    for i, each in enumerate(ordered):
        kept = [e.x or 0 for e in ordered[: i + 1] if e.who == each.who and e.second > each.second - over]
        row = {"who": each.who, "total": sum(kept) * 100 + len(kept), "at": moment(each.second)}
        expected.append((row, each.offset))
    assert out == expected
    assert not dead


def test_a_frame_comes_as_the_function_wants_it() -> None:
    given = [("a", 1, moment(1)), (None, None, moment(2))]
    assert frames_of(READING, "arrow")(given).to_pylist() == [
        {"who": "a", "x": 1, "at": moment(1)},
        {"who": None, "x": None, "at": moment(2)},
    ]
    assert frames_of(READING, "polars")(given).rows() == given
    assert frames_of(READING, "pandas")(given)["x"].isna().tolist() == [False, True]
    assert frames_of(READING, "numpy")(given)["who"].tolist() == ["a", None]


def spelled(kept: str, event: Any) -> str:
    return f"{kept},{event.x}"


def seen(kept: str) -> dict[str, Any] | None:
    return None if kept.endswith(",3") else {"seen": kept}


def folded(window: Any) -> Any:
    return made(keyed().fold(spelled, window, initial=str, finish=seen, gives=Span))


def span(held: list[Given], start: int, end: int, at: int) -> dict[str, Any]:
    text = "".join(f",{each.x}" for each in held)
    return {
        "who": held[0].who,
        "seen": text,
        "window_start": moment(start),
        "window_end": moment(end),
        "at": moment(at),
    }


def windows(arrived: list[Given], width: int, hop: int) -> list[tuple[list[Given], int]]:
    """What each key's windows hold, with the window's end; by end, then by the first event of the key."""
    ordered = in_order(arrived)
    shift = START_US // SECOND  # windows count from the epoch
    found = []
    for end in range(-(-shift // hop) * hop - shift, 100, hop):
        inside = [each for each in ordered if end - width < each.second <= end]
        for who in dict.fromkeys(each.who for each in inside):
            found.append(([each for each in inside if each.who == who], end))
    return found


@given(streams(), st.integers(1, 5), st.integers(1, 4), st.data())
def test_windows_fold_when_they_close(arrived: list[Given], hop: int, several: int, data: st.DataObject) -> None:
    width = hop * several
    out, dead = drive(folded(Hopping(f"{width}s", hop=f"{hop}s")), arrived, data)
    assert out == [
        (span(held, end - width, end, end), held[-1].offset)
        for held, end in windows(arrived, width, hop)
        if held[-1].x != 3
    ]
    assert not dead


def larger(one: Any, other: Any) -> Any:
    return {"who": one.who, "x": max(one.x or 0, other.x or 0)}


@given(streams(), st.integers(1, 8), st.data())
def test_windows_reduce_rows_to_one(arrived: list[Given], width: int, data: st.DataObject) -> None:
    out, dead = drive(made(keyed().reduce(larger, Tumbling(f"{width}s"))), arrived, data)
    expected = []
    for held, end in windows(arrived, width, width):
        x = held[0].x if len(held) == 1 else max(each.x or 0 for each in held)
        expected.append(({"who": held[0].who, "x": x, "at": moment(end)}, held[-1].offset))
    assert out == expected
    assert not dead


@given(streams(), st.integers(1, 8), st.data())
def test_sessions_fold_when_they_close(arrived: list[Given], gap: int, data: st.DataObject) -> None:
    out, dead = drive(folded(Session(f"{gap}s")), arrived, data)
    sessions: dict[Any, list[list[Given]]] = defaultdict(list)
    for each in in_order(arrived):
        if sessions[each.who] and each.second - sessions[each.who][-1][-1].second < gap:
            sessions[each.who][-1].append(each)
        else:
            sessions[each.who].append([each])
    ended = [held for several in sessions.values() for held in several if held[-1].x != 3]
    ended.sort(key=lambda held: (held[-1].second, held[-1].offset))
    assert out == [
        (span(held, held[0].second, held[-1].second, held[-1].second + gap), held[-1].offset) for held in ended
    ]
    assert not dead


def failing(state: int, event: Any) -> Any:
    if event.x == 2:
        raise KeyError("no two")
    return state + 1


def counted(state: int) -> Any:
    return {"total": "many"} if state == 2 else "a word" if state == 3 else {"total": state}


def test_what_a_function_cannot_do_is_a_dead_letter() -> None:
    stream = keyed().fold(failing, Tumbling("10s"), initial=int, finish=counted, gives=Total)
    node = made(stream)()
    node.take(rows([Given(0, "a", 1, 0), Given(1, "a", 2, 1), Given(11, "a", 2, 2), Given(12, "b", 1, 3)]))
    node.take(rows([Given(13, "b", 1, 4)]))
    node.take(rows([Given(second, "c", 1, second) for second in (21, 22, 23)]))
    result = node.advance(FAR_US)
    assert result.batch.values("total").tolist() == [1]
    said = [(letter.reason, letter.offset, letter.detail) for letter in result.dead]
    assert [(reason, offset) for reason, offset, _ in said] == [
        ("failed", 1),
        ("failed", 2),
        ("failed", 23),
        ("failed", 4),
    ]
    details = [detail for _, _, detail in said]
    assert details[0] == "step 'failing' (function failing): KeyError: 'no two'"
    assert "expected a dict or a Total" in details[2]
    assert "what it gave does not fit Total" in details[3]
    assert result.dead[0].payload.startswith('{"who": "a", "x": 2')


def test_a_step_may_stop_the_flow_instead() -> None:
    stream = keyed().fold(failing, Tumbling("10s"), initial=int, finish=counted, gives=Total, on_error="stop")
    node = made(stream)()
    node.take(rows([Given(1, "a", 2, 0)]))
    with pytest.raises(StepError, match=r"step 'failing' \(function failing\) could not take an event: KeyError"):
        node.advance(FAR_US)


def test_a_window_whose_row_cannot_be_made_stops_the_flow() -> None:
    stream = keyed().fold(spelled, Tumbling("10s"), initial=str, finish=lambda kept: 1 / 0, gives=Total)
    node = made(stream)()
    node.take(rows([Given(1, "a", 2, 0)]))
    with pytest.raises(StepError, match=r"failed as time passed .* ZeroDivisionError"):
        node.advance(FAR_US)


def test_a_row_may_only_move_on_in_time() -> None:
    def back(frame: Any) -> Any:
        return [{"who": "a", "total": move, "at": moment(5 + move)} for move in (-1, 0, 1)]

    node = made(keyed().stateful_frame(back, over="1s", as_="arrow", gives=Total))()
    node.take(rows([Given(5, "a", 1, 0)]))
    result = node.advance(FAR_US)
    assert result.batch.values("total").tolist() == [0, 1]
    assert [letter.detail for letter in result.dead if "may only move an event on in time" in letter.detail]


def test_state_of_another_definition_or_damaged_is_refused() -> None:
    saved = folded(Tumbling("10s"))().save()
    with pytest.raises(SnapshotError, match="have changed"):
        folded(Tumbling("11s"))().load(saved)
    folded(Tumbling("11s"))().load(saved, start=True)
    with pytest.raises(SnapshotError, match="checksum"):
        folded(Tumbling("10s"))().load(saved[:-1] + bytes([saved[-1] ^ 1]))


def test_an_event_after_its_windows_closed_is_late() -> None:
    node = folded(Hopping("4s", hop="2s"))()
    node.take(rows([Given(1, "a", 1, 0), Given(9, "a", 2, 1)]))
    early = rows([Given(1, "a", 5, 2), Given(7, "a", 6, 3)])
    node.take(early.counting_from(early.time * 0 + START_US + 10 * SECOND))
    result = node.advance(FAR_US)
    assert [(letter.reason, letter.offset) for letter in result.dead] == [("late", 2)]
    assert result.batch.values("seen").tolist() == [",1", ",1", ",2,6", ",2"]


def test_what_comes_behind_the_end_of_a_source_is_told() -> None:
    node = folded(Tumbling("4s"))()
    node.take(rows([Given(4, "a", 1, 0)]))
    assert len(node.advance(START_US + 4 * SECOND, ended=True).batch) == 1
    letters = node.take(rows([Given(4, "a", 1, 1), Given(5, None, 1, 2), Given(5, "a", 1, 3)]))
    assert [(letter.reason, letter.offset) for letter in letters] == [("behind settled log", 1), ("failed", 2)]


def test_memory_of_what_is_over_goes() -> None:
    steps = [folded(Hopping("4s", hop="2s")), folded(Session("5s")), folded(Tumbling("3s"))]
    steps.append(made(keyed().stateful_frame(lambda frame: None, over="5s", as_="arrow", gives=Total)))
    for make in steps:
        node, empty = make(), len(make().save())
        node.take(rows([Given(second, f"key {second}", 1, second) for second in range(200)]))
        waiting = len(node.save())
        node.advance(START_US + 200 * SECOND)
        assert len(node.save()) - empty < (waiting - empty) / 2
        node.advance(FAR_US)
        assert len(node.save()) <= empty + 32


def test_windows_that_never_close_are_refused() -> None:
    for window in (Sliding("1h"), LastN(3), Tumbling("1h", current=True), Tumbling("1h", ending="1d")):
        with pytest.raises(DefinitionError, match=r"expected one that closes|neither ending= nor current="):
            keyed().reduce(larger, window)
    with pytest.raises(DefinitionError, match="initial must be a function, got 0"):
        keyed().fold(failing, Tumbling("1h"), initial=0, finish=counted)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="over='0s' holds no row"):
        keyed().stateful_frame(summed, over="0s")
