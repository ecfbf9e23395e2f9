"""Flows of steps against plain Python list programs, at any batch size and with crashes."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.features import DataError, DefinitionError, Event, EventTime, IterableSource
from headrace.features.columns import Column
from headrace.features.events import schema_of
from headrace.features.sinks import CallableSink, ParquetSink
from headrace.features.streams import Flow
from headrace.flows.batch import EventBatch
from headrace.flows.decode import decode_rows
from headrace.flows.graph.rows import StepError
from headrace.flows.graph.running import GraphRun, Passed
from headrace.flows.pipeline import SourceFlow
from headrace.flows.runner import run
from headrace.flows.snapshot import SnapshotError
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.offline import OfflineLog
from headrace.testing import replay_flow

START = datetime(2026, 1, 1, tzinfo=UTC)


class Ride(Event):
    driver_id: Column[str | None]
    km: Column[float | None]
    at: EventTime


class Total(Event):
    driver_id: str
    rides: int
    km: float
    at: EventTime


Rows = list[dict[str, Any]]


def ride(driver: str | None, km: float | None, second: int) -> dict[str, Any]:
    return {"driver_id": driver, "km": km, "at": START + timedelta(seconds=second)}


class Crash(Exception):
    """Stands for kill -9: nothing after the last checkpoint counts."""


def add(state: list[float] | None, row: Any) -> tuple[list[float], dict[str, Any]]:
    rides, km = state or [0, 0.0]
    return [rides + 1, km + row.km], {"driver_id": row.driver_id, "rides": int(rides) + 1, "km": km + row.km}


@dataclass
class Tally:
    """The same as an object."""

    rides: int = 0
    km: float = 0.0

    def on_event(self, row: Any) -> Total:
        self.rides += 1
        self.km += row.km
        return Total(driver_id=row.driver_id, rides=self.rides, km=self.km, at=row.at)


def doubled(frame: pl.DataFrame) -> pl.DataFrame:
    if (frame["km"] == 5).any():
        raise ValueError("five")
    return frame.with_columns(km=pl.col("km") * 2)


def twice(row: Any) -> list[dict[str, Any]]:
    return [{**vars(row), "km": row.km + n} for n in range(2)]


def flow_of(rows: Rows, lateness: int, folder: Path, remember: Any) -> Flow:
    flow = Flow("trips")
    rides = flow.read(IterableSource(rows, Ride, name="rides", lateness=f"{lateness}s"))
    short, rest = rides.branch(Ride.km <= 4)
    short.flat_map(twice).key_by("driver_id").stateful(remember, gives=Total, name="totals").write(
        ParquetSink(folder / "totals", name="to_totals")
    )
    rest.filter(lambda row: row.km is not None).map_batches(doubled, as_="polars").write(
        ParquetSink(folder / "far", name="to_far")
    )
    return flow


def expected(rows: Rows, lateness: int) -> tuple[Counter[Any], Counter[Any], Counter[str]]:
    """What a list program makes of the rows: totals, far rides, dead letters by reason."""
    taken, newest, dead = [], None, Counter[str]()
    for row in rows:
        if newest is not None and row["at"] < newest - timedelta(seconds=lateness):
            dead["late"] += 1
        else:
            taken.append(row)
            newest = row["at"] if newest is None else max(newest, row["at"])
    far: Counter[Any] = Counter()
    totals: Counter[Any] = Counter()
    memory: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for row in sorted(taken, key=lambda row: row["at"]):
        if row["km"] is not None and row["km"] <= 4:
            for km in (row["km"], row["km"] + 1):
                if row["driver_id"] is None:
                    dead["failed"] += 1
                    continue
                it = memory[row["driver_id"]]
                it[0] += 1
                it[1] += km
                totals[row["driver_id"], int(it[0]), it[1], row["at"]] += 1
        elif row["km"] == 5:
            dead["failed"] += 1
        elif row["km"] is not None:
            far[row["driver_id"], row["km"] * 2, row["at"]] += 1
    return totals, far, +dead


def written(folder: Path) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for path in folder.glob("date=*/*.parquet"):
        with path.open("rb") as file:
            for row in pq.read_table(file).to_pylist():
                found[tuple(value for name, value in row.items() if name in ("driver_id", "rides", "km", "at"))] += 1
    return found


def letters_of(folder: Path) -> list[dict[str, Any]]:
    letters: list[dict[str, Any]] = read_dead_letters(OfflineLog(folder / "data" / "log")).to_pylist()
    return letters


def crash_after(batches: int) -> Callable[[Any], None]:
    left = [batches]

    def seen(step: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Crash

    return seen


rides_of = st.lists(
    st.builds(
        ride,
        st.sampled_from(["a", "b", None]),
        st.sampled_from([None, 0.0, 1.0, 2.5, 4.0, 5.0, 6.0, 9.0]),
        st.integers(0, 12),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(
    rows=rides_of,
    lateness=st.sampled_from([0, 3, 20]),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    restarts=st.lists(st.booleans(), min_size=1, max_size=5),
    remember=st.sampled_from([add, Tally]),
)
def test_a_flow_gives_what_a_list_program_gives(
    rows: Rows, lateness: int, sizes: list[int], restarts: list[bool], remember: Any
) -> None:
    def begun(saved: dict[str, tuple[bytes]] | None) -> tuple[SourceFlow, GraphRun]:
        made = flow_of(rows, lateness, Path("unused"), remember)
        source = SourceFlow(made.sources[0], [])
        if saved is not None:
            source.load(saved)
        return source, GraphRun(made, snapshots=saved)

    source, graph = begun(None)
    totals: Counter[Any] = Counter()
    far: Counter[Any] = Counter()
    dead: Counter[str] = Counter()

    def took(passed: Passed) -> None:
        totals.update(values_of(passed.given["trips.totals"], ("driver_id", "rides", "km", "at")))
        far.update(values_of(passed.given["trips.doubled"], ("driver_id", "km", "at")))
        dead.update(letter.reason for letter in passed.dead)

    at = step = 0
    while at < len(rows):
        size = sizes[step % len(sizes)]
        batch, broken = decode_rows(schema_of(Ride), rows[at : at + size], 0, at)
        assert not broken
        output = source.push(batch)
        dead.update(letter.reason for letter in output.dead)
        assert output.batch is not None
        took(graph.push({"rides": output.batch}, source.watermark_us))
        if restarts[step % len(restarts)]:
            parts = {**source.save(full=True), **graph.save(full=True)}
            source, graph = begun({name: (part.data,) for name, part in parts.items()})
        at, step = at + size, step + 1
    took(graph.push({}, source.newest_us, ended=True))
    assert (totals, far, dead) == expected(rows, lateness)


def values_of(batch: EventBatch, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    if not len(batch):
        return []
    return list(zip(*(batch.arrow(name).to_pylist() for name in names), strict=True))


@pytest.mark.parametrize("crashes", [(0, 2), (1,)])
def test_sinks_have_every_row_once_after_crashes(crashes: tuple[int, ...], tmp_path: Path) -> None:
    rows = [ride("ab"[n % 2], float(n % 11), n - n % 3) for n in range(30)]
    for batches in crashes:
        with pytest.raises(Crash):
            run([flow_of(rows, 4, tmp_path, add)], tmp_path / "data", batch_size=7, checkpoint_every_s=0,
                progress=crash_after(batches))  # fmt: skip
    run([flow_of(rows, 4, tmp_path, add)], tmp_path / "data", batch_size=5)
    totals, far, dead = expected(rows, 4)
    assert written(tmp_path / "totals") == totals
    assert written(tmp_path / "far") == far
    assert Counter(letter["reason"] for letter in letters_of(tmp_path)) == dead


def test_a_letter_names_step_function_and_event(tmp_path: Path) -> None:
    flow = Flow("trips")

    def price(row: Any) -> dict[str, Any]:
        return {"driver_id": row.driver_id, "km": 1 / row.km}

    flow.read(IterableSource([ride("a", 2.0, 1), ride("b", 0.0, 2)], Ride, name="rides")).map_rows(price)
    summary = run([flow], tmp_path / "data")
    assert summary.given == {"trips.rides": 2, "trips.price": 1}
    (letter,) = letters_of(tmp_path)
    assert (letter["reason"], letter["offset"]) == ("failed", 1)
    assert re.match(r"step 'price' \(function .*price\): ", letter["detail"])
    assert "ZeroDivisionError: float division by zero" in letter["detail"]
    assert json.loads(letter["payload"])["driver_id"] == "b"


def test_a_step_that_stops_the_flow_stops_before_the_event(tmp_path: Path) -> None:
    rows = [ride("a", float(n), n) for n in range(1, 6)]
    broken = [True]
    given: list[float] = []

    def picky(row: Any) -> dict[str, Any]:
        if broken[0] and row.km == 4:
            raise ValueError("four")
        return dict(vars(row))

    def flow() -> Flow:
        made = Flow("trips")
        stream = made.read(IterableSource(rows, Ride, name="rides")).map_rows(picky, on_error="stop")
        stream.write(CallableSink(lambda found: given.extend(row["km"] for row in found), name="out"))
        return made

    with pytest.raises(StepError, match=r"step 'picky' \(function .*picky\) could not take an event: ValueError: four"):
        run([flow()], tmp_path / "data", batch_size=1, checkpoint_every_s=0)
    broken[0] = False
    run([flow()], tmp_path / "data")
    assert given == [1, 2, 3, 4, 5]


def test_what_a_function_gives_has_to_fit(tmp_path: Path) -> None:
    flow = Flow("trips")
    rides = flow.read(IterableSource([ride("a", 2.0, 1)], Ride, name="rides"))
    rides.map_rows(lambda row: {**vars(row), "at": START}, name="moves")
    rides.map_rows(lambda row: {"driver_id": 3}, name="misfits")
    rides.map_rows(lambda row: 7, name="no_row")
    rides.flat_map(lambda row: "text", name="text")
    rides.map_batches(lambda frame: frame.head(0), name="short")
    rides.key_by("driver_id").stateful(lambda state, row: None, name="unpaired")
    run([flow], tmp_path / "data")
    told = sorted(letter["detail"].split(" (")[0] for letter in letters_of(tmp_path))
    assert told == ["step 'misfits'", "step 'moves'", "step 'no_row'", "step 'short'", "step 'text'", "step 'unpaired'"]


def test_another_function_does_not_take_over_the_state(tmp_path: Path) -> None:
    rows = [ride("a", 2.0, 1)]

    def flow(bonus: int) -> Flow:
        made = Flow("trips")
        rides = made.read(IterableSource(rows, Ride, name="rides"))
        rides.key_by("driver_id").stateful(lambda state, row: ((state or 0) + bonus, None), name="points")
        return made

    run([flow(1)], tmp_path / "data")
    with pytest.raises(SnapshotError, match="points"):
        run([flow(2)], tmp_path / "data")
    run([flow(2)], tmp_path / "data", on_change="start")


def test_a_flow_that_comes_late_is_refused(tmp_path: Path) -> None:
    source = IterableSource([ride("a", 2.0, 1)], Ride, name="rides")

    def flow(name: str) -> Flow:
        made = Flow(name)
        made.read(source).inspect(lambda row: None)
        return made

    run([flow("one")], tmp_path / "data")
    with pytest.raises(SnapshotError, match="Flow 'two' is not in the checkpoint, and a source of its own"):
        run([flow("one"), flow("two")], tmp_path / "data")
    run([flow("one"), flow("two")], tmp_path / "data", on_change="start")


def test_a_live_run_hands_rows_on_at_once_and_the_rest_at_the_end(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    rows = [{"driver_id": "a", "km": float(n), "at": now + timedelta(seconds=n)} for n in (2, 1, 3)]
    flow = Flow("trips")
    rides = flow.read(IterableSource(rows, Ride, name="rides", lateness="1m"))
    given: list[Any] = []
    totals = rides.key_by(Ride.driver_id).stateful(add, gives=Total)
    totals.write(CallableSink(lambda found: given.extend((row["rides"], row["km"]) for row in found), name="out"))
    run([flow], tmp_path / "data", live=True)
    assert given == [(1, 1.0), (2, 3.0), (3, 6.0)]


def test_numpy_pandas_and_arrow_come_back_as_they_went(tmp_path: Path) -> None:
    flow = Flow("trips")
    stream = flow.read(IterableSource([ride("a", 2.0, 1), ride(None, None, 2)], Ride, name="rides"))
    seen: list[str] = []
    for kind in ("numpy", "pandas", "arrow", "polars"):
        stream = stream.map_batches(lambda frame: frame, as_=kind, name=kind)
    stream.inspect(lambda row: seen.append(f"{row.driver_id} {row.km} {row.at:%S}"))
    run([flow], tmp_path / "data")
    assert seen == ["a 2.0 01", "None None 02"]


def test_a_flow_is_tested_without_sources_and_sinks() -> None:
    flow = Flow("trips")
    rides = flow.read(IterableSource([], Ride, name="rides", lateness="1m"))
    totals = rides.filter(Ride.km > 0).key_by("driver_id").stateful(add, gives=Total, name="totals")
    totals.write(ParquetSink("nowhere"))
    with replay_flow(flow, day="2026-05-01") as t:
        t.send([{"driver_id": "7", "km": 3.0, "at": "12:01"}, {"driver_id": "7", "km": 1.0, "at": "12:00:30"}])
        t.send({"driver_id": "7", "km": 0.0, "at": "11:00"})
        assert t.rows("totals") == []
        t.restart()
        t.send({"driver_id": "8", "km": "far", "at": "12:01"})
        t.send({"driver_id": "8", "km": 5.0, "at": "12:01:30"}, source="rides")
        assert [row["km"] for row in t.rows("totals")] == [1.0]
        t.end()
        assert [(row["driver_id"], row["rides"], row["km"]) for row in t.rows("totals")] == [
            ("7", 1, 1.0), ("7", 2, 4.0), ("8", 1, 5.0),
        ]  # fmt: skip
        assert [letter.reason for letter in t.dead] == ["late", "malformed"]
        with pytest.raises(DataError, match="no step 'total' that gives rows: rides, filter, totals"):
            t.rows("total")
        with pytest.raises(DataError, match="none of the flow's: rides"):
            t.send([], source="trips")


def test_collected_rows_are_those_of_this_run_and_the_newest_where_asked(tmp_path: Path) -> None:
    def rides(n: int) -> tuple[Flow, list[dict[str, Any]], list[dict[str, Any]]]:
        rows = [{"driver_id": "7", "km": float(i), "at": f"2026-05-01T12:00:{i:02}Z"} for i in range(n)]
        flow = Flow("trips")
        read = flow.read(IterableSource(rows, Ride, name="rides"))
        return flow, read.filter(lambda ride: ride.km != 2).collect(), read.collect(newest=2, name="last")

    flow, all_of_it, last = rides(5)
    run([flow], tmp_path / "data", batch_size=2)
    assert [row["km"] for row in all_of_it] == [0, 1, 3, 4]
    assert [row["km"] for row in last] == [3, 4]
    flow, all_of_it, last = rides(6)
    run([flow], tmp_path / "data")
    assert [row["km"] for row in all_of_it] == [5] == [row["km"] for row in last]


def test_definitions_that_cannot_be(tmp_path: Path) -> None:
    flow = Flow("trips")
    rides = flow.read(IterableSource([], Ride, name="rides"))
    with pytest.raises(DefinitionError, match="km_driven"):
        rides.key_by("km_driven")
    with pytest.raises(DefinitionError, match="takes a sink"):
        rides.write("somewhere")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="column of Total"):
        rides.filter(Total.km > 3)
    with pytest.raises(DefinitionError, match="no method on_event"):
        rides.key_by("driver_id").stateful(dict)
    with pytest.raises(DefinitionError, match="has no steps"):
        run([Flow("empty")], tmp_path)
