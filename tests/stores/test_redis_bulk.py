"""Bulk rows in Redis: the same hashes as Feast's, never an older row over a newer one, whoever else writes."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import redis
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer
from tests.stores.redis_bulk_rows import AT, TABLE, TIME, TRIPS, hashes, key, rows, said, write

from headrace.stores import redis_talk
from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.feast_columns import FeastTable, encode_keys
from headrace.stores.feast_rows import field_of
from headrace.stores.feast_values import read_timestamp, timestamp, varint
from headrace.stores.redis_bulk import BulkDone, BulkWriter, chunks
from headrace.stores.redis_portions import PORTION_ROWS, PortionSender, _Portion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from feast import Entity, FeatureView, Field, FileSource, RepoConfig
    from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
    from feast.types import Float64, Int64, String
    from feast.utils import _convert_arrow_to_proto
    from feast.value_type import ValueType


def test_the_hashes_are_those_that_feast_writes(
    redis_server: RedisAddress, new_redis: Callable[..., RedisServer]
) -> None:
    n = 3000
    choose = random.Random(7)
    times = [AT + choose.choice([0, 1, 10**6]) * choose.randrange(10**6) for _ in range(n)]
    table = rows(choose.sample(range(-(10**9), 10**9), n), times, [choose.randrange(-(10**6), 10**6) for _ in range(n)])
    theirs = new_redis()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = FeatureView(
            name="stats",
            entities=[Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)],
            schema=[
                Field(name="trips", dtype=Int64),
                Field(name="score", dtype=Float64),
                Field(name="name", dtype=String),
            ],
            source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
        )
        online = RedisOnlineStoreConfig(connection_string=f"127.0.0.1:{theirs.port}")
        config = RepoConfig(
            project="rides",
            provider="local",
            registry="none.db",
            online_store=online,
            entity_key_serialization_version=3,
        )
        data = _convert_arrow_to_proto(table.combine_chunks(), view, {"driver": ValueType.INT64})
        RedisOnlineStore().online_write_batch(config, view, data, None)
    assert write(redis_server.url, table) == BulkDone(n, n, 0)
    with redis_server.client() as mine, theirs.client() as other:
        assert hashes(mine) == hashes(other)


def test_older_rows_are_left_out_and_rows_of_the_same_instant_take_their_place(redis_server: RedisAddress) -> None:
    drivers = list(range(1000))
    write(redis_server.url, rows(drivers, [AT] * 1000, [1] * 1000))
    step = [-1, 0, 1]
    again = rows(drivers, [AT + step[each % 3] for each in drivers], [2] * 1000)
    assert write(redis_server.url, again) == BulkDone(1000, 666, 334)
    with redis_server.client() as client:
        for driver in drivers:
            kept = (AT, 1) if driver % 3 == 0 else (AT + step[driver % 3], 2)
            assert said(client.hgetall(key(driver))) == kept


def test_rows_of_one_run_end_at_the_newest_and_of_one_instant_at_the_last(redis_server: RedisAddress) -> None:
    choose = random.Random(3)
    drivers = [choose.randrange(40) for _ in range(4000)]
    times = [AT + choose.randrange(30) for _ in drivers]
    table = rows(drivers, times, list(range(4000)))
    done = write(redis_server.url, table.slice(0, 1500), table.slice(1500), rows_per_portion=700)
    newest: dict[int, tuple[int, int]] = {}
    for trips, (driver, at) in enumerate(zip(drivers, times, strict=True)):
        newest[driver] = max(newest.get(driver, (0, 0)), (at, trips))
    with redis_server.client() as client:
        assert {driver: said(client.hgetall(key(driver))) for driver in newest} == newest
    assert done.rows == 4000
    assert done.written + done.older == 4000


@pytest.mark.parametrize("at", [0, -1, 1, 999_999, 10**6, -(10**15), 32_503_680_000_000_000, 253_402_300_799_999_999])
def test_instants_of_every_size_are_compared(redis_server: RedisAddress, at: int) -> None:
    drivers = [1, 2, 3]
    write(redis_server.url, rows(drivers, [at] * 3, [1] * 3))
    assert write(redis_server.url, rows(drivers, [at - 1, at, at + 1], [2] * 3)) == BulkDone(3, 2, 1)
    with redis_server.client() as client:
        assert [said(client.hgetall(key(driver))) for driver in drivers] == [(at, 1), (at, 2), (at + 1, 2)]


# Others write meanwhile


class Disturber:
    """Writes to keys between the moment they are looked at and the one they are written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: redis.Redis, times: int, at: int) -> None:
        self.left, self.scripts, self.looked = times, 0, 0
        decided, by_script = PortionSender._decided, PortionSender._by_script

        def disturbed(sender: PortionSender, portion: _Portion, answers: list[Any]) -> bool:
            found = decided(sender, portion, answers)
            self.looked += portion.look
            if found and self.left:
                self.left -= 1
                client.hset(key(5), mapping={TIME: timestamp(at), TRIPS: b"\x20" + varint(99)})
            return found

        def counted(sender: PortionSender, portion: _Portion) -> None:
            self.scripts += 1
            by_script(sender, portion)

        monkeypatch.setattr(PortionSender, "_decided", disturbed)
        monkeypatch.setattr(PortionSender, "_by_script", counted)


