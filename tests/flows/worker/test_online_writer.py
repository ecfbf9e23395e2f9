"""The online writer: newest rows only, patient with a store that is away, silent when another has taken over."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource, Lifetime
from headrace.features.views import definition
from headrace.flows.worker.newest import newest_rows
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.online import OnlineWriter, StoppedError
from headrace.stores.errors import SchemaMismatchError, UnreachableError
from headrace.stores.layout import arrow_schema, row_layout
from headrace.stores.memory import MemoryStore
from headrace.stores.online import Portion, Written


class Ride(Event):
    driver: str
    city: int
    at: EventTime


class Drivers(FeatureView, source=IterableSource([], Ride, name="rides"), entity=Entity("driver", key="driver")):
    rides = Ride.count(over=Lifetime())


class Pairs(FeatureView, source=IterableSource([], Ride, name="rides"), entity=Entity("pair", keys=["driver", "city"])):
    rides = Ride.count(over=Lifetime())


def rows(view: Any, *given: tuple[Any, ...]) -> pa.Table:
    schema = arrow_schema(row_layout(view))
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in given], schema=schema)


def drivers(*given: tuple[str, int, int]) -> pa.Table:
    """Rows of driver, instant in microseconds, count."""
    return rows(Drivers, *((name, at, at, count) for name, at, count in given))


class Watching(MemoryStore):
    """A store in memory that can be away or slow, and remembers its round trips.

    trips: rows of each. told: position and rows of each portion.
    """

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.gate = threading.Event()
        self.gate.set()
        self.trips: list[int] = []
        self.told: list[tuple[int, int]] = []

    def write_portions(self, portions: Sequence[Portion]) -> list[Written]:
        self.gate.wait(10)
        if self.away:
            raise UnreachableError("The store is away.")
        self.trips.append(sum(table.num_rows for portion in portions for _, table in portion.rows))
        self.told += [(portion.position, sum(table.num_rows for _, table in portion.rows)) for portion in portions]
        return super().write_portions(portions)


class Told(Silent):
    def __init__(self) -> None:
        self.troubles: list[str] = []
        self.recoveries = 0

    def trouble(self, what: str, message: str) -> None:
        self.troubles.append(message)

    def recovered(self, what: str) -> None:
        self.recoveries += 1


def writer(store: Any, told: Any = None, stop: threading.Event | None = None) -> OnlineWriter:
    views = {view.name: view for view in (definition(Drivers), definition(Pairs))}
    return OnlineWriter(store, views, "wall", "flow", told or Told(), stop or threading.Event())


def counts(store: MemoryStore) -> dict[str, int]:
    return {key["driver"]: row.values["rides"] for key, row in store.scan(Drivers)}


def test_the_last_row_of_each_entity_stays() -> None:
    one = drivers(("a", 1, 1), ("b", 1, 1))
    two = drivers(("a", 2, 2), ("c", 2, 1))
    kept = newest_rows(definition(Drivers), [one, two])
    assert kept.select(["driver", "rides"]).to_pylist() == [
        {"driver": "b", "rides": 1},
        {"driver": "a", "rides": 2},
        {"driver": "c", "rides": 1},
    ]
    pairs = rows(Pairs, ("a", 1, 1, 1, 1), ("a", 2, 1, 1, 2), ("b", 1, 1, 1, 3), ("a", 1, 2, 2, 4))
    assert newest_rows(definition(Pairs), [pairs]).column("rides").to_pylist() == [2, 3, 4]


def test_rows_gather_while_a_write_is_under_way() -> None:
    store = Watching()
    online = writer(store)
    assert online.open("rides-0000", 1) is None
    store.gate.clear()
    online.submit("rides-0000", {"drivers": drivers(("a", 1, 1))}, 1, 1)
    time.sleep(0.05)  # the thread is in the store now
    for i in range(2, 50):
        online.submit("rides-0000", {"drivers": drivers(("a", i, i), ("b", i, i))}, i, i)
    assert not online.written("rides-0000", 49, 0.0)
    store.gate.set()
    assert online.written("rides-0000", 49, 5.0)
    online.end()
    assert counts(store) == {"a": 49, "b": 49}
    assert store.trips == [1, 2]


def test_rows_that_fell_with_time_are_waited_for_too() -> None:
    """They have the position of the events before them, which the store has already."""
    store = Watching()
    online = writer(store)
    online.open("rides-0000", 1)
    online.submit("rides-0000", {"drivers": drivers(("a", 1, 9))}, 5, 1)
    assert online.written("rides-0000", 5, 5.0, online.mark("rides-0000"))
    store.away = True
    online.submit("rides-0000", {"drivers": drivers(("a", 2, 0))}, 5, 2)
    mark = online.mark("rides-0000")
    assert online.written("rides-0000", 5, 0.0)
    assert not online.written("rides-0000", 5, 0.3, mark)
    store.away = False
    assert online.written("rides-0000", 5, 5.0, mark)
    assert counts(store) == {"a": 0}
    online.end()


def test_a_store_that_is_away_is_waited_for() -> None:
    store, told = Watching(), Told()
    online = writer(store, told)
    online.open("rides-0000", 1)
    store.away = True
    online.submit("rides-0000", {"drivers": drivers(("a", 1, 1))}, 5, 1)
    assert not online.written("rides-0000", 5, 0.3)
    store.away = False
    assert online.written("rides-0000", 5, 5.0)
    assert counts(store) == {"a": 1}
    assert set(told.troubles) == {"The store is away."}
    assert told.recoveries == 1
    online.end()


def test_told_to_stop_it_gives_up_on_a_store_that_is_away() -> None:
    store, stop = Watching(), threading.Event()
    store.take_over = None  # type: ignore[assignment, method-assign]

    def away(writer: str, epoch: int) -> None:
        raise UnreachableError("The store is away.")

    store.take_over = away  # type: ignore[assignment, method-assign]
    online = writer(store, stop=stop)
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(StoppedError):
        online.open("rides-0000", 1)
    online.end()


def test_a_task_that_another_took_over_writes_nothing_more() -> None:
    store = Watching()
    old, new = writer(store), writer(store)
    old.open("rides-0000", 1)
    old.submit("rides-0000", {"drivers": drivers(("a", 1, 1))}, 10, 1)
    assert old.written("rides-0000", 10, 5.0)
    reached = new.open("rides-0000", 2)
    assert reached is not None
    assert (reached.position, reached.clock_us) == (10, 1)
    old.submit("rides-0000", {"drivers": drivers(("a", 9, 99))}, 11, 9)
    assert not old.written("rides-0000", 11, 5.0)
    assert old.state("rides-0000") == "fenced"
    assert counts(store) == {"a": 1}
    old.end()
    new.end()


def test_a_store_that_lost_its_rows_is_noticed_and_filled_again() -> None:
    store = Watching()
    online = writer(store)
    online.open("rides-0000", 1)
    online.submit("rides-0000", {"drivers": drivers(("a", 1, 1))}, 10, 1)
    assert online.written("rides-0000", 10, 5.0)
    store._rows.clear()
    store._writers.clear()
    online.submit("rides-0000", {"drivers": drivers(("b", 2, 1))}, 11, 2)
    assert not online.written("rides-0000", 11, 5.0)
    assert online.state("rides-0000") == "lost"
    assert online.open("rides-0000", 1) is None
    online.submit("rides-0000", {"drivers": drivers(("a", 1, 1), ("b", 2, 1))}, 11, 2)
    assert online.written("rides-0000", 11, 5.0)
    assert counts(store) == {"a": 1, "b": 1}
    online.end()


def test_a_store_that_lost_its_rows_is_noticed_by_a_task_that_has_none_to_write() -> None:
    store = Watching()
    online = writer(store)
    online.open("rides-0000", 1)
    online.submit("rides-0000", {"drivers": drivers(("a", 1, 1))}, 10, 1)
    assert online.written("rides-0000", 10, 5.0)
    store._rows.clear()
    store._writers.clear()
    online.tell(2)
    online.rest(5)
    assert online.state("rides-0000") == "lost"
    online.end()


def test_rows_that_were_lost_are_there_before_the_position_is_told() -> None:
    """Whoever follows a worker that dies in between finds position 0, and writes them again."""
    store = Watching()
    online = writer(store)
    online.open("rides-0000", 1)
    with online.together():
        online.submit("rides-0000", {"drivers": drivers(("a", 1, 1), ("b", 1, 1))}, 10, 1, anew=True)
        online.submit("rides-0000", {"drivers": drivers(("c", 2, 1))}, 11, 2)
        mark = online.mark("rides-0000")
    assert online.written("rides-0000", 11, 5.0, mark)
    assert store.told == [(0, 3), (11, 0)]
    online.end()


def test_an_error_of_the_store_reaches_the_flow() -> None:
    store = Watching()
    online = writer(store)
    online.open("rides-0000", 1)
    online.submit("rides-0000", {"drivers": drivers(("a", 1, 1)).drop_columns(["rides"])}, 1, 1)
    with pytest.raises(SchemaMismatchError, match="without rides"):
        online.written("rides-0000", 1, 5.0)
    online.end()


def test_what_is_submitted_together_is_written_in_one_round_trip_and_rest_waits_for_it() -> None:
    store = Watching()
    online = writer(store)
    online.open("rides-0000", 1)
    online.open("rides-0001", 1)
    with online.together():
        online.submit("rides-0000", {"drivers": drivers(("a", 1, 1))}, 1, 1)
        online.submit("rides-0001", {"drivers": drivers(("b", 1, 1))}, 1, 1)
        time.sleep(0.05)
        assert store.trips == []
    online.rest(10)
    assert store.trips == [2]
    online.end()


def test_rest_waits_no_longer_than_told_for_a_slow_store() -> None:
    store = Watching()
    online = writer(store)
    online.open("rides-0000", 1)
    store.gate.clear()
    online.submit("rides-0000", {"drivers": drivers(("a", 1, 1))}, 1, 1)
    began = time.monotonic()
    online.rest(0.02)
    assert time.monotonic() - began < 5
    assert store.trips == []
    store.gate.set()
    online.end()
