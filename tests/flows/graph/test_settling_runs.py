"""Windows, frames and joins in whole flows: late events, any batches, crashes, chains of steps."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import Event, EventTime, Flow, Hopping, IterableSource, Session, Tumbling
from headrace.features.events import schema_of
from headrace.features.sinks import ParquetSink
from headrace.flows.decode import decode_rows
from headrace.flows.graph.running import GraphRun, Passed
from headrace.flows.pipeline import SourceFlow
from headrace.flows.runner import run
from headrace.flows.snapshot import SnapshotError

START = datetime(2026, 1, 1, tzinfo=UTC)
Rows = list[dict[str, Any]]


class Order(Event):
    kind: str
    who: str
    x: int
    at: EventTime


class Spent(Event):
    who: str
    total: int
    at: EventTime


class Paid(Event):
    who: str
    ordered: int
    paid: int | None
    at: EventTime


def order(kind: str, who: str, x: int, second: int) -> dict[str, Any]:
    return {"kind": kind, "who": who, "x": x, "at": START + timedelta(seconds=second)}


def pay(left: Any, right: Any) -> dict[str, Any]:
    return {"who": left.who, "ordered": left.x, "paid": None if right is None else right.x}


def spent(total: int) -> dict[str, Any]:
    return {"total": total}


def largest(state: int | None, row: Any) -> Any:
    now = max(state or 0, row.total)
    return now, {"who": row.who, "total": now, "at": row.at}


def in_frame(frame: pl.DataFrame) -> dict[str, Any]:
    return {"who": frame["who"][0], "total": int(frame["x"].sum())}


def flow_of(rows: Rows, lateness: int, folder: Path | None = None) -> Flow:
    flow = Flow("shop")
    events = flow.read(IterableSource(rows, Order, name="events", lateness=f"{lateness}s"))
    orders, payments = events.branch(Order.kind == "order")
    sums = orders.key_by("who").fold(
        lambda total, row: total + row.x, Hopping("4s", hop="2s"), initial=int, finish=spent, gives=Spent, name="sums"
    )
    best = sums.key_by("who").stateful(largest, gives=Spent, name="best")
    paid = orders.key_by("who").join(payments.key_by("who"), pay, within="3s", how="left", gives=Paid, name="paid")
    orders.key_by("who").lookup(payments.key_by("who"), pay, gives=Paid, name="last_paid")
    orders.key_by("who").stateful_frame(in_frame, over="4s", as_="polars", gives=Spent, name="frames")
    best.key_by("who").fold(
        lambda total, row: total + row.total, Session("5s"), initial=int, finish=spent, gives=Spent, name="bests"
    )
    orders.key_by("who").reduce(
        lambda one, other: {"kind": one.kind, "who": one.who, "x": one.x + other.x}, Tumbling("3s"), name="totals"
    )
    if folder is not None:
        paid.write(ParquetSink(folder / "paid", name="to_paid"))
        best.write(ParquetSink(folder / "best", name="to_best"))
    return flow


ordered = st.builds(
    order, st.sampled_from(["order", "pay"]), st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 20)
)


def results(
    rows: Rows, lateness: int, sizes: list[int], restarts: list[bool]
) -> tuple[dict[str, list[Any]], Counter[str]]:
    """What every step gives, in order, and the letters."""

    def begun(saved: dict[str, tuple[bytes]] | None) -> tuple[SourceFlow, GraphRun]:
        flow = flow_of(rows, lateness)
        source = SourceFlow(flow.sources[0], [])
        if saved is not None:
            source.load(saved)
        return source, GraphRun(flow, snapshots=saved)

    source, graph = begun(None)
    given: dict[str, list[Any]] = {}
    dead: Counter[str] = Counter()

    def took(passed: Passed) -> None:
        for step, batch in passed.given.items():
            columns = [batch.arrow(name).to_pylist() for name in batch]
            places = [batch.time.tolist(), batch.position.tolist(), batch.effective.tolist()]
            given.setdefault(step, []).extend(zip(*columns, *places, strict=True))
        dead.update(letter.detail for letter in passed.dead)

    at = step = 0
    while at < len(rows):
        size = sizes[step % len(sizes)]
        batch, _ = decode_rows(schema_of(Order), rows[at : at + size], 0, at)
        output = source.push(batch)
        dead.update(letter.reason for letter in output.dead)
        assert output.batch is not None
        took(graph.push({"events": output.batch}, source.watermark_us))
        if restarts[step % len(restarts)]:
            parts = {**source.save(full=True), **graph.save(full=True)}
            source, graph = begun({name: (part.data,) for name, part in parts.items()})
        at, step = at + size, step + 1
    took(graph.push({}, source.newest_us, ended=True))
    return given, dead


@given(
    st.lists(ordered, min_size=1, max_size=30), st.sampled_from([0, 3, 30]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4), st.lists(st.booleans(), min_size=1, max_size=4),
)  # fmt: skip
def test_no_batch_and_no_restart_shows(rows: Rows, lateness: int, sizes: list[int], restarts: list[bool]) -> None:
    one, letters = results(rows, lateness, [len(rows)], [False])
    assert results(rows, lateness, sizes, restarts) == (one, letters)
    assert set(letters) <= {"late"}
    taken, newest = [], None
    for row in rows:
        if newest is None or row["at"] >= newest - timedelta(seconds=lateness):
            taken.append(row)
            newest = row["at"] if newest is None else max(newest, row["at"])
    assert newest is not None
    pairs: Counter[Any] = Counter()
    span = timedelta(seconds=3)
    for left in (row for row in taken if row["kind"] == "order"):
        near = [
            row
            for row in taken
            if row["kind"] == "pay" and row["who"] == left["who"] and abs(row["at"] - left["at"]) <= span
        ]
        pairs.update((left["who"], left["x"], right["x"], max(left["at"], right["at"])) for right in near)
        if not near and left["at"] + span <= newest:
            pairs[left["who"], left["x"], None, left["at"] + span] += 1
    assert Counter(row[:4] for row in one["shop.paid"]) == pairs
    orders = [row for row in taken if row["kind"] == "order"]
    windows: Counter[Any] = Counter()
    for end in range(0, 40, 2):
        upto = START + timedelta(seconds=end)
        inside = [row for row in orders if upto - timedelta(seconds=4) < row["at"] <= upto <= newest]
        for who in {row["who"] for row in inside}:
            windows[who, sum(row["x"] for row in inside if row["who"] == who), upto] += 1
    assert Counter(row[:3] for row in one["shop.sums"]) == windows


class Crash(Exception):
    """Stands for kill -9: nothing after the last checkpoint counts."""


def written(folder: Path) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for path in folder.glob("date=*/*.parquet"):
        with path.open("rb") as file:
            found.update(tuple(row.items()) for row in pq.read_table(file).to_pylist())  # type: ignore[no-untyped-call]
    return found


def test_sinks_have_every_row_once_after_crashes(tmp_path: Path) -> None:
    rows = [order("order" if n % 3 else "pay", "ab"[n % 2], n, n - n % 4) for n in range(40)]
    run([flow_of(rows, 5, tmp_path / "whole")], tmp_path / "whole" / "data")
    for batches in (0, 2, 1):
        left = [batches]

        def crash(step: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Crash

        with pytest.raises(Crash):
            run([flow_of(rows, 5, tmp_path)], tmp_path / "data", batch_size=7, checkpoint_every_s=0, progress=crash)
    run([flow_of(rows, 5, tmp_path)], tmp_path / "data", batch_size=3)
    for name in ("paid", "best"):
        assert written(tmp_path / "whole" / name)
        assert written(tmp_path / name) == written(tmp_path / "whole" / name)


def test_another_window_does_not_take_over_the_state(tmp_path: Path) -> None:
    def flow(width: str) -> Flow:
        made = Flow("shop")
        events = made.read(IterableSource([order("order", "a", 1, 1)], Order, name="events"))
        events.key_by("who").reduce(lambda one, other: one, Tumbling(width), name="firsts")
        return made

    run([flow("1h")], tmp_path / "data")
    with pytest.raises(SnapshotError, match="step 'firsts'"):
        run([flow("2h")], tmp_path / "data")
    run([flow("2h")], tmp_path / "data", on_change="start")
