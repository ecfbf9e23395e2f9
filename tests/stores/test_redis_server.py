"""The Redis store when something goes wrong: servers that stall, restart empty or refuse, writers that come late."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer
from tests.stores.late import LateStore

from headrace.features import Entity, FeatureView
from headrace.stores.errors import SchemaMismatchError, StoreError, UnreachableError
from headrace.stores.layout import row_layout
from headrace.stores.online import Portion, Reached, StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, VISITS, Visit, Visits, row, rows_of

KEY = {"user": "a"}
LAYOUTS = ("feast", "packed")


def portion(position: int, *rows: StoredRow, epoch: int = 1) -> Portion:
    table = rows_of(Visits, [(KEY, each) for each in rows])
    return Portion("w", epoch, position, AT, [(Visits, table)] if rows else [])


# Order


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_many_writers_the_newest_row_stays(redis_server: RedisAddress, layout: Any) -> None:
    """8 threads write rows of 5 entities at instants in no order; the greatest instant of each is what is left."""
    import random

    draw = random.Random(7)
    work = [[(draw.randrange(5), draw.randrange(10**6)) for _ in range(150)] for _ in range(8)]
    store = RedisStore(redis_server.url, layout=layout)

    def write(rows: list[tuple[int, int]]) -> None:
        for start in range(0, len(rows), 5):
            some = rows[start : start + 5]
            store.write(Visits, rows_of(Visits, [({"user": str(user)}, row(at, at)) for user, at in some]))

    threads = [threading.Thread(target=write, args=(rows,), daemon=True) for rows in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    newest = {user: max(at for rows in work for who, at in rows if who == user) for user in range(5)}
    found = store.read(Visits, [{"user": str(user)} for user in newest])
    assert found == [row(at, at) for at in newest.values()]
    store.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_portion_that_arrives_after_the_next_run_has_begun_changes_nothing(
    redis_server: RedisAddress, layout: Any
) -> None:
    with LateStore(redis_server.url, layout=layout) as zombie, RedisStore(redis_server.url, layout=layout) as store:
        zombie.take_over("w", 1)
        assert zombie.write_portions([portion(1, row(1))]) == ["written"]
        zombie.hold = True
        with pytest.raises(UnreachableError):
            zombie.write_portions([portion(2, row(5, visits=2))])
        assert store.take_over("w", 2) == Reached(1, AT)
        assert store.write_portions([portion(3, row(5, visits=3), epoch=2)]) == ["written"]
        gate, written = zombie.arrive()
        assert (gate, written) == (b"fenced", -1)
        assert store.read(Visits, [KEY]) == [row(5, visits=3)]
        assert store.take_over("w", 2) == Reached(3, AT)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_portion_that_arrives_after_the_one_that_followed_it_changes_nothing(
    redis_server: RedisAddress, layout: Any
) -> None:
    """A correction has the instant of the row it corrects; the row must not come back when the network was slow."""
    with LateStore(redis_server.url, layout=layout) as store:
        store.take_over("w", 1)
        store.write_portions([portion(1)])
        store.write(Visits, rows_of(Visits, [({"user": "b"}, row(1))]))  # the view is known from here on
        store.hold = True
        with pytest.raises(UnreachableError):
            store.write_portions([portion(2, row(5, visits=2))])
        store.hold = False
        assert store.write_portions([portion(2, row(5, visits=3))]) == ["written"]
        assert store.arrive() == [b"fenced", -1]
        assert store.read(Visits, [KEY]) == [row(5, visits=3)]
        assert store.write_portions([portion(4)]) == ["written"]


def test_two_processes_with_one_epoch_are_told_apart(redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url) as one, RedisStore(redis_server.url) as two:
        one.take_over("w", 1)
        two.take_over("w", 1)
        assert one.write_portions([portion(9, row(1))]) == ["fenced"]
        assert two.write_portions([portion(1, row(1))]) == ["written"]


# Loss


def test_a_server_that_restarts_empty_has_lost_the_rows(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    with RedisStore(server.url) as store:
        store.take_over("w", 1)
        assert store.write_portions([portion(1, row(1))]) == ["written"]
        server.restart()
        assert store.write_portions([portion(2, row(2))]) == ["lost"]
        assert store.read(Visits, [KEY]) == [None]
        assert store.take_over("w", 1) is None
        assert store.write_portions([portion(2, row(2))]) == ["written"]
        assert store.read(Visits, [KEY]) == [row(2)]


def test_a_server_that_restarts_with_its_data_goes_on(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis(persist=True)
    with RedisStore(server.url) as store:
        store.take_over("w", 1)
        assert store.write_portions([portion(1, row(1))]) == ["written"]
        server.restart()
        assert store.read(Visits, [KEY]) == [row(1)]
        assert store.write_portions([portion(2, row(2))]) == ["written"]
        server.restart()
        assert store.take_over("w", 2) == Reached(2, AT)
        assert store.read(Visits, [KEY]) == [row(2)]


def test_data_of_an_older_moment_is_noticed_too(redis_server: RedisAddress) -> None:
    """As after a failover to a replica that lagged, or a restart from an older dump."""
    with RedisStore(redis_server.url) as store, redis_server.client() as client:
        store.take_over("w", 1)
        store.write_portions([portion(1, row(1))])
        key = b"{headrace:headrace}:writer:w"
        then = client.hgetall(key)
        store.write_portions([portion(2, row(2))])
        client.hset(key, mapping=then)
        assert store.write_portions([portion(3, row(3))]) == ["lost"]
        assert store.take_over("w", 1) == Reached(1, AT)
        assert store.write_portions([portion(3, row(3))]) == ["written"]


def test_scripts_that_the_server_forgot_are_given_to_it_again(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()  # of its own: scripts are forgotten for all databases
    with RedisStore(server.url) as store, server.client() as client:
        store.take_over("w", 1)
        client.script_flush()
        assert store.write_portions([portion(1, row(1))]) == ["written"]
        client.script_flush()
        assert store.write(Visits, rows_of(Visits, [(KEY, row(2))])) == 1
        client.script_flush()
        store.set_clock(5, "wall")
        assert store.clock() == (5, "wall")


# Servers that cannot answer


def test_a_stalled_server_is_unreachable_within_the_timeout_and_then_goes_on(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis()
    with RedisStore(server.url, timeout_s=0.3) as store:
        store.take_over("w", 1)
        assert store.write_portions([portion(1, row(1))]) == ["written"]
        server.pause()
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=r"Redis at redis://127.0.0.1:\d+/0 does not answer"):
            store.write_portions([portion(2, row(2))])
        with pytest.raises(UnreachableError):
            store.read(Visits, [KEY])
        assert time.monotonic() - began < 3
        server.resume()
        assert store.write_portions([portion(2, row(2)), portion(3, row(3))]) == ["written", "written"]
        assert store.read(Visits, [KEY]) == [row(3)]


def test_a_server_that_is_gone_is_unreachable_until_it_is_back(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis(persist=True)
    with RedisStore(server.url, timeout_s=1) as store:
        store.take_over("w", 1)
        server.kill()
        for call in (
            lambda: store.take_over("w", 2),
            lambda: store.write_portions([portion(1, row(1))]),
            lambda: store.read(Visits, [KEY]),
            lambda: store.clock(),
            lambda: store.views(),
            lambda: list(store.scan(Visits)),
        ):
            with pytest.raises(UnreachableError, match="does not answer"):
                call()
        server.start()
        assert store.write_portions([portion(1, row(1))]) == ["written"]


def test_a_server_without_memory_or_turned_replica_is_tried_again(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    with RedisStore(server.url) as store, server.client() as client:
        store.take_over("w", 1)
        store.write_portions([portion(1, row(1))])
        client.config_set("maxmemory", "1mb")
        with pytest.raises(UnreachableError, match="cannot do it just now"):
            store.write_portions([portion(2, row(2))])
        assert store.read(Visits, [KEY]) == [row(1)]
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(UnreachableError):
            store.write_portions([portion(2, row(2))])
        client.replicaof("NO", "ONE")
        assert store.write_portions([portion(2, row(2))]) == ["written"]


def test_a_password_is_asked_for_and_never_shown(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis(options=("--requirepass", "s3cret-word"))
    right, wrong = server.url.replace("//", "//:s3cret-word@"), server.url.replace("//", "//:wr0ng-word@")
    with RedisStore(right) as store:
        store.write(Visits, rows_of(Visits, [(KEY, row(1))]))
        assert store.read(Visits, [KEY]) == [row(1)]
        assert "s3cret" not in repr(store) + repr(store.address)
    for url in (wrong, server.url):
        with RedisStore(url) as store, pytest.raises(StoreError, match="does not let us in") as failed:
            store.read(Visits, [KEY])
        assert not isinstance(failed.value, UnreachableError)
        assert "word" not in str(failed.value).replace("password", "")


def test_a_user_with_few_rights_is_enough(new_redis: Callable[..., RedisServer]) -> None:
    rights = ("+@read", "+@write", "+@connection", "+@scripting", "+@transaction", "+time")
    flow = ("--user", "flow", "on", ">pw", "~*", *rights)
    model = ("--user", "model", "on", ">pw", "~*", "+@read", "+@connection", "+@transaction")
    server = new_redis(options=(*flow, *model))
    with RedisStore(server.url.replace("//", "//flow:pw@")) as store:
        store.take_over("w", 1)
        assert store.write_portions([portion(1, row(1))]) == ["written"]
        assert list(store.scan(Visits)) == [(KEY, row(1))]
        store.set_clock(1, "wall")
        store.drop("visits")
        store.write(Visits, rows_of(Visits, [(KEY, row(1))]))
    with RedisStore(server.url.replace("//", "//flow:pw@"), project="mortal") as store:
        with server.client() as client:
            us = client.time()[0] * 1_000_000
        for _ in range(2):
            store.write(Day, rows_of(Day, [(KEY, StoredRow({"visits": 1}, us, us))]))
            with store.filling(Day) as rows:
                rows.write(rows_of(Day, [(KEY, StoredRow({"visits": 1}, us, us))]))
                assert rows.flush() == 1
    with RedisStore(server.url.replace("//", "//model:pw@")) as store:
        assert store.read(Visits, [KEY, {"user": "b"}]) == [row(1), None]
        with pytest.raises(StoreError, match="refuses a command"):
            store.set_clock(2, "wall")


def test_a_socket_on_this_machine(new_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    new_redis(options=("--unixsocket", str(tmp_path / "r.sock")))
    with RedisStore(f"unix://{tmp_path}/r.sock?db=2") as store:
        store.write(Visits, rows_of(Visits, [(KEY, row(1))]))
        assert store.read(Visits, [KEY]) == [row(1)]


# Expiry


class Day(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="1d"):
    visits = Visit.count(last="1h")


class Week(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="7d"):
    visits = Visit.count(last="1h")


class Always(FeatureView, source=VISITS, entity=Entity("user", key="user")):
    visits = Visit.count(last="1h")


HOUR, DAY = 3_600_000, 86_400_000


def put(store: RedisStore, view: Any, newest_ms: int) -> None:
    stored = StoredRow(dict.fromkeys(row_layout(view).feature_names, 1), newest_ms * 1000, newest_ms * 1000)
    store.write(view, rows_of(view, [(KEY, stored)]))


def left(server: RedisAddress, part: bytes = b"user") -> list[int]:
    """Days that each entity's key has left, rounded; -1: for ever."""
    with server.client() as client:
        found = [client.pttl(key) for key in client.scan_iter() if not key.startswith(b"{headrace") and part in key]
    return [each if each < 0 else round(each / DAY) for each in found]


