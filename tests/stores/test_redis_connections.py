"""Connections of the Redis store: many threads, forked processes, connections that the server closed."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.servers.cutting import cutting
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer
from tests.stores.redis_topologies import with_tls

from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.layout import row_layout
from headrace.stores.lookups import Ask
from headrace.stores.online import Portion
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, Visits, row, rows_of

KEY = {"user": "a"}
SRC = Path(__file__).parents[2] / "src"


def rows(at: int) -> Any:
    return rows_of(Visits, [(KEY, row(at))])


def test_more_threads_than_connections_wait_for_each_other(redis_server: RedisAddress) -> None:
    store = RedisStore(redis_server.url, connections=2)
    store.write(Visits, rows(1))
    found: list[Any] = []

    def read() -> None:
        for _ in range(20):
            found.append(store.read(Visits, [KEY]))

    threads = [threading.Thread(target=read, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[row(1)]] * 160
    store.close()


def test_connections_that_the_server_closed_are_opened_again(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()  # of its own: it closes the connections of others too
    with RedisStore(server.url) as store, server.client() as client:
        store.take_over("w", 1)
        store.write(Visits, rows(1))
        for call in (
            lambda: store.read(Visits, [KEY]),
            lambda: store.write(Visits, rows(2)),
            lambda: store.write_portions([Portion("w", 1, 1, AT, [(Visits, rows(3))])]),
        ):
            client.client_kill_filter(_type="normal", skipme=True)
            call()
        assert store.read(Visits, [KEY]) == [row(3)]


def test_a_forked_child_has_connections_of_its_own(redis_server: RedisAddress) -> None:
    """A model server that looks a feature up before it forks its workers; both go on asking at the same time."""
    with RedisStore(redis_server.url) as store:
        store.write(Visits, rows(1))
        child = os.fork()
        if not child:
            right = all(store.read(Visits, [KEY]) == [row(1)] for _ in range(200))
            os._exit(0 if right else 1)
        assert all(store.read(Visits, [KEY]) == [row(1)] for _ in range(200))
        assert os.waitpid(child, 0)[1] == 0


def test_without_hiredis_it_is_slower_and_the_same(redis_server: RedisAddress) -> None:
    code = """
        import sys
        sys.modules["hiredis"] = None
        from headrace.stores.redis import RedisStore
        from headrace.stores.testing import Visits, row, rows_of
        with RedisStore(sys.argv[1]) as store:
            store.write(Visits, rows_of(Visits, [({"user": "a"}, row(1))]))
            print(store.read(Visits, [{"user": "a"}, {"user": "b"}]) == [row(1), None])
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), redis_server.url],
        env=os.environ | {"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_a_closed_store_says_so(redis_server: RedisAddress) -> None:
    store = RedisStore(redis_server.url)
    store.close()
    store.close()
    with pytest.raises(StoreError, match=r"is closed\. Open another store"):
        store.read(Visits, [KEY])


def test_lookups_of_more_threads_than_connections_wait_for_each_other(new_redis: Callable[..., RedisServer]) -> None:
    """8 threads on 2 connections get their own rows; a thread that waits too long says so."""
    server = new_redis()
    store = RedisStore(server.url, connections=2, timeout_s=20)
    users = [f"u{at}" for at in range(50)]
    store.write(Visits, rows_of(Visits, [({"user": user}, row(0, visits=at)) for at, user in enumerate(users)]))
    layout, wrong = row_layout(Visits), []

    def look(at: int) -> None:
        for step in range(at, at + 60):
            looked = store.look_up([Ask(layout, ("visits",), [(users[step % 50],), ("none",)])])
            if [each and each[0] for each in looked.rows[0]] != [(step % 50,), None]:
                wrong.append(looked)

    threads = [threading.Thread(target=look, args=(at,), daemon=True) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    with server.client() as client:
        assert len(client.client_list()) <= 1 + 1 + 2  # this one, the one that wrote, and those of lookups
    store.close()


def test_a_lookup_waits_no_longer_for_a_connection_than_for_an_answer(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    ask = Ask(row_layout(Visits), ("visits",), [("a",)])
    with RedisStore(server.url, connections=1, timeout_s=0.5) as store:
        store.write(Visits, rows(1))
        store.look_up([ask])
        server.pause()
        found: list[str] = []

        def look() -> None:
            try:
                store.look_up([ask])
            except UnreachableError as error:
                found.append(str(error))

        threads = [threading.Thread(target=look, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        server.resume()
        assert len(found) == 3
        assert all("within 0.5 s" in each for each in found)
        assert store.look_up([ask]).rows[0][0] is not None


def test_lookups_after_the_server_closed_all_connections(new_redis: Callable[..., RedisServer]) -> None:
    ask = Ask(row_layout(Visits), ("visits",), [("a",)])
    server = new_redis()  # of its own: it closes the connections of others too
    with RedisStore(server.url) as store, server.client() as client:
        store.write(Visits, rows(1))
        for _ in range(3):
            store.look_up([ask])
            client.client_kill_filter(_type="normal", skipme=True)
        assert store.look_up([ask]).rows[0][0] is not None


def test_lookups_in_a_forked_child_have_connections_of_their_own(redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url) as store:
        users = [f"u{at}" for at in range(50)]
        store.write(Visits, rows_of(Visits, [({"user": user}, row(0, visits=at)) for at, user in enumerate(users)]))
        layout = row_layout(Visits)

        def right(start: int) -> bool:
            found = [store.look_up([Ask(layout, ("visits",), [(users[at % 50],)])]) for at in range(start, start + 200)]
            return [each.rows[0][0][0][0] for each in found if each.rows[0][0]] == [
                at % 50 for at in range(start, start + 200)
            ]

        assert right(0)
        child = os.fork()
        if not child:
            os._exit(0 if right(7) else 1)
        assert right(23)
        assert os.waitpid(child, 0)[1] == 0


def test_a_stalled_server_over_tls_costs_the_timeout(new_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    servers: list[RedisServer] = []

    def start(**options: Any) -> RedisServer:
        servers.append(new_redis(**options))
        return servers[-1]

    port, trusted = with_tls(start, tmp_path)
    ask = Ask(row_layout(Visits), ("visits",), [("a",)])
    with RedisStore(f"rediss://localhost:{port}/0?ssl_ca_certs={trusted}", timeout_s=0.5) as store:
        store.write(Visits, rows(1))
        store.look_up([ask])
        servers[0].pause()
        with pytest.raises(UnreachableError, match=r"within 0\.5 s"):
            store.look_up([ask])
        servers[0].resume()
        assert store.look_up([ask]).rows[0][0] is not None


def test_a_lookup_whose_answer_breaks_off_is_made_again_once(redis_server: RedisAddress) -> None:
    """At every place where an answer may break off; and when the second one breaks off too, it is an error."""
    users = [f"u{at}" for at in range(100)]
    with RedisStore(redis_server.url) as store:
        store.write(Visits, rows_of(Visits, [({"user": user}, row(0, visits=at)) for at, user in enumerate(users)]))
    ask = Ask(row_layout(Visits), ("visits",), [(user,) for user in users])

    def looked(url: str) -> list[int]:
        with RedisStore(url, timeout_s=10) as store:
            return [each[0][0] for each in store.look_up([ask]).rows[0] if each is not None]

    async def through(*cuts: int | None) -> list[int]:
        # First comes the connection on which the views are looked at.
        async with cutting(redis_server, [None, *cuts]) as url:
            return await asyncio.to_thread(looked, url)

    draw = random.Random(5)
    for cut in (draw.randrange(200, 2000) for _ in range(15)):
        assert asyncio.run(through(cut)) == list(range(100)), cut
    with pytest.raises(UnreachableError, match="does not answer: ConnectionResetError"):
        asyncio.run(through(500, 500))


def test_a_lookup_answered_in_another_language_is_an_error() -> None:
    from headrace.stores.redis_direct import DirectConnection

    ours, theirs = socket.socketpair()

    class Connection:
        """Of redis-py."""

        _sock = ours

        def connect(self) -> None: ...

        def disconnect(self) -> None:
            ours.close()

    for said, told in ((b"?what\r\n", "ProtocolError"), (b"+OK\r\n" * 3, "nobody asked for")):
        connection = DirectConnection(Connection(), 5)
        theirs.sendall(said)
        with pytest.raises(redis.ConnectionError, match=told):
            connection.exchange(b"", 2)
    ours.close()
    theirs.close()
