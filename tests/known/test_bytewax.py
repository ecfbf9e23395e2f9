"""Bytewax's operators and the programs of its guides beside ours: the same events, the same results.

Where the two differ by design it is said and mapped here, in sight:

- windows: bytewax's are [a, b), ours (a, b]; the events here stand on no bound.
- the end: bytewax closes every window where the source ends, ours stay open for the next run; those are left out.
- order: its `reduce_window` takes rows as they arrive, ours in event-time order; the function here does not mind.
- state: bytewax's comes to `stateful_map` in order of arrival, ours in event-time order; ordered events show no
  difference, and of unordered ones bytewax's windows (which wait, too) are compared.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.features import Event, EventTime, Flow, Hopping, IterableSource, KeyedStream, Session, Stream, Tumbling
from headrace.flows.runner import run

pytest.importorskip("bytewax", reason="bytewax has no wheel for this Python")

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

START = datetime(2026, 1, 1, tzinfo=UTC)
WAIT = timedelta(seconds=30)
Rows = list[dict[str, Any]]


class Reading(Event):
    who: str
    x: float
    at: EventTime


class Answer(Event):
    who: str
    value: float
    at: EventTime


class Word(Event):
    word: str
    seen: int
    at: EventTime


class Windowed(Event):
    who: str
    value: float
    window_start: datetime
    window_end: datetime
    at: EventTime


class Many(Event):
    who: str
    values: str
    window_end: datetime
    at: EventTime


def readings(count: int = 200, disorder_s: float = 0.0) -> Rows:
    """In the order in which they arrive, at most so much out of that of their times; on no bound of a window."""
    draw = random.Random(count)
    rows = []
    at = START
    for _ in range(count):
        at += timedelta(milliseconds=draw.choice([137, 411, 733, 6_001]))
        rows.append(
            {"who": draw.choice("abc"), "x": float(draw.randrange(1, 50)), "at": at + timedelta(microseconds=7)}
        )
    rows.sort(key=lambda row: row["at"] + timedelta(seconds=draw.uniform(0, disorder_s)))
    return rows


def theirs(build: Callable[[Any], Any], rows: Rows) -> list[Any]:
    """What a bytewax dataflow gives; `build` gets its input and returns the stream to be collected."""
    out: list[Any] = []
    flow = Dataflow("theirs")
    op.output("out", build(op.input("in", flow, TestingSource(rows))), TestingSink(out))
    run_main(flow)
    return out


def ours(build: Callable[[Stream], Stream], rows: Rows, folder: Path) -> Rows:
    flow = Flow("ours")
    source = IterableSource(rows, Reading, name="readings", lateness="30s")
    found = build(flow.read(source)).collect()
    run([flow], folder, batch_size=17)
    return found


def keyed(stream: Any) -> Any:
    return op.map("value", op.key_on("key", stream, lambda row: row["who"]), lambda pair: pair)


def by_who(stream: Stream) -> KeyedStream:
    return stream.key_by("who")


# Stateless operators: map, filter, flat_map, filter_map, branch, merge, inspect


def test_map_filter_and_flat_map(tmp_path: Path) -> None:
    rows = readings()

    def one(stream: Any) -> Any:
        large = op.filter("large", stream, lambda row: row["x"] > 10)
        half = op.map("half", large, lambda row: {**row, "x": row["x"] / 2})
        return op.flat_map("twice", half, lambda row: [row] if row["who"] == "a" else [row, row])

    found = ours(
        lambda stream: (
            stream.filter(Reading.x > 10)
            .map_rows(lambda row: {**vars(row), "x": row.x / 2})
            .flat_map(lambda row: [row] if row.who == "a" else [row, row])
        ),
        rows,
        tmp_path,
    )
    assert [tuple(row.values()) for row in found] == [tuple(row.values()) for row in theirs(one, rows)]


def test_branch_and_merge(tmp_path: Path) -> None:
    rows = readings()

    def one(stream: Any) -> Any:
        split = op.branch("split", stream, lambda row: row["x"] > 25)
        less = op.map("less", split.trues, lambda row: {**row, "x": row["x"] - 25})
        return op.merge("merge", less, split.falses)

    def two(stream: Stream) -> Stream:
        large, small = stream.branch(Reading.x > 25)
        return large.map_rows(lambda row: {**vars(row), "x": row.x - 25}).merge(small)

    found = Counter(tuple(row.values()) for row in ours(two, rows, tmp_path))
    assert found == Counter(tuple(row.values()) for row in theirs(one, rows))


def test_word_count(tmp_path: Path) -> None:
    """The first program of its guides: lines to words, and how often each came, told at the end."""
    lines = ["To be, or not to be", "that is the question", "to be is to do"]

    def words(line: str) -> list[str]:
        return [word.strip(",").lower() for word in line.split()]

    def one(stream: Any) -> Any:
        return op.count_final("count", op.flat_map("words", stream, words), lambda word: word)

    class Line(Event):
        text: str
        at: EventTime

    flow = Flow("words")
    rows = [{"text": text, "at": START + timedelta(seconds=n)} for n, text in enumerate(lines)]
    counts = (
        flow.read(IterableSource(rows, Line, name="lines"))
        .flat_map(lambda line: [{"word": word, "seen": 1} for word in words(line.text)], gives=Word)
        .key_by("word")
        .stateful(lambda n, row: ((n or 0) + 1, {"word": row.word, "seen": (n or 0) + 1}), gives=Word)
        .collect()
    )
    run([flow], tmp_path)
    assert {row["word"]: row["seen"] for row in counts} == dict(theirs(one, lines))  # type: ignore[arg-type]


# State: stateful_map, stateful_flat_map, an anomaly detector, an order book


def mean(state: Any, x: float) -> tuple[Any, float]:
    count, total = state or (0, 0.0)
    return (count + 1, total + x), (total + x) / (count + 1)


def z_score(state: Any, x: float) -> tuple[Any, float]:
    """As in its guide to anomalies: how far a value is from the last ten, in their standard deviations."""
    last = list(state or ())
    middle = sum(last) / len(last) if last else x
    spread = (sum((each - middle) ** 2 for each in last) / len(last)) ** 0.5 if last else 0.0
    return [*last, x][-10:], (x - middle) / spread if spread else 0.0


@pytest.mark.parametrize("function", [mean, z_score])
def test_stateful_map(function: Callable[[Any, float], tuple[Any, float]], tmp_path: Path) -> None:
    rows = readings()

    def one(stream: Any) -> Any:
        return op.stateful_map("state", op.map_value("x", keyed(stream), lambda row: row["x"]), function)

    def step(state: Any, row: Any) -> Any:
        kept, value = function(state, row.x)
        return kept, {"who": row.who, "value": value}

    found = ours(lambda stream: by_who(stream).stateful(step, gives=Answer), rows, tmp_path)
    assert [(row["who"], row["value"]) for row in found] == theirs(one, rows)


def test_stateful_flat_map(tmp_path: Path) -> None:
    """Rises: none, or the value and by how much it rose."""
    rows = readings()

    def rises(before: float | None, x: float) -> tuple[float, list[float]]:
        return x, [] if before is None or x <= before else [x, x - before]

    def one(stream: Any) -> Any:
        return op.stateful_flat_map("rise", op.map_value("x", keyed(stream), lambda row: row["x"]), rises)

    def step(state: Any, row: Any) -> Any:
        kept, values = rises(state, row.x)
        return kept, [{"who": row.who, "value": value} for value in values]

    found = ours(lambda stream: by_who(stream).stateful(step, gives=Answer), rows, tmp_path)
    assert [(row["who"], row["value"]) for row in found] == theirs(one, rows)


class Book:
    """The order book of its guide, in short: sizes by price, the best of both sides."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}

    def spread(self, x: float) -> float:
        side, price = (self.bids, 100 - x) if int(x) % 2 else (self.asks, 100 + x)
        if int(x) % 7:
            side[price] = x
        else:
            side.pop(price, None)
        return min(self.asks) - max(self.bids) if self.bids and self.asks else -1.0

    def on_event(self, row: Any) -> dict[str, Any]:
        return {"who": row.who, "value": self.spread(row.x)}


