"""What `headrace verify` finds where places differ; that it finds nothing where they agree is in tests/oracle."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.features import Entity, Event, EventTime, FrameSource, define
from headrace.features.time import instant_us
from headrace.flows.backfill import backfill
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.runner import run
from headrace.flows.worker.exchange import numbered
from headrace.materialize.verifying import check_log, check_online, sampled
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.keys import key_number
from headrace.stores.memory import MemoryStore
from headrace.stores.offline import OfflineLog

START = instant_us("2026-01-01T00:00Z", "start")


class Ride(Event):
    driver: str
    fare: float
    at: EventTime


def view_of(n: int = 400, drivers: int = 20) -> Any:
    times = pa.array([START + i * 7_000_000 for i in range(n)]).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table(
        {"driver": [f"d{i * i % drivers}" for i in range(n)], "fare": [1.0 + i % 13 for i in range(n)], "at": times}
    )
    features = {"rides": Ride.count(last="10m"), "fares": Ride.fare.sum(last="10m"), "last": Ride.fare.last(last="1h")}
    return define(
        "rides",
        source=FrameSource(table, Ride, name="rides", lateness="1m"),
        entity=Entity("driver", key="driver"),
        features=features,
    )


@pytest.fixture
def ran(tmp_path: Path) -> tuple[Any, MemoryStore, OfflineLog]:
    """A view, the online rows and the log of a run."""
    view = view_of()
    run([view], tmp_path)
    store, log = MemoryStore(), OfflineLog(tmp_path / "log")
    with EmbeddedStore(tmp_path / "online", read_only=True) as online:
        for key, row in online.scan(view):
            store.write(view, as_table(view, log, key, row.values, row.event_timestamp_us, row.newest_event_us))
    return view, store, log


def as_table(view: Any, log: OfflineLog, key: dict[str, Any], values: dict[str, Any], at: int, newest: int) -> pa.Table:
    cells = {**key, "event_timestamp": at, "newest_event": newest, **values}
    schema = log.latest(view).schema
    arrays = [pa.array([cells[field.name]], pa.int64()).cast(field.type) if pa.types.is_timestamp(field.type)
              else pa.array([cells[field.name]], field.type) for field in schema]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=schema)


def test_nothing_differs_after_a_run(ran: tuple[Any, MemoryStore, OfflineLog]) -> None:
    view, store, log = ran
    check = check_online(view, store, log, extra=True)
    assert (check.differences, check.undecided, check.entities) == (0, 0, len(list(store.scan(view))))
    assert {name: each.compared for name, each in check.features.items()} == dict.fromkeys(
        ("rides", "fares", "last"), check.rows
    )


def test_a_value_that_differs_a_row_that_is_gone_and_one_too_many(ran: tuple[Any, MemoryStore, OfflineLog]) -> None:
    view, store, log = ran
    (first, row), (second, _), *_ = store.scan(view)
    wrong = {**row.values, "fares": row.values["fares"] + 2.5, "rides": row.values["rides"] + 1}
    store.write(view, as_table(view, log, first, wrong, row.event_timestamp_us, row.newest_event_us))
    store.delete(view, [second])
    stranger = {"driver": "nobody knows"}
    store.write(view, as_table(view, log, stranger, row.values, row.event_timestamp_us, row.newest_event_us))
    check = check_online(view, store, log, extra=True)
    assert (check.missing, check.extra, check.differences) == (1, 1, 4)
    assert check.example == f"driver={second['driver']} is not online"
    assert (check.features["fares"].mismatched, check.features["fares"].largest) == (1, 2.5)
    assert (check.features["rides"].mismatched, check.features["rides"].largest) == (1, 1)
    assert check.features["last"].mismatched == 0
    assert str(check.features["fares"].example).startswith(f"driver={first['driver']} at 2026-")
    assert check_online(view, store, log).extra == 0  # it was not asked to look


def test_a_flow_that_is_ahead_of_its_log_is_not_judged(ran: tuple[Any, MemoryStore, OfflineLog]) -> None:
    view, store, log = ran
    (first, row), *_ = store.scan(view)
    newer = row.event_timestamp_us + 60_000_000
    store.write(view, as_table(view, log, first, {**row.values, "fares": -1.0}, newer, newer))
    check = check_online(view, store, log)
    assert (check.differences, check.undecided) == (0, 1)


def test_logs_are_compared_instant_by_instant(ran: tuple[Any, MemoryStore, OfflineLog], tmp_path: Path) -> None:
    view, _, log = ran
    rows = log.scan(view, tail=False)
    at = rows.column_names.index("fares")
    fares = rows.column(at).to_pylist()
    fares[10] = None
    fares[20] += 1e-13
    changed = rows.set_column(at, rows.schema.field(at), pa.array(fares, pa.float64()))
    other = OfflineLog(tmp_path / "other")
    other.append(view, pa.concat_tables([changed.slice(0, 50), changed.slice(51)]))
    other.commit(settled_us={"rides": log.settled_us(view) or 0})
    check = check_log(view, other, log)
    assert (check.missing, check.extra, check.features["fares"].mismatched) == (1, 0, 1)
    assert (check.rows, check.differences) == (rows.num_rows - 1, 2)
    assert "no row in the log" in str(check.example)
    assert check.features["fares"].largest is None  # null beside a number is no difference of numbers
    back = check_log(view, log, other, from_us=rows["event_timestamp"][30].value)
    assert (back.missing, back.extra, back.features["fares"].mismatched) == (0, 1, 0)


@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_a_sample_is_the_same_everywhere(share: float, tmp_path: Path) -> None:
    view = view_of(2000, drivers=700)
    run([view], tmp_path / "run")
    backfill([view], tmp_path / "part", sample=share)
    whole, part = (OfflineLog(tmp_path / each / "log") for each in ("run", "part"))
    drivers = sorted(set(whole.scan(view)["driver"].to_pylist()))
    chosen = [name for (name,) in sampled([(name,) for name in drivers], share)]
    assert len(chosen) == pytest.approx(share * len(drivers), abs=30)
    if part.views():
        assert sorted(set(part.scan(view)["driver"].to_pylist())) == chosen
        check = check_log(view, whole, part, share=share)
        assert (check.differences, check.entities) == (0, len(chosen))


def test_batches_number_keys_as_single_keys_are() -> None:
    names, numbers = ["a", "b", "a", "ü"], [1, -5, 1, 2**62]
    columns = {
        "name": BatchColumn("string", arrow=pa.array(names)),
        "number": BatchColumn("int64", arrow=pa.array(numbers)),
    }
    batch = EventBatch.of(columns, [1, 2, 3, 4])
    found, present = numbered(batch, ["name", "number"])
    assert found.tolist() == [key_number(key) for key in zip(names, numbers, strict=True)]
    assert present.all()