def test_a_hash_goes_when_the_longest_ttl_of_its_views_has_passed(redis_server: RedisAddress) -> None:
    now = time.time_ns() // 1_000_000
    with RedisStore(redis_server.url) as store:
        put(store, Day, now)
        assert left(redis_server) == [1]
        put(store, Week, now)
        assert left(redis_server) == [7]
        put(store, Day, now + 1)
        assert left(redis_server) == [7]
        put(store, Week, now - 3 * DAY)  # older: not written, and nothing gets shorter
        assert left(redis_server) == [7]
        put(store, Always, now)
        assert left(redis_server) == [-1]
        put(store, Day, now + 2)
        assert left(redis_server) == [-1]


def test_a_row_that_is_too_old_already_does_not_stay(redis_server: RedisAddress) -> None:
    now = time.time_ns() // 1_000_000
    with RedisStore(redis_server.url) as store:
        put(store, Day, now - 2 * DAY)
        assert store.read(Day, [KEY]) == [None]
    with RedisStore(redis_server.url, expire=False) as replay:
        put(replay, Day, now - 2 * DAY)
        assert replay.read(Day, [KEY]) != [None]
        assert left(redis_server) == [-1]


def test_a_packed_row_goes_with_the_ttl_of_its_view(redis_server: RedisAddress) -> None:
    now = time.time_ns() // 1_000_000
    with RedisStore(redis_server.url, layout="packed") as store:
        for view in (Day, Week, Always):
            put(store, view, now)
        assert [left(redis_server, part) for part in (b":day:", b":week:", b":always:")] == [[1], [7], [-1]]
        put(store, Day, now - 5 * HOUR)
        assert left(redis_server, b":day:") == [1]


