"""Many views and many entities cost one round trip to Redis, whichever client asks and however rows lie there."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.servers.fixtures import RedisAddress

from headrace.features import Entity, FeatureView
from headrace.serving import AsyncClient, Client, RowCache
from headrace.stores.online import StoredRow
from headrace.stores.opening import Layout
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, VISITS, Visit, Visits, row, rows_of

ENTITIES = {"user": ["a", "b", "c", "new", "a"], "shop": [1, 2, 3, 1, 9]}
"""Three rows of users, one of a shop that is there; few enough for one packet each way."""


class Shops(FeatureView, source=VISITS, entity=Entity("shop", key="shop")):
    visits = Visit.count(last="1h")


class Recent(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="1h"):
    seen = Visit.count(last="1h")


class CountingWay:
    """A way to a server, for one connection at a time or several.

    Attributes:
        url: of the way. turns: how often somebody asked after an answer had come: the round trips.
    """

    def __init__(self, server: RedisAddress, port: int) -> None:
        self.url = server.url.replace(str(server.port), str(port))
        self.turns = 0

    def connect(self, client: socket.socket, server: socket.socket) -> None:
        """Carry what both say until one of them closes."""
        answered = threading.Event()
        answered.set()

        def out() -> None:
            while said := client.recv(1 << 20):
                if answered.is_set():
                    answered.clear()
                    self.turns += 1
                server.sendall(said)
            server.shutdown(socket.SHUT_WR)

        asking = threading.Thread(target=out)
        asking.start()
        while said := server.recv(1 << 20):
            answered.set()
            client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        asking.join()
        client.close()
        server.close()


@contextmanager
def counted(server: RedisAddress) -> Iterator[CountingWay]:
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        way = CountingWay(server, listener.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                far = socket.create_connection(("127.0.0.1", server.port))
                threads.append(threading.Thread(target=way.connect, args=(client, far)))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield way
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


def fill(url: str, layout: Layout) -> None:
    with RedisStore(url, layout=layout) as store:
        store.write(Visits, rows_of(Visits, [({"user": user}, row(0, visits=at)) for at, user in enumerate("abc")]))
        store.write(Recent, rows_of(Recent, [({"user": "a"}, StoredRow({"seen": 1}, AT, AT))]))
        store.write(Shops, rows_of(Shops, [({"shop": 1}, StoredRow({"visits": 7}, AT, AT))]))


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_a_lookup_is_one_round_trip(redis_server: RedisAddress, layout: Layout) -> None:
    fill(redis_server.url, layout)
    with counted(redis_server) as way, Client(way.url, [Visits, Shops, Recent], layout=layout) as client:
        client.features([Visits, Shops, Recent], ENTITIES)  # connects, and reads what the views' rows are
        for _ in range(3):
            before = way.turns
            table = client.features([Visits, Shops, Recent], ENTITIES)
            assert way.turns == before + 1
            assert [found[0] for found in table.rows] == [0, 1, 2, 0, 0]
            assert table["shops__visits"] == (7, 0, 0, 7, 0)


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_with_asyncio_too(redis_server: RedisAddress, layout: Layout) -> None:
    fill(redis_server.url, layout)

    async def ask(way: CountingWay) -> None:
        async with AsyncClient(way.url, [Visits, Shops, Recent], layout=layout) as client:
            await client.features([Visits, Shops, Recent], ENTITIES)
            for _ in range(3):
                before = way.turns
                table = await client.features([Visits, Shops, Recent], ENTITIES)
                assert way.turns == before + 1
                assert table["shops__visits"] == (7, 0, 0, 7, 0)

    with counted(redis_server) as way:
        asyncio.run(ask(way))


def test_rows_that_are_kept_cost_none(redis_server: RedisAddress) -> None:
    fill(redis_server.url, "feast")
    cache = RowCache("1h")
    with counted(redis_server) as way, Client(way.url, [Visits, Shops, Recent], cache=cache) as client:
        first = client.features([Visits, Shops, Recent], ENTITIES)
        before = way.turns
        assert client.features([Visits, Shops, Recent], ENTITIES).rows == first.rows
        assert way.turns == before