def test_an_order_book(tmp_path: Path) -> None:
    rows = readings()

    def told(book: Book | None, x: float) -> tuple[Book, float]:
        kept = book or Book()
        return kept, kept.spread(x)

    def one(stream: Any) -> Any:
        return op.stateful_map("book", op.map_value("x", keyed(stream), lambda row: row["x"]), told)

    found = ours(lambda stream: by_who(stream).stateful(Book, gives=Answer), rows, tmp_path)
    assert [(row["who"], row["value"]) for row in found] == theirs(one, rows)


# Windows: fold, count, reduce, max, min, collect over tumbling, sliding and session windows


def clock() -> Any:
    return win.EventClock(lambda row: row["at"], wait_for_system_duration=WAIT)


SECONDS = timedelta(seconds=1)
WINDOWS = {
    "tumbling": (win.TumblingWindower(length=10 * SECONDS, align_to=START), Tumbling("10s")),
    "sliding": (win.SlidingWindower(length=10 * SECONDS, offset=5 * SECONDS, align_to=START), Hopping("10s", hop="5s")),
    "session": (win.SessionWindower(gap=5 * SECONDS), Session("5s")),
}


def closed(found: Any, rows: Rows, *, session: bool) -> Counter[Any]:
    """Their windows with value and bounds, but for those that were open when the source ended.

    found: (key, ("E", (window, value))) of the values and (key, ("M", (window, bounds))) of what is known of windows.
    """
    newest = max(row["at"] for row in rows)
    values: dict[Any, Any] = {}
    bounds: dict[Any, Any] = {}
    for key, (kind, (window, told)) in found:
        (values if kind == "E" else bounds)[key, window] = told
    made: Counter[Any] = Counter()
    for (key, window), value in values.items():
        its = bounds[key, window]
        end = its.close_time + 5 * SECONDS if session else its.close_time
        if end <= newest:
            made[key, value, its.open_time, its.close_time] += 1
    return made


