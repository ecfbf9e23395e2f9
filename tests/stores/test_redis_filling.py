"""Filling a Redis store: row for row what its `write` makes, whatever changes meanwhile."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from tests.servers.fixtures import RedisAddress

from headrace.features.views import definition
from headrace.stores.errors import SchemaMismatchError
from headrace.stores.filling import filling
from headrace.stores.memory import MemoryStore
from headrace.stores.online import StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.redis_filling import RedisFilling
from headrace.stores.redis_portions import PortionSender
from headrace.stores.testing import AT, FULL, NULLS, EveryType, Visits, row, rows_of

DAY_US = 86_400_000_000
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGER = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[str, st.SearchStrategy[Any]] = {name: st.sampled_from([FULL[name], NULLS[name]]) for name in FULL}


def hashes(client: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    return {key: client.hgetall(key) for key in client.scan_iter() if not key.startswith(b"{headrace")}


def emptied(client: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    """What was there, and is no more."""
    found = hashes(client)
    client.flushdb()
    return found


def visits(users: list[str], at: int, visits: int = 1) -> pa.Table:
    """Rows as of `at` microseconds after AT."""
    return rows_of(Visits, [({"user": user}, row(at, visits)) for user in users])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hashes_are_those_of_write(redis_server: RedisAddress, data: st.DataObject) -> None:
    keys = st.fixed_dictionaries({"user": TEXT, "shop": INTEGER, "token": st.binary(max_size=5)})
    rows = st.builds(
        StoredRow,
        st.fixed_dictionaries(VALUES),
        st.integers(-DAY_US, DAY_US).map(lambda us: AT + us),
        st.integers(-DAY_US, 0).map(lambda us: AT + us),
    )
    some = rows_of(EveryType, data.draw(st.lists(st.tuples(keys, rows), min_size=1, max_size=8)))
    at = data.draw(st.integers(0, some.num_rows))
    with redis_server.client() as client, RedisStore(redis_server.url, expire=False) as store:
        client.flushdb()
        store.write(EveryType, some)
        written = emptied(client)
        with store.filling(EveryType) as filled:
            filled.write(some.slice(0, at))
            filled.write(some.slice(at))
            filled.flush()
        assert hashes(client) == written


def test_nan_is_a_number_of_ours(redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url) as store:
        with store.filling(Visits) as filled:
            filled.write(rows_of(Visits, [({"user": "a"}, row(0, 1, float("nan")))]))
            assert filled.flush() == 1
        (found,) = store.read(Visits, [{"user": "a"}])
    assert found is not None
    assert str(found.values["total"]) == "nan"


def test_flush_counts_what_was_not_older_since_the_last(redis_server: RedisAddress) -> None:
    users = [f"user {number}" for number in range(1000)]
    with RedisStore(redis_server.url, expire=False) as store:
        store.write(Visits, visits(users[:10], 1, 5))
        with filling(store, Visits) as filled:
            assert isinstance(filled, RedisFilling)
            filled.write(visits(users, 0))
            assert filled.flush() == 990
            assert filled.flush() == 0
            filled.write(visits(users[:20], 1, 2))
            filled.write(visits(users[:5], 2, 3))
            assert filled.flush() == 25
        found = store.read(Visits, [{"user": user} for user in users[:21]])
    assert found == [row(2, 3)] * 5 + [row(1, 2)] * 15 + [row(0)]


@pytest.mark.parametrize("store", ["memory", "packed"])
def test_other_stores_are_filled_by_write(store: str, redis_server: RedisAddress) -> None:
    with closing(MemoryStore() if store == "memory" else RedisStore(redis_server.url, layout="packed")) as made:
        with filling(made, Visits) as filled:
            filled.write(visits(["a", "b"], 0))
            filled.write(visits(["a"], -1))
            assert filled.flush() == 2
            assert filled.flush() == 0
        assert made.read(Visits, [{"user": "a"}]) == [row(0)]


@pytest.mark.parametrize("ttl_us", [DAY_US, None])
@pytest.mark.parametrize("before", ["nothing", "sooner", "later", "for ever"])
def test_keys_end_as_after_write(redis_server: RedisAddress, ttl_us: int | None, before: str) -> None:
    with redis_server.client() as client, RedisStore(redis_server.url) as store:
        (seconds, _) = client.time()
        now = seconds * 1_000_000
        mortal = dataclasses.replace(definition(Visits), ttl_us=DAY_US)
        view = dataclasses.replace(mortal, ttl_us=ttl_us)

        def ends() -> int:
            (key,) = hashes(client)
            return int(client.pexpiretime(key))

        def prepare() -> None:
            client.flushdb()
            store.views()
            store.write(mortal, visits(["a"], now - AT - 1000))
            (key,) = hashes(client)
            if before == "nothing":
                client.delete(key)
            elif before == "for ever":
                client.persist(key)
            else:
                client.pexpireat(key, now // 1000 + (1000 if before == "sooner" else 10**9))

        prepare()
        with RedisStore(redis_server.url) as other:
            other.write(view, visits(["a"], now - AT))
        expected = ends()
        prepare()
        with RedisStore(redis_server.url) as other, other.filling(view) as filled:
            filled.write(visits(["a"], now - AT))
            filled.flush()
        assert ends() == pytest.approx(expected, abs=60_000)
        assert (expected == -1) == (ttl_us is None)


def test_views_that_change_meanwhile(redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"user {number}" for number in range(200)]
    prepared, left = PortionSender._prepare, [3]

    def disturbed(sender: PortionSender, *portion: Any) -> None:
        prepared(sender, *portion)
        if left[0]:
            left[0] -= 1
            with redis_server.client() as client:
                client.hset("{headrace:headrace}:views", "", f"changed {left[0]}")

    monkeypatch.setattr(PortionSender, "_prepare", disturbed)
    with RedisStore(redis_server.url) as store:
        with store.filling(Visits) as filled:
            filled.write(visits(users, 0))
            filled.flush()
        assert left == [0]
        assert store.read(Visits, [{"user": user} for user in users]) == [row(0)] * 200


def test_rows_of_another_definition_are_refused(redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url) as store:
        store.write(Visits, visits(["a"], 0))
        with store.filling(Visits) as filled, pytest.raises(SchemaMismatchError):
            filled.write(visits(["a"], 0).drop_columns(["visits"]))
    with RedisStore(redis_server.url, layout="packed") as other, pytest.raises(SchemaMismatchError):
        filling(other, Visits).write(visits(["a"], 0))
