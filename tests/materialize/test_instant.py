"""Windows at one instant, in DuckDB, are what re-reading every event gives, and what a flow's rows say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.closeness import agrees, close
from tests.oracle.described import COLUMNS, Clock, Feature, Sent, View, Window, happened
from tests.oracle.exact import aggregate
from tests.oracle.naive import Oracle
from tests.oracle.replayed import Replayed
from tests.oracle.strategies import MINUTE, UNITS, questions, scripts

from headrace.features.errors import DefinitionError
from headrace.materialize.instant import Aggregation, Question, answer, canonical

NAMES = {"distinct": "count_distinct"}
TAKES: dict[str, tuple[str | None, ...]] = {
    "count": (None,),
    "sum": ("amount", "units", "paid"),
    "mean": ("amount", "units", "paid"),
    "min": ("amount", "units", "city"),
    "max": ("amount", "units", "city"),
    "var": ("amount", "units", "paid"),
    "std": ("amount", "units", "paid"),
    "distinct": ("amount", "units", "city", "paid"),
    "first": ("amount", "units", "city", "paid"),
    "last": ("amount", "units", "city", "paid"),
}
ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


@cache
def connection() -> duckdb.DuckDBPyConnection:
    found = duckdb.connect()
    found.execute("SET TimeZone = 'UTC'")
    found.execute("SET threads = 2")
    return found


def table_of(events: Sequence[Sent], unit: str = "us", zone: str | None = "UTC") -> pa.Table:
    columns = {name: pa.array([e.columns[name] for e in events], ARROW[dtype]) for name, dtype in COLUMNS.items()}
    columns["partition"] = pa.array([e.partition for e in events], pa.int64())
    columns["offset"] = pa.array([e.offset for e in events], pa.int64())
    columns["at"] = (
        pa.array([e.time for e in events], pa.int64()).cast(pa.timestamp("us", zone)).cast(pa.timestamp(unit, zone))
    )
    return pa.table(columns)


def aggregation_of(feature: Feature) -> Aggregation:
    window = feature.window
    width = None if window.kind == "lifetime" else window.width
    return Aggregation(feature.name, NAMES.get(feature.kind, feature.kind), feature.column, width, window.hop)


def asked(
    events: pa.Table, features: Sequence[Feature], at: int, start: int, keys: tuple[str, ...] = ("who",)
) -> pa.Table:
    connection().register("events", events)
    all_of_them = tuple(map(aggregation_of, features))
    question = Question("View 'v'", "events", keys, "at", all_of_them, at, start, order=("partition", "offset"))
    answers = answer(connection(), question)
    batches = list(answers.batches)
    found = pa.Table.from_batches(batches) if batches else None
    assert answers.rows == (0 if found is None else found.num_rows)
    return found if found is not None else pa.table({name: [] for name in (*keys, "at")})


@st.composite
def features(draw: st.DrawFn, name: str, unit: int) -> Feature:
    kind = draw(st.sampled_from(tuple(TAKES)))
    hop = draw(st.sampled_from((1, 1, 2, 3))) * draw(st.sampled_from((1, unit)))
    window = Window("sliding", draw(st.sampled_from((1, 2, 3, 5, 8))) * max(hop, unit) // hop * hop, hop)
    return Feature(name, kind, window, draw(st.sampled_from(TAKES[kind])))


@given(st.data())
def test_every_entity_has_the_values_of_its_windows_at_the_instant(data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(UNITS))
    view = View(tuple(data.draw(features(f"f{i}", unit)) for i in range(data.draw(st.integers(1, 5)))))
    keys = data.draw(st.sampled_from((("who",), ("who", "where_from"))))
    view = replace(view, keys=keys)
    events = [step for step in data.draw(scripts(unit, view.stream, clocks=False)) if isinstance(step, Sent)]
    oracle = Oracle(replace(view, stream=replace(view.stream, lateness=2**60)), events)
    unit_of_time = data.draw(st.sampled_from(("us", "ns")))
    table = table_of(data.draw(st.permutations(events)), unit_of_time, data.draw(st.sampled_from(("UTC", None))))
    start, at = data.draw(questions(unit, list(events))), None
    start, at = start[0], start[-1]
    found = {tuple(row[k] for k in keys): row for row in asked(table, oracle.features, at, start, keys).to_pylist()}
    for key in oracle.entities:
        contents = {f.name: oracle.content(f, key, at) for f in oracle.features}
        held = any(oracle.content(f, key, t) for f in oracle.features for t in (start, at))
        assert key in found or not held, f"{key} had an event in a window at {start} or {at}"
        if key not in found:
            continue
        row = found[key]
        assert round(row["at"].timestamp() * 1e6) == at or row["at"].year < 1971
        for f in oracle.features:
            expected = aggregate(f, contents[f.name], at)
            assert agrees(f, row[f.name], expected, contents[f.name], at), (f, row[f.name], expected, contents[f.name])
    assert set(found) <= set(oracle.entities)


@given(st.data())
def test_a_flow_asked_at_the_instant_says_the_same(data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(UNITS))
    view = View(tuple(data.draw(features(f"f{i}", unit)) for i in range(data.draw(st.integers(1, 5)))))
    events = [step for step in data.draw(scripts(unit, view.stream, most=12, clocks=False)) if isinstance(step, Sent)]
    if not events:
        return
    at = max(data.draw(questions(unit, list(events)))[-1], *(event.time for event in events))
    oracle = Oracle(view, events)
    taken = [each.event for each in oracle.judged.taken]
    with Replayed(view) as replayed:
        replayed.take([*events, Clock(at)])
        flow = {key: replayed.read(key, at).values for key in oracle.entities}
    found = {(row["who"],): row for row in asked(table_of(taken), oracle.features, at, -(2**50)).to_pylist()}
    assert set(found) == set(flow)
    for key, values in flow.items():
        for f in oracle.features:
            assert agrees(f, found[key][f.name], values[f.name], oracle.content(f, key, at), at), (f, values[f.name])


def hour(name: str, function: str, column: str | None = "amount") -> Aggregation:
    return Aggregation(name, function, column, 60 * MINUTE, MINUTE)


def known(events: Sequence[Sent], minute: int, since: int = 0) -> list[dict[str, Any]]:
    connection().register("events", table_of(events))
    functions = ("sum", "count", "mean", "max", "min", "std")
    of_the_hour = tuple(hour(each, each) for each in functions)
    return rows(Question("View 'v'", "events", ("who",), "at", of_the_hour, minute * MINUTE, since * MINUTE))


def rows(question: Question, on: duckdb.DuckDBPyConnection | None = None) -> list[dict[str, Any]]:
    found = [row for batch in answer(on or connection(), question).batches for row in batch.to_pylist()]
    return [{name: value for name, value in row.items() if name != "at"} for row in found]


def test_a_burst_after_a_quiet_time_knows_nothing_of_what_came_before() -> None:
    """
    minute  1                                          181 182 183   185
            100                                          1   2   3     ?
                                 last hour: (125 .................., 185]
    """
    amounts = {1: 100.0, 181: 1.0, 182: 2.0, 183: 3.0}
    events = [happened(minute * MINUTE, offset=i, amount=x) for i, (minute, x) in enumerate(amounts.items())]
    assert known(events, 185) == [{"who": "a", "sum": 6.0, "count": 3, "mean": 2.0, "max": 3.0, "min": 1.0, "std": 1.0}]


def test_a_late_event_enters_its_own_time_and_not_the_present() -> None:
    amounts = {0: 10.0, 120: 1.0, 5: 100.0}
    events = [happened(minute * MINUTE, offset=i, amount=x) for i, (minute, x) in enumerate(amounts.items())]
    assert known(events, 120)[0]["sum"] == 1.0


def test_a_window_that_has_emptied_since_the_last_run_says_so_and_one_that_had_before_says_nothing() -> None:
    """
    minute  0            60 61
            5             |  ?      the last run was at minute 59, at minute 61
    """
    empty = {"who": "a", "sum": 0.0, "count": 0, "mean": None, "max": None, "min": None, "std": None}
    events = [happened(0, amount=5.0)]
    assert known(events, 61, since=59) == [empty]
    assert known(events, 61, since=61) == []


def test_the_range_counts_where_there_is_no_window() -> None:
    """(start, end], as its own window: the event at the start belongs to the run before."""
    events = [happened(minute, offset=minute, amount=float(minute)) for minute in (1, 2, 3, 4)]
    connection().register("events", table_of(events))
    total = (Aggregation("total", "sum", "amount"), Aggregation("n", "count", None))
    assert rows(Question("View 'v'", "events", ("who",), "at", total, 3, 1)) == [{"who": "a", "total": 5.0, "n": 2}]
    assert rows(Question("View 'v'", "events", ("who",), "at", total, 9, 5)) == []


def test_instants_finer_than_microseconds_are_cut_off() -> None:
    """1.9 microseconds are 1: outside (1, 3], while 3.9 are inside it."""
    table = pa.table({"at": pa.array([1_900, 2_000, 3_900, 4_000], pa.timestamp("ns")), "who": ["a"] * 4})
    connection().register("events", table)
    n = (Aggregation("n", "count", None, 2, 1),)
    assert rows(Question("View 'v'", "events", ("who",), "at", n, 3, 3)) == [{"who": "a", "n": 2}]


def test_first_and_last_of_one_instant_depend_on_the_events_alone() -> None:
    events = [happened(1, offset=o, amount=x) for o, x in ((0, 2.0), (1, 3.0), (2, 1.0))]
    ends = (Aggregation("first", "first", "amount"), Aggregation("last", "last", "amount"))
    for some in (events, events[::-1], [events[1], events[0], events[2]]):
        connection().register("events", table_of(some))
        question = Question("View 'v'", "events", ("who",), "at", ends, 1, 0)
        assert rows(question) == [{"who": "a", "first": 1.0, "last": 3.0}]
        assert rows(replace(question, order=("offset",))) == [{"who": "a", "first": 2.0, "last": 1.0}]


def test_rows_of_no_entity_and_a_view_of_none() -> None:
    table = pa.table({"at": pa.array([1, 1, 1], pa.timestamp("us")), "who": ["a", None, "a"]})
    connection().register("events", table)
    n = (Aggregation("n", "count", None),)
    assert rows(Question("View 'v'", "events", ("who",), "at", n, 1, 0)) == [{"who": "a", "n": 2}]
    assert rows(Question("View 'v'", "events", (), "at", n, 1, 0)) == [{"n": 3}]
    assert rows(Question("View 'v'", "events", (), "at", n, 5, 4)) == []


TYPES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "u64": (pa.uint64(), [2**63, 1]),
    "i32": (pa.int32(), [2, 3]),
    "price": (pa.decimal128(10, 2), [Decimal("1.10"), Decimal("2.20")]),
    "f32": (pa.float32(), [0.5, None]),
}


CANCELLING: dict[str, list[float]] = {
    "one small beside two large": [1e16, 1.0, -1e16],
    "all gone": [0.1, -0.1],
    "near a large level": [1e9 + 0.25, 1e9, 1e9 + 0.5, 1e9 + 0.125],
    "neighbours": [1e16, 1e16 + 2],
    "one value": [0.1] * 7,
    "infinite": [1.0, math.inf],
    "infinite both ways": [math.inf, -math.inf, 1.0],
    "nothing but infinite": [math.inf, math.inf],
    "too large to be squared": [1e200, -1e200, 1e200],
    "too large on the way": [1e308, 1e308, -1e308],
    "too small to be squared": [1e-170, 3e-170, 2e-170],
}


@pytest.mark.parametrize("case", CANCELLING)
def test_what_cancels_overflows_or_vanishes_is_right_to_nine_digits(case: str) -> None:
    """Beside an entity whose values are tame, which is not computed again."""
    events = [Sent(i, happened(i, who="odd", amount=x).columns, 0, i) for i, x in enumerate(CANCELLING[case])]
    tame = [happened(i, offset=i, who="tame", amount=x) for i, x in enumerate((1.0, 2.0, 4.0))]
    asked_for = [Feature(kind, kind, Window("lifetime"), "amount") for kind in ("sum", "mean", "var", "std")]
    found = {row["who"]: row for row in asked(table_of([*events, *tame]), asked_for, 100, -1).to_pylist()}
    for f in asked_for:
        expected = aggregate(f, events, 100)
        assert close(found["odd"][f.name], expected), (f.name, found["odd"][f.name], expected)
        assert close(found["tame"][f.name], aggregate(f, tame, 100))


def test_what_is_in_doubt_without_a_key_is_computed_again_too() -> None:
    events = [happened(i, offset=i, amount=x) for i, x in enumerate((1e16, 1.0, -1e16))]
    total = [Feature("sum", "sum", Window("lifetime"), "amount")]
    assert asked(table_of(events), total, 100, -1, keys=()).to_pylist()[0]["sum"] == 1.0


def test_numbers_of_every_type() -> None:
    columns = {name: pa.array(values, kind) for name, (kind, values) in TYPES.items()}
    connection().register("events", pa.table({"at": pa.array([1, 1], pa.timestamp("us")), **columns}))
    asked_for = [Aggregation(f"{function}_{each}", function, each) for each in TYPES for function in ("sum", "mean")]
    (row,) = rows(Question("View 'v'", "events", (), "at", tuple(asked_for), 1, 0))
    assert row == {
        "sum_u64": None,  # beyond 64 bits
        "mean_u64": 2.0**62 + 0.5,
        "sum_i32": 5,
        "mean_i32": 2.5,
        "sum_price": Decimal("3.30"),
        "mean_price": pytest.approx(1.65),
        "sum_f32": 0.5,
        "mean_f32": 0.5,
    }


def test_more_entities_than_memory_holds_go_to_the_disk(tmp_path: Path) -> None:
    many = 400_000
    with duckdb.connect(config={"memory_limit": "60MB", "temp_directory": str(tmp_path), "threads": 1}) as small:
        small.execute(
            f"COPY (SELECT make_timestamp(range % 7 * 60000000) AS at, 'entity ' || range % {many} AS who, "
            f"range * 0.5 AS amount FROM range({many} * 2)) TO '{tmp_path}/e.parquet' (FORMAT parquet)"
        )
        week = tuple(hour(each, each) for each in ("sum", "count", "mean", "max", "min", "std", "last"))
        question = Question("View 'v'", f"read_parquet('{tmp_path}/e.parquet')", ("who",), "at", week, 420_000_000, 0)
        answers = answer(small, question)
        assert answers.rows == many
        counts = [batch.column("count") for batch in answers.batches]
        assert sum(map(len, counts)) == many
        assert max(map(len, counts)) <= 50_000
        assert pa.chunked_array(counts).value_counts().to_pylist() == [{"values": 2, "counts": many}]


@pytest.mark.parametrize(
    ("asked_for", "key", "said"),
    [
        (hour("n", "count", "amont"), "who", "View 'v': no column 'amont'; did you mean 'amount'?"),
        (hour("n", "count"), "whom", "no column 'whom'; did you mean 'who'?"),
        (hour("n", "men"), "who", "'n' asks for function 'men'; did you mean 'mean'? There are: count, sum"),
        (hour("n", "sum", None), "who", "'n' asks for sum of no column; only count needs none."),
        (hour("n", "mean", "city"), "who", "'n' asks for mean of column 'city', which is VARCHAR; expected numbers."),
    ],
)
def test_what_cannot_be_asked(asked_for: Aggregation, key: str, said: str) -> None:
    connection().register("events", table_of([happened(0)]))
    with pytest.raises(DefinitionError, match=re.escape(said)):
        answer(connection(), Question("View 'v'", "events", (key,), "at", (asked_for,), 0, 0))


def test_what_says_when_must_be_an_instant() -> None:
    connection().register("events", table_of([happened(0)]))
    with pytest.raises(DefinitionError, match="column 'city' says when things happened and is VARCHAR"):
        answer(connection(), Question("View 'v'", "events", ("who",), "city", (hour("n", "count"),), 0, 0))


def test_functions_have_other_names_too() -> None:
    others = {"avg": "mean", "stddev": "std", "variance": "var", "nunique": "count_distinct", "MAX": "max"}
    assert {each: canonical(each) for each in others} == others