def windowed(build: Callable[[Any, Any], Any], windower: Any, rows: Rows, *, session: bool) -> Counter[Any]:
    def one(stream: Any) -> Any:
        out = build(stream, windower)
        down = op.map_value("E", out.down, lambda each: ("E", each))
        meta = op.map_value("M", out.meta, lambda each: ("M", each))
        return op.merge("both", down, meta)

    return closed(theirs(one, rows), rows, session=session)


@pytest.mark.parametrize("disorder_s", [0.0, 20.0])
@pytest.mark.parametrize("kind", WINDOWS)
def test_fold_window(kind: str, disorder_s: float, tmp_path: Path) -> None:
    rows = readings(disorder_s=disorder_s)
    windower, window = WINDOWS[kind]

    def sums(stream: Any, windower: Any) -> Any:
        return win.fold_window("sum", keyed(stream), clock(), windower, float, lambda total, row: total + row["x"],
                               lambda one, two: one + two)  # fmt: skip

    found = ours(
        lambda stream: by_who(stream).fold(
            lambda total, row: total + row.x, window, initial=float, finish=lambda total: {"value": total},
            gives=Windowed,
        ),
        rows, tmp_path,
    )  # fmt: skip
    mine = Counter((row["who"], row["value"], row["window_start"], row["window_end"]) for row in found)
    expected = windowed(sums, windower, rows, session=kind == "session")
    assert mine == expected
    assert sum(mine.values()) > 10


