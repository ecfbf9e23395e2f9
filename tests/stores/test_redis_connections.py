"""Connections of the Redis store: many threads, forked processes, connections that the server closed."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress

from headrace.stores.errors import StoreError
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

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[row(1)]] * 160
    store.close()


def test_connections_that_the_server_closed_are_opened_again(redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url) as store, redis_server.client() as client:
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