@pytest.mark.parametrize(("times", "scripts"), [(1, 0), (2, 1)])
@pytest.mark.parametrize("newer", [True, False])
def test_who_is_disturbed_looks_again_and_then_writes_by_script(
    redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch, times: int, scripts: int, newer: bool
) -> None:
    with redis_server.client() as client:
        disturber = Disturber(monkeypatch, client, times, AT + (1 if newer else -1))
        done = write(redis_server.url, rows(list(range(20)), [AT] * 20, [7] * 20))
        assert disturber.left == 0
        assert disturber.scripts == scripts
        assert disturber.looked >= 1
        found = {driver: said(client.hgetall(key(driver))) for driver in range(20)}
    assert found.pop(5) == ((AT + 1, 99) if newer else (AT, 7))
    assert set(found.values()) == {(AT, 7)}
    assert done == (BulkDone(20, 19, 1) if newer else BulkDone(20, 20, 0))


def test_writers_at_the_same_time_leave_the_newest_row_whole(redis_server: RedisAddress) -> None:
    drivers, rounds = list(range(300)), 25
    errors: list[BaseException] = []
    going = threading.Event()

    def writer(number: int) -> None:
        choose = random.Random(number)
        try:
            with BulkWriter(redis_server.url, table=TABLE, connections=3) as bulk:
                for _ in range(rounds):
                    times = [AT + choose.randrange(10**6) * 3 + number for _ in drivers]
                    bulk.write(rows(drivers, times))
                    newest.append(dict(zip(drivers, times, strict=True)))
                bulk.finish()
        except BaseException as error:
            errors.append(error)

    def reader() -> None:
        seen: dict[int, int] = {}
        try:
            with redis_server.client() as client:
                while going.is_set():
                    driver = random.randrange(len(drivers))
                    found = client.hgetall(key(driver))
                    if found:
                        at, trips = said(found)
                        assert at == trips, "values of one row with the time of another"
                        assert at >= seen.get(driver, 0), "an older row over a newer one"
                        seen[driver] = at
        except BaseException as error:
            errors.append(error)

    newest: list[dict[int, int]] = []
    going.set()
    threads = [threading.Thread(target=writer, args=(number,)) for number in range(3)]
    watching = threading.Thread(target=reader)
    for thread in [*threads, watching]:
        thread.start()
    for thread in threads:
        thread.join()
    going.clear()
    watching.join()
    assert not errors
    with redis_server.client() as client:
        for driver in drivers:
            at = max(each[driver] for each in newest)
            assert said(client.hgetall(key(driver))) == (at, at)


