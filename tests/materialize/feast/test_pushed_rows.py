"""What Feast pushes through HeadraceOnlineStore: Feast's bytes, and never an older row over a newer one."""

import asyncio
import random
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer
from tests.stores.redis_topologies import cluster

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.types import Int64, String
    from feast.value_type import ValueType

    from headrace.materialize.feast import HeadraceOnlineStore
    from headrace.materialize.feast.writing import goes_straight

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
DRIVER = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
SOURCE = PushSource(name="pushed", batch_source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"))
VIEW = FeatureView(
    name="activity",
    entities=[DRIVER],
    schema=[Field(name="driver", dtype=Int64), Field(name="rides", dtype=Int64), Field(name="city", dtype=String)],
    source=SOURCE,
)
Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, redis_server: RedisAddress) -> Make:
    db = redis_server.url.rpartition("/")[2]

    def a_store(kind: str = "headrace.materialize.feast.HeadraceOnlineStore", **settings: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            online = {"type": kind, "connection_string": f"127.0.0.1:{redis_server.port},db={db}", **settings}
            config = RepoConfig(
                project="pushes",
                provider="local",
                registry={"registry_type": "file", "path": str(tmp_path / "registry.db")},
                online_store=online,
                offline_store={"type": "file"},
                entity_key_serialization_version=3,
            )
            store = FeatureStore(config=config)
            store.apply([DRIVER, VIEW])
            return store

    return a_store


def a_row(driver: int, at: datetime, **values: Any) -> Any:
    kinds = {int: "int64_val", str: "string_val"}
    messages = {name: Value() if each is None else Value(**{kinds[type(each)]: each}) for name, each in values.items()}
    return EntityKey(join_keys=["driver"], entity_values=[Value(int64_val=driver)]), messages, at, None


def write(store: Any, *rows: Any) -> None:
    store._get_provider().online_write_batch(store.config, VIEW, list(rows), None)


def hashes(server: RedisAddress) -> dict[bytes, dict[bytes, bytes]]:
    with server.client() as client:
        return {key: client.hgetall(key) for key in client.scan_iter()}


def rides(store: Any, *drivers: int) -> list[int | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [{"driver": driver} for driver in drivers]
        found: list[int | None] = store.get_online_features(["activity:rides"], rows).to_dict()["rides"]
        return found


def test_the_bytes_are_feasts_own(make: Make, redis_server: RedisAddress) -> None:
    rows = [
        a_row(1, AT, rides=7, city="Zürich"),
        a_row(2, AT + timedelta(microseconds=1), rides=None, city=""),
        a_row(3, datetime(1969, 7, 20, 20, 17, tzinfo=UTC), rides=-1),  # not all features
        a_row(4, AT.replace(tzinfo=None), city="x", rides=0),  # another order; without zone it is UTC
        a_row(5, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), rides=5, city="y"),
    ]
    write(make("redis"), *rows)
    expected = hashes(redis_server)
    with redis_server.client() as client:
        client.flushdb()
    write(make(), *rows)
    assert hashes(redis_server) == expected
    assert len(expected) == 5


def test_an_older_row_never_covers_a_newer_one_and_an_equal_one_takes_its_place(make: Make) -> None:
    store, second = make(), timedelta(seconds=1)
    write(store, a_row(1, AT, rides=1), a_row(1, AT + second, rides=2), a_row(1, AT, rides=3), a_row(2, AT, rides=4))
    assert rides(store, 1, 2) == [2, 4]
    write(store, a_row(1, AT, rides=5), a_row(2, AT, rides=6))
    assert rides(store, 1, 2) == [2, 6]


def test_writers_at_the_same_time_leave_the_newest(make: Make) -> None:
    store, chance = make(), random.Random(5)
    batches = [[(driver, at) for driver in range(5) for at in chance.sample(range(1000), 4)] for _ in range(40)]

    def push(some: Any) -> None:
        for batch in some:
            write(store, *(a_row(driver, AT + timedelta(seconds=at), rides=at) for driver, at in batch))

    threads = [threading.Thread(target=push, args=(batches[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    newest = [max(at for batch in batches for driver, at in batch if driver == each) for each in range(5)]
    assert rides(store, *range(5)) == newest


def test_feasts_ways_of_pushing_end_here(make: Make) -> None:
    store = make()
    frame = pd.DataFrame({"driver": [1, 2], "rides": [8, 9], "city": ["a", "b"], "event_timestamp": [AT, AT]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.push("pushed", frame)
        assert rides(store, 1, 2) == [8, 9]
        asyncio.run(store.push_async("pushed", frame.assign(rides=[10, 11])))
        assert rides(store, 1, 2) == [10, 11]
        store.write_to_online_store("activity", frame.assign(event_timestamp=AT - timedelta(days=1)))
    assert rides(store, 1, 2) == [10, 11]


def test_in_a_cluster(make: Make, new_redis: Callable[..., RedisServer]) -> None:
    servers = cluster(new_redis)
    nodes = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    store = make(redis_type="redis_cluster", connection_string=nodes)
    write(store, *(a_row(driver, AT, rides=driver) for driver in range(30)))
    write(store, *(a_row(driver, AT + timedelta(seconds=driver - 15), rides=100) for driver in range(30)))
    assert rides(store, *range(31)) == [*range(15), *[100] * 15, None]


def test_progress_and_the_end_of_keys(make: Make, redis_server: RedisAddress) -> None:
    store, told = make(key_ttl_seconds=500), list[int]()
    online = store._get_provider().online_store
    online.online_write_batch(store.config, VIEW, [a_row(n, AT, rides=n) for n in range(3)], told.append)
    online.online_write_batch(store.config, VIEW, [], told.append)
    assert told == [3, 0]
    with redis_server.client() as client:
        assert all(0 < client.ttl(key) <= 500 for key in client.scan_iter())
        for key in client.scan_iter():
            client.persist(key)
    write(store, a_row(0, AT - timedelta(days=1), rides=9))  # not written, so nothing ends
    with redis_server.client() as client:
        assert {client.ttl(key) for key in client.scan_iter()} == {-1}


def test_what_feast_writes_without_looking_stays_feasts(make: Make) -> None:
    store = make(skip_dedup=True)
    write(store, a_row(1, AT, rides=1))
    write(store, a_row(1, AT - timedelta(days=1), rides=2))
    assert rides(store, 1) == [2]


def test_the_engine_still_writes_straight_to_redis(make: Make) -> None:
    class Work:
        def __init__(self, store: Any) -> None:
            self.online_store, self.config = store._get_provider().online_store, store.config

    class Other(HeadraceOnlineStore):
        def online_write_batch(self, *_: Any) -> None:
            """Writes somewhere else."""

    work: Any = Work(make())
    assert goes_straight(work)
    assert goes_straight(Work(make("redis")))  # type: ignore[arg-type]
    work.online_store = Other()
    assert not goes_straight(work)
