"""What work takes, counted and not timed: a busy machine, or a slow one, counts as any other does.

Where one of these fails, something became larger than it was. Often it was not meant: look at what changed for an
event, a row or an entity. If it is worth it, the new figure is put here, and its commit says what it buys. Where
something became smaller by far the figure is put here too, so that it stays so. Figures that belong to us alone are
exact; others (a compression, Python's calls) have room for other versions of what they depend on.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource
from headrace.features.views import definition
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.events import prepare
from headrace.flows.keys import KeyTable
from headrace.flows.pipeline import SourceFlow
from headrace.flows.plan import compile_view
from headrace.flows.shard import ShardOperator
from headrace.serving import AsyncClient, Client
from headrace.serving.http import lookup_app
from headrace.stores.layout import arrow_schema, row_layout
from headrace.stores.online import Portion
from headrace.stores.opening import Layout
from headrace.stores.redis import RedisStore
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer
from tests.serving.test_round_trips import counted

START = 1_767_225_600_000_000  # 2026-01-01T00:00Z
SECOND = 1_000_000
ENTITIES = 10_000


class Ride(Event):
    driver: str
    fare: float
    at: EventTime


RIDES = IterableSource([], Ride, lateness="10s")


class HalfHour(FeatureView, source=RIDES, entity=Entity("driver", key="driver"), ttl="7d"):
    rides = Ride.count(last="30m")
    total = Ride.fare.sum(last="30m")
    mean = Ride.fare.mean(last="30m")
    most = Ride.fare.max(last="30m")


class Day(FeatureView, source=RIDES, entity=Entity("driver", key="driver"), ttl="7d"):
    total = Ride.fare.sum(last=["1h", "6h", "1d"])
    mean = Ride.fare.mean(last=["1h", "6h", "1d"])
    rides = Ride.count(last=["1h", "6h"])
    most = Ride.fare.max(last=["1h", "6h"])


def events(who: Sequence[int] | npt.NDArray[np.int64], first_us: int, gap_us: int = 1000) -> EventBatch:
    """An event of each of the drivers named, one after the other."""
    times = first_us + np.arange(len(who)) * gap_us
    fares = np.round(np.random.default_rng(20240615).gamma(3.0, 8.0, len(who)), 2)
    columns = {
        "driver": BatchColumn("string", arrow=pa.array([f"driver_{each:06d}" for each in who])),
        "fare": BatchColumn("float64", values=fares),
        "at": BatchColumn("timestamp", values=times),
    }
    return EventBatch.of(columns, times, 0, first_us + np.arange(len(who)))


def rows(view: Any, drivers: Sequence[int], at: int = START) -> pa.Table:
    """A row of each driver with a value in each feature."""
    schema = arrow_schema(row_layout(view))
    fixed = {"driver": [f"driver_{each:06d}" for each in drivers]}
    columns = []
    for field in schema:
        values: list[Any] = fixed.get(field.name, [at if pa.types.is_timestamp(field.type) else 7] * len(drivers))
        columns.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def settled(share: int = 1) -> ShardOperator:
    """An operator that all drivers have reached, all of it settled, and saved; then one in `share` of them again."""
    operator = ShardOperator(HalfHour)
    everyone = np.random.default_rng(1).permutation(ENTITIES)
    for turn, who in enumerate((everyone, everyone[::share])):
        batch = events(who, START + turn * 60 * SECOND)
        operator.process(batch, int(batch.time[-1]))
        operator.settle(int(batch.time[-1]) + 1)
        if turn == 0:
            operator.save(full=True)
    return operator


def calls(work: Callable[[], object]) -> int:
    """Calls of functions, in Python and from Python, that `work` makes."""
    made = 0

    def seen(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return made


def assert_held(found: float, least: float, most: float, what: str) -> None:
    assert found <= most, f"{what}: {found:,.5g}, at most {most:,.5g} so far. What was added to each of them?"
    assert found >= least, f"{what}: {found:,.5g}, at least {least:,.5g} so far. If it was won, hold it: put it here."


# State


def test_state_of_an_entity() -> None:
    """Both readings: a slot with its last row, and one tile."""
    operator = ShardOperator(HalfHour)
    batch = events(np.arange(ENTITIES), START)
    operator.process(batch, int(batch.time[-1]))
    operator.settle(int(batch.time[-1]) + 1)
    assert_held(operator.nbytes / ENTITIES, 584.0224, 584.0224, "bytes of state of an entity with one tile")


def test_an_entity_in_a_checkpoint() -> None:
    assert_held(len(settled().save(full=True).data) / ENTITIES, 35, 52, "bytes of an entity in a full checkpoint")


def test_a_delta_has_what_changed() -> None:
    operator = settled(share=100)
    delta = operator.save()
    full = operator.save(full=True)
    assert delta.delta
    assert_held(len(delta.data) / (ENTITIES / 100), 60, 92, "bytes of a changed entity in a delta")
    assert_held(len(delta.data) / len(full.data), 0.01, 0.022, "share of a full checkpoint that a delta of 1 % has")


# Calls and allocations of a batch


def flow_of(drivers: int) -> tuple[SourceFlow, Callable[[int], EventBatch]]:
    """A flow all of whose drivers are known, and what makes its next batch."""
    flow = SourceFlow(RIDES, [HalfHour])
    sent = [START]

    def following(size: int) -> EventBatch:
        batch = events(np.arange(sent[0], sent[0] + size) % drivers, sent[0])
        sent[0] = int(batch.time[-1]) + 1000
        return batch

    for _ in range(4):
        flow.push(following(drivers))
    return flow, following


@pytest.mark.parametrize(("size", "most"), [(1, 510), (100, 620), (1000, 540), (10_000, 740)])
def test_calls_of_a_batch_do_not_grow_with_its_events(size: int, most: int) -> None:
    """Keys of up to 128 events are looked up one by one, which is faster so."""
    flow, following = flow_of(1000)
    for _ in range(3):
        flow.push(following(size))
    batch = following(size)
    assert_held(calls(lambda: flow.push(batch)), 0.6 * most, most, f"calls for a batch of {size:,}")


def test_a_batch_of_which_all_events_concern_a_view_is_not_copied() -> None:
    batch = events(range(1000), START)
    prepared = prepare(compile_view(definition(HalfHour)), KeyTable(("driver",), ("string",)), batch)
    part = batch.take(slice(10, 20))
    for name in ("time", "effective"):
        assert np.shares_memory(getattr(prepared, name), getattr(batch, name)), f"{name} is copied for each view"
        assert np.shares_memory(getattr(part, name), getattr(batch, name)), f"{name} is copied for a slice"


def test_a_flow_at_rest_keeps_no_objects() -> None:
    """Once windows are full and tables have their size, no event leaves an object of Python behind."""
    flow, following = flow_of(1000)

    def objects_after(batches: int) -> int:
        for _ in range(batches):
            flow.push(following(1000))
        gc.collect()
        return sys.getallocatedblocks()

    first = objects_after(10)
    kept = objects_after(20) - first
    assert kept < 1000, f"{kept} objects after 20,000 further events: something is kept for each of them"


def test_memory_of_a_flow_at_rest_stays() -> None:
    operator = ShardOperator(HalfHour)
    sizes = []
    for turn in range(40):
        batch = events(np.arange(1000), START + turn * 90 * SECOND)
        operator.process(batch, int(batch.time[-1]))
        operator.settle(int(batch.time[-1]) - 10 * SECOND)
        sizes.append(operator.nbytes)
    assert sizes[-1] == sizes[25], "the window is full after twenty batches: state grows with events, not with windows"


# Rows


@pytest.mark.parametrize(("layout", "most"), [("feast", 189), ("packed", 128)])
def test_bytes_of_a_row(redis_server: RedisAddress, layout: Layout, most: int) -> None:
    """Key, names of fields and values, of a row of ten features."""
    with RedisStore(redis_server.url, layout=layout, expire=False) as store:
        store.write(Day, rows(Day, [1]))
    with redis_server.client() as client:
        keys = [key for key in client.scan_iter() if b"driver_000001" in key]
        assert len(keys) == 1
        fields: Any = client.hgetall(keys[0]) if layout == "feast" else {b"": client.get(keys[0])}
    size = len(keys[0]) + sum(len(name) + len(value) for name, value in fields.items())
    assert size == most, f"a row of ten features has {size} bytes in {len(fields)} fields, and had {most}"


# Redis


def commands(client: Any) -> dict[str, int]:
    """How often each command was called, since the last time it was asked."""
    found = {name.removeprefix("cmdstat_"): each["calls"] for name, each in client.info("commandstats").items()}
    client.config_resetstat()
    return {name: count for name, count in found.items() if name not in ("info", "config|resetstat")}


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_a_turn_of_a_flow_is_one_round_trip(redis_server: RedisAddress, layout: Layout) -> None:
    """Rows of two tasks and two views: written, with how far each task has come, at once."""
    with counted(redis_server) as way, RedisStore(way.url, layout=layout, expire=False) as store:
        for writer in ("rides-0000", "rides-0001"):
            store.take_over(writer, 1)
        for turn in range(4):
            at = START + turn
            portions = [
                Portion(writer, 1, turn, at, [(HalfHour, rows(HalfHour, drivers, at)), (Day, rows(Day, drivers, at))])
                for writer, drivers in (("rides-0000", range(5)), ("rides-0001", range(5, 10)))
            ]
            before = way.turns
            assert store.write_portions(portions) == ["written", "written"]
            if turn:  # the first registers the views
                assert way.turns == before + 1, "a turn's rows wait for Redis more than once"


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_commands_of_a_turn(new_redis: Callable[..., RedisServer], layout: Layout) -> None:
    """Two scripts whatever there is to write, and in them two commands for a row: one looks, and one writes."""
    server = new_redis()
    with RedisStore(server.url, layout=layout, expire=False) as store, server.client() as client:
        store.take_over("rides-0000", 1)
        found = []
        for turn, drivers in enumerate((1, 1, 101)):
            table = rows(HalfHour, range(drivers), START + turn)
            store.write_portions([Portion("rides-0000", 1, turn, START + turn, [(HalfHour, table)])])
            found.append(commands(client))
    _, one, many = found  # the first registers the view, and brings the scripts
    assert one["evalsha"] == many["evalsha"] == 2, "a turn sends more scripts than it did"
    assert sum(many.values()) - sum(one.values()) == 2 * 100, "a row takes more commands than it did"
    assert sum(one.values()) <= 11, f"a turn of one row takes more commands than it did: {one}"


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_a_request_to_the_lookup_server_is_one_round_trip(redis_server: RedisAddress, layout: Layout) -> None:
    with RedisStore(redis_server.url, layout=layout, expire=False) as store:
        for view in (HalfHour, Day):
            store.write(view, rows(view, range(5)))
    body = json.dumps({
        "features": ["half_hour:rides", "half_hour:mean", "day:total_1h"],
        "entities": {"driver": [f"driver_{each:06d}" for each in range(5)]},
    }).encode()  # fmt: skip
    scope = {"type": "http", "method": "POST", "path": "/get-online-features", "query_string": b"",
             "headers": [(b"content-type", b"application/json")]}  # fmt: skip

    async def asked(url: str, turns: Callable[[], int]) -> list[int]:
        found = []
        async with AsyncClient(url, [HalfHour, Day], layout=layout) as client:
            app = lookup_app(client)
            for _ in range(4):
                before, sent = turns(), []

                async def receive() -> dict[str, Any]:
                    return {"type": "http.request", "body": body, "more_body": False}

                async def send(message: Any, sent: list[Any] = sent) -> None:
                    sent.append(message)

                await app(scope, receive, send)
                assert sent[0]["status"] == 200, sent
                found.append(turns() - before)
        return found

    with counted(redis_server) as way:
        _, *others = asyncio.run(asked(way.url, lambda: way.turns))
    assert others == [1, 1, 1], "a request waits for Redis more than once"


@pytest.mark.parametrize(("layout", "ten", "each"), [("feast", 370, 7.0), ("packed", 290, 15.0)])
def test_calls_of_a_lookup(redis_server: RedisAddress, layout: Layout, ten: int, each: float) -> None:
    with RedisStore(redis_server.url, layout=layout, expire=False) as store:
        store.write(Day, rows(Day, range(200)))
    with Client(redis_server.url, [Day], layout=layout) as client:

        def lookup(entities: int) -> int:
            keys = {"driver": [f"driver_{each:06d}" for each in range(entities)]}
            client.features([Day], keys)
            # The least of five: an answer may come in two pieces, and each more costs a few calls.
            return min(calls(lambda: client.features([Day], keys)) for _ in range(5))

        few, many = lookup(10), lookup(110)
    assert_held(few, 0.6 * ten, ten, f"calls for a lookup of ten entities, {layout}")
    assert_held(
        (many - few) / 100, 0.6 * each, each, f"calls for each further entity of a lookup, of ten features, {layout}"
    )