@pytest.mark.parametrize("operator", ["count", "max", "min", "reduce"])
def test_other_operators_over_windows(operator: str, tmp_path: Path) -> None:
    rows = readings(disorder_s=10.0)

    def one(stream: Any, windower: Any) -> Any:
        if operator == "count":
            return win.count_window("n", stream, clock(), windower, lambda row: row["who"])
        if operator == "reduce":
            return win.reduce_window("r", keyed(stream), clock(), windower,
                                     lambda one, two: {**one, "x": one["x"] + two["x"]})  # fmt: skip
        of = win.max_window if operator == "max" else win.min_window
        return of("m", keyed(stream), clock(), windower, by=lambda row: row["x"])

    functions: dict[str, Callable[[float, float], float]] = {
        "count": lambda one, _: one + 1, "max": max, "min": min, "reduce": lambda one, two: one + two,
    }  # fmt: skip
    fold = functions[operator]

    def step(state: float | None, row: Any) -> float:
        first = 0.0 if operator == "count" else None
        before = first if state is None else state
        return row.x if before is None else fold(before, row.x)

    found = ours(
        lambda stream: by_who(stream).fold(
            step, Tumbling("10s"), initial=lambda: None, finish=lambda value: {"value": value}, gives=Windowed
        ),
        rows,
        tmp_path,
    )
    their = windowed(one, WINDOWS["tumbling"][0], rows, session=False) if operator == "count" else None
    if their is None:  # rows: their values
        plain = theirs(lambda stream: one(stream, WINDOWS["tumbling"][0]).down, rows)
        newest = max(row["at"] for row in rows)
        ends = {(key, window): START + (window + 1) * 10 * SECONDS for key, (window, _) in plain}
        expected = Counter((key, row["x"], ends[key, w]) for key, (w, row) in plain if ends[key, w] <= newest)
        assert Counter((row["who"], row["value"], row["window_end"]) for row in found) == expected
        return
    assert Counter((r["who"], r["value"], r["window_start"], r["window_end"]) for r in found) == their


def test_collect_window(tmp_path: Path) -> None:
    rows = readings(disorder_s=10.0)

    def one(stream: Any, windower: Any) -> Any:
        out = win.collect_window("all", keyed(stream), clock(), windower)
        return out

    plain = theirs(lambda stream: one(stream, WINDOWS["tumbling"][0]).down, rows)
    newest = max(row["at"] for row in rows)
    expected = Counter(
        (key, " ".join(str(row["x"]) for row in its), START + (window + 1) * 10 * SECONDS)
        for key, (window, its) in plain
        if START + (window + 1) * 10 * SECONDS <= newest
    )
    found = ours(
        lambda stream: by_who(stream).fold(
            lambda all_, row: [*all_, row.x], Tumbling("10s"), initial=list,
            finish=lambda all_: {"values": " ".join(map(str, all_))}, gives=Many,
        ),
        rows, tmp_path,
    )  # fmt: skip
    assert Counter((row["who"], row["values"], row["window_end"]) for row in found) == expected


# Two streams


def test_join(tmp_path: Path) -> None:
    """Users, and their addresses, by their number: each pair once both are known."""
    users = [{"who": f"u{n}", "x": float(n), "at": START + timedelta(seconds=n)} for n in range(20)]
    mails = [{"who": f"u{n * 3 % 25}", "x": float(n), "at": START + timedelta(seconds=n + 2)} for n in range(20)]
    out: list[Any] = []
    flow = Dataflow("theirs")
    sides = [
        op.map_value(f"x{n}", op.key_on(f"k{n}", op.input(f"in{n}", flow, TestingSource(rows)), lambda row: row["who"]),
                     lambda row: row["x"])
        for n, rows in enumerate((users, mails))
    ]  # fmt: skip
    op.output("out", op.join("join", *sides), TestingSink(out))
    run_main(flow)

    mine = Flow("ours")
    one = mine.read(IterableSource(users, Reading, name="users"))
    two = mine.read(IterableSource(mails, Reading, name="mails"))
    pairs = (
        one.key_by("who")
        .join(two.key_by("who"), lambda a, b: {"who": a.who, "value": a.x * 1000 + b.x}, within="1h", gives=Answer)
        .collect()
    )
    run([mine], tmp_path)
    assert Counter((row["who"], row["value"]) for row in pairs) == Counter((who, a * 1000 + b) for who, (a, b) in out)
    assert out