# Ends of keys


def test_feasts_key_ttl_counts_from_the_writing(redis_server: RedisAddress) -> None:
    write(redis_server.url, rows([1, 2], [AT, AT]), key_ttl_s=1000)
    with redis_server.client() as client:
        assert 900 < client.ttl(key(1)) <= 1000
        client.expire(key(1), 50)
        client.expire(key(2), 50)
        write(redis_server.url, rows([1, 2], [AT - 1, AT + 1]), key_ttl_s=1000)
        assert client.ttl(key(1)) <= 50
        assert 900 < client.ttl(key(2)) <= 1000


def test_keys_end_after_the_newest_event_and_never_sooner_than_before(redis_server: RedisAddress) -> None:
    with redis_server.client() as client:
        (seconds, _) = client.time()
        now = seconds * 1_000_000
        hour = 3_600_000
        write(redis_server.url, rows([1, 2, 3], [now, now - 1, now - 2 * hour * 1000]), ttl_ms=hour)
        assert client.pexpiretime(key(1)) == now // 1000 + hour
        assert client.exists(key(3)) == 0
        client.pexpire(key(2), 2 * hour)
        client.hset(key(4), "other", "view")
        write(redis_server.url, rows([1, 2, 4], [now + 5000, now, now]), ttl_ms=hour)
        assert client.pexpiretime(key(1)) == now // 1000 + 5 + hour
        assert hour < client.pttl(key(2)) <= 2 * hour
        assert client.pexpiretime(key(4)) >= now // 1000 + hour
        with pytest.raises(StoreError, match=r"ttl_ms=1 .* key_ttl_s=2.*Give one of them"):
            write(redis_server.url, ttl_ms=1, key_ttl_s=2)


# Forms of columns, places, errors


def test_messages_that_are_ready_and_columns_that_are_cut(redis_server: RedisAddress) -> None:
    table = FeastTable("rides", "stats", (("city", 2), ("at", 3)), (("raw", None), ("trips", 4)))
    whole = pa.table(
        {
            "city": pa.chunked_array([["x", "Wien"], ["", "日本"]]),
            "at": pa.array([9, 1, 2, 3], pa.int32()),
            "event_timestamp": pa.array([AT] * 4, pa.timestamp("us")).cast(pa.timestamp("ns", "UTC")),
            "raw": pa.array([b"?", b"\x20\x01", None, b""], pa.binary()),
            "trips": [0, 300, None, -1],
        }
    )
    with BulkWriter(redis_server.url, table=table) as writer:
        writer.write(whole.slice(1))
        assert writer.finish() == BulkDone(3, 3, 0)
    keys = encode_keys(table, [whole["city"], whole["at"]]).to_pylist()[1:]
    with redis_server.client() as client:
        found = [client.hmget(each, TIME, field_of("stats", "raw"), TRIPS) for each in keys]
        assert client.dbsize() == 3
    at = timestamp(AT)
    assert found == [[at, b"\x20\x01", b"\x20\xac\x02"], [at, b"", b""], [at, b"", b"\x20" + varint(-1)]]


def test_views_of_an_entity_share_its_hash(redis_server: RedisAddress) -> None:
    other = FeastTable("rides", "other", (("driver", 4),), (("trips", 4),))
    write(redis_server.url, rows([1], [AT]))
    with BulkWriter(redis_server.url, table=other) as writer:
        writer.write(rows([1], [AT - 10]))
        assert writer.finish() == BulkDone(1, 1, 0)
    with redis_server.client() as client:
        found = client.hgetall(key(1))
    assert len(found) == 6
    assert read_timestamp(found[b"_ts:other"]) == AT - 10


def test_no_rows_at_all(redis_server: RedisAddress) -> None:
    assert write(redis_server.url) == BulkDone(0, 0, 0)
    assert write(redis_server.url, rows([], []), key_ttl_s=5) == BulkDone(0, 0, 0)