def test_a_ttl_that_is_taken_away_keeps_what_is_written_again(redis_server: RedisAddress) -> None:
    now = time.time_ns() // 1_000_000

    class Plain(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="day"):
        visits = Visit.count(last="1h")

    with RedisStore(redis_server.url) as store:
        put(store, Day, now)
    with RedisStore(redis_server.url) as store:
        put(store, Plain, now)
        assert left(redis_server) == [-1]


# What lies there


def test_packed_keys_can_be_read_by_people(redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url, project="rides", layout="packed") as store:
        for user in ("driver-7", "a:b{c}", "Zürich 1", ""):
            store.write(Visits, rows_of(Visits, [({"user": user}, row(1))]))
        assert [key["user"] for key, _ in store.scan(Visits)] == ["", "a:b{c}", "driver-7", "Zürich 1"]
    with redis_server.client() as client:
        keys = {key.decode() for key in client.scan_iter() if key.startswith(b"headrace:rides:")}
    begin = "headrace:rides:visits:"
    assert keys == {begin + "driver-7", begin + "a%3Ab%7Bc%7D", begin + "Zürich%201", begin}


def test_projects_and_layouts_are_kept_apart(redis_server: RedisAddress) -> None:
    with (
        RedisStore(redis_server.url, project="a") as one,
        RedisStore(redis_server.url, project="xa") as two,
        RedisStore(redis_server.url, project="a", layout="packed") as other,
    ):
        one.write(Visits, rows_of(Visits, [(KEY, row(1))]))
        two.write(Visits, rows_of(Visits, [(KEY, row(2))]))
        assert (one.read(Visits, [KEY]), two.read(Visits, [KEY])) == ([row(1)], [row(2)])
        assert list(one.scan(Visits)) == [(KEY, row(1))]
        with pytest.raises(SchemaMismatchError, match=r"layout='feast', not 'packed'\. Open the store with"):
            other.read(Visits, [KEY])
        two.drop("visits")
        assert one.read(Visits, [KEY]) == [row(1)]


def test_a_wide_view_fits_one_command(redis_server: RedisAddress) -> None:
    hops = [f"{minutes}m" for minutes in range(1, 1001)]

    class Wide(FeatureView, source=VISITS, entity=Entity("user", key="user")):
        visits = Visit.count(last=hops)

    names = row_layout(Wide).feature_names
    stored = StoredRow({name: at for at, name in enumerate(names)}, AT, AT)
    with RedisStore(redis_server.url) as store:
        store.write(Wide, rows_of(Wide, [(KEY, stored)]))
        assert store.read(Wide, [KEY]) == [stored]


@pytest.mark.parametrize("project", ["", "a b", "a:b", "{a}", "ü"])
def test_a_project_has_a_plain_name(project: str) -> None:
    with pytest.raises(StoreError, match="expected letters, digits"):
        RedisStore("redis://localhost", project=project)
