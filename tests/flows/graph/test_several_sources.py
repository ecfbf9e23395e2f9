"""Flows of several sources: merged and joined under the least watermark of all, whatever comes first."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import Event, EventTime, Flow, IterableSource
from headrace.features.errors import DataError, DefinitionError
from headrace.features.sinks import CallableSink
from headrace.flows.runner import run
from headrace.testing import replay_flow

START = datetime(2026, 1, 1, tzinfo=UTC)
Rows = list[dict[str, Any]]


class Order(Event):
    who: str
    x: int
    at: EventTime


class Payment(Event):
    who: str
    y: int
    at: EventTime


class Pair(Event):
    who: str
    x: int
    y: int | None
    at: EventTime


class Seen(Event):
    who: str
    seen: str
    at: EventTime


def moment(second: int) -> datetime:
    return START + timedelta(seconds=second)


def pair(left: Any, right: Any) -> dict[str, Any]:
    return {"who": left.who, "x": left.x, "y": None if right is None else right.y}


def history(state: str | None, row: Any) -> Any:
    now = f"{state or ''}{row.x},"
    return now, {"who": row.who, "seen": now}


def as_order(row: Any) -> dict[str, Any]:
    return {"who": row.who, "x": -row.y, "at": row.at}


def flow_of(lateness: tuple[int, int], orders: Rows | None = None, payments: Rows | None = None) -> Flow:
    flow = Flow("shop")
    bought = flow.read(IterableSource(orders or [], Order, name="orders", lateness=f"{lateness[0]}s"))
    paid = flow.read(IterableSource(payments or [], Payment, name="payments", lateness=f"{lateness[1]}s"))
    bought.key_by("who").join(paid.key_by("who"), pair, within="3s", gives=Pair, name="pairs")
    bought.key_by("who").lookup(paid.key_by("who"), pair, gives=Pair, name="latest")
    large, small = bought.branch(Order.x >= 5)
    both = small.merge(large).merge(paid.map_rows(as_order, gives=Order), name="both")
    both.key_by("who").stateful(history, gives=Seen, name="seen")
    return flow


def let_in(rows: Rows, lateness: int) -> Rows:
    """In the order in which they come, those that are not late."""
    taken: Rows = []
    for row in rows:
        if not taken or row["at"] >= max(each["at"] for each in taken) - timedelta(seconds=lateness):
            taken.append(row)
    return taken


def expected(orders: Rows, payments: Rows) -> dict[str, Counter[Any]]:
    span = timedelta(seconds=3)
    pairs: Counter[Any] = Counter()
    latest: Counter[Any] = Counter()
    for each in orders:
        its = [other for other in payments if other["who"] == each["who"]]
        for other in its:
            if abs(each["at"] - other["at"]) <= span:
                pairs[each["who"], each["x"], other["y"], max(each["at"], other["at"])] += 1
        known = sorted((other for other in its if other["at"] <= each["at"]), key=lambda other: other["at"])
        latest[each["who"], each["x"], known[-1]["y"] if known else None, each["at"]] += 1
    # Of one instant: the orders in the order of their coming, small and large ones apart, then the payments.
    merged = sorted(
        [(row["at"], 0, n, 0 if row["x"] < 5 else 1, row["who"], row["x"]) for n, row in enumerate(orders)]
        + [(row["at"], 1, n, 0, row["who"], -row["y"]) for n, row in enumerate(payments)]
    )
    seen: Counter[Any] = Counter()
    histories: dict[str, str] = {}
    for at, *_, who, x in merged:
        histories[who] = f"{histories.get(who, '')}{x},"
        seen[who, histories[who], at] += 1
    return {"pairs": pairs, "latest": latest, "seen": seen}


def found(rows: Rows) -> Counter[Any]:
    return Counter(tuple(row.values()) for row in rows)


def events(value: str) -> st.SearchStrategy[Rows]:
    row = st.builds(
        lambda who, number, second: {"who": who, value: number, "at": moment(second)},
        st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 15),
    )  # fmt: skip
    return st.lists(row, max_size=12)


@given(events("x"), events("y"), st.tuples(st.sampled_from([0, 4, 30]), st.sampled_from([0, 30])), st.data())
def test_any_interleaving_gives_what_a_list_program_gives(
    orders: Rows, payments: Rows, lateness: tuple[int, int], data: st.DataObject
) -> None:
    left: dict[str, Rows] = {"orders": orders, "payments": payments}
    at = {"orders": 0, "payments": 0}
    with replay_flow(flow_of(lateness)) as replayed:
        while any(at[name] < len(rows) for name, rows in left.items()):
            name = data.draw(st.sampled_from([name for name, rows in left.items() if at[name] < len(rows)]))
            size = data.draw(st.integers(1, 6))
            replayed.send(left[name][at[name] : at[name] + size], name)
            at[name] += size
            if data.draw(st.booleans()):
                replayed.restart()
        replayed.end()
        letters = Counter(letter.source for letter in replayed.dead)
        given = {step: found(replayed.rows(step)) for step in ("pairs", "latest", "seen")}
    taken = let_in(orders, lateness[0]), let_in(payments, lateness[1])
    assert given == expected(*taken)
    assert letters == Counter(
        {
            name: n
            for name, n in (("orders", len(orders) - len(taken[0])), ("payments", len(payments) - len(taken[1])))
            if n
        }
    )


def test_rows_of_the_watermarks_own_instant_wait_for_those_of_other_sources() -> None:
    orders = [{"who": "a", "x": n, "at": moment(5)} for n in (1, 2)]
    payments = [{"who": "a", "y": 9, "at": moment(5)}]
    with replay_flow(flow_of((0, 0))) as replayed:
        replayed.send(payments, "payments")
        replayed.send(orders[:1], "orders")
        replayed.send(orders[1:], "orders")
        replayed.end()
        assert found(replayed.rows("seen")) == expected(orders, payments)["seen"]


def test_a_run_ends_with_all_of_it_though_one_source_ends_early(tmp_path: Path) -> None:
    orders = [{"who": "a", "x": n % 10, "at": moment(n)} for n in range(40)]
    payments = [{"who": "a", "y": n, "at": moment(n)} for n in range(3)]
    flow = flow_of((2, 0), orders, payments)
    written: Rows = []
    (pairs,) = [step for step in flow.steps if step.name == "pairs"]
    waiting: list[int] = []
    sink = CallableSink(lambda rows: written.extend(dict(row) for row in rows), name="out")
    type(flow.read(flow.sources[0]))(flow, pairs).write(sink)
    run([flow], tmp_path / "data", batch_size=4, checkpoint_every_s=0, progress=lambda _: waiting.append(len(written)))
    assert found(written) == expected(orders, payments)["pairs"]
    assert len(written) == waiting[-2]  # the source that had ended did not hold the other one's pairs back


def test_a_letter_names_the_source_of_its_event() -> None:
    def fails(row: Any) -> dict[str, Any]:
        raise ValueError("no")

    flow = Flow("shop")
    flow.read(IterableSource([], Order, name="orders"))
    flow.read(IterableSource([], Payment, name="payments")).map_rows(fails)
    with replay_flow(flow) as replayed:
        replayed.send({"who": "a", "y": 1, "at": moment(1)}, "payments")
        replayed.send({"who": "a", "y": 2, "at": moment(2)}, "payments")
        assert [(each.source, each.partition, each.offset) for each in replayed.dead] == [
            ("payments", 0, 0),
            ("payments", 0, 1),
        ]


def test_a_letter_names_the_place_that_its_event_had_before_it_was_merged() -> None:
    def fails(row: Any) -> dict[str, Any]:
        raise ValueError("no")

    flow = Flow("shop")
    large, small = flow.read(IterableSource([], Order, name="orders")).branch(Order.x >= 5)
    others = flow.read(IterableSource([], Order, name="others"))
    small.merge(large).merge(others).filter(Order.x > 0).map_rows(fails)
    with replay_flow(flow) as replayed:
        replayed.send([{"who": "a", "x": x, "at": moment(x)} for x in (0, 3, 5, 7)], "orders")
        replayed.send([{"who": "a", "x": x, "at": moment(x)} for x in (0, 1)], "others")
        assert sorted((each.source, each.offset, json.loads(each.payload)["x"]) for each in replayed.dead) == [
            ("orders", 1, 3), ("orders", 2, 5), ("orders", 3, 7), ("others", 1, 1),
        ]  # fmt: skip


def test_what_cannot_be_merged_is_refused() -> None:
    flow, other = Flow("shop"), Flow("bank")
    orders = flow.read(IterableSource([], Order, name="orders"))
    with pytest.raises(DefinitionError, match=r"has rows of Payment, expected Order. Make them one class first"):
        orders.merge(flow.read(IterableSource([], Payment, name="payments")))
    with pytest.raises(DefinitionError, match="takes a stream of the same flow"):
        orders.merge(other.read(IterableSource([], Order, name="orders")))
    many = Flow("many")
    for n in range(9):
        many.read(IterableSource([], Order, name=f"s{n}"))
    with pytest.raises(DataError, match="reads 9 sources, at most 8 are possible"):
        replay_flow(many)