def test_wide_rows_go_in_smaller_portions(redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    prepared = PortionSender._prepare

    def noted(sender: PortionSender, portion: _Portion, *more: Any) -> None:
        sizes.append(portion.stop - portion.start)
        prepared(sender, portion, *more)

    monkeypatch.setattr(PortionSender, "_prepare", noted)
    names = [f"f{number}" for number in range(400)]
    table = FeastTable("rides", "wide", (("driver", 4),), tuple((name, 5) for name in names))
    narrow = rows(list(range(200)), [AT] * 200)
    wide = pa.table({**dict.fromkeys(names, narrow["score"]), "driver": narrow["driver"]})
    with BulkWriter(redis_server.url, table=table) as writer:
        writer.write(wide.append_column("event_timestamp", narrow["event_timestamp"]))
        assert writer.finish().written == 200
    assert max(sizes) < 10
    sizes.clear()
    write(redis_server.url, narrow)
    assert max(sizes) == PORTION_ROWS


def test_without_hiredis_scripts_write(redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_talk, "has_hiredis", lambda: False)
    drivers = list(range(600))
    assert write(redis_server.url, rows(drivers, [AT] * 600), ttl_ms=10**13) == BulkDone(600, 600, 0)
    assert write(redis_server.url, rows(drivers, [AT - 1] * 600)) == BulkDone(600, 0, 600)
    with redis_server.client() as client:
        assert client.pexpiretime(key(1)) == AT // 1000 + 10**13


def test_many_fields_become_commands_in_smaller_chunks() -> None:
    table = pa.table({f"f{number}": pa.array([True] * 20_000) for number in range(200)})
    sizes = [each.num_rows for each in chunks(table, 200)]
    assert sum(sizes) == 20_000
    assert max(sizes) < 7000
    assert [each.num_rows for each in chunks(table, 1, 15_000)] == [15_000, 5000]
    assert [each.num_rows for each in chunks(pa.table({"a": ["x" * 10_000_000] * 10}), 1)] == [3, 3, 3, 1]
    assert not list(chunks(table.slice(0, 0), 200))


def test_errors_name_the_place(redis_server: RedisAddress) -> None:
    with redis_server.client() as client:
        client.set(key(3), "no hash")
    with pytest.raises(StoreError, match=r"Redis at redis://127.0.0.1:\d+/\d+ answered: WRONGTYPE"):
        write(redis_server.url, rows([1, 2, 3], [AT] * 3))
    with pytest.raises(StoreError, match=r"View 'stats': the rows lack 'name'; they have .*Expected a column"):
        write(redis_server.url, rows([1], [AT]).drop_columns(["name"]))
    with pytest.raises(
        StoreError, match=r"View 'stats', column 'event_timestamp': 1 of 2 rows have no event timestamp"
    ):
        write(redis_server.url, rows([1, 2], [AT, None], [1, 1]))  # type: ignore[list-item]
    with pytest.raises(StoreError, match=r"View 'stats', column 'trips': A column of type string"):
        write(redis_server.url, rows([1], [AT]).set_column(2, "trips", pa.array(["1"])))
    with pytest.raises(StoreError, match="two features have the same 32 bit hash"):
        BulkWriter(redis_server.url, table=FeastTable("p", "v", (("k", 4),), (("a", 4), ("a", 4))))


def test_a_server_that_goes_away(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    with BulkWriter(server.url, table=TABLE) as writer:
        writer.write(rows([1], [AT]))
        server.kill()

        def go_on() -> None:
            writer.write(rows(list(range(2000)), [AT] * 2000))  # may find out or not
            writer.finish()

        for _ in range(2):
            with pytest.raises(UnreachableError, match=r"Redis at redis://127.0.0.1:\d+/0 does not answer"):
                go_on()
