"""The client of asyncio answers as the other one does, and never mixes up its tasks."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer

from headrace.serving import AsyncClient, Client, RetryBudget
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import SchemaMismatchError, UnreachableError
from headrace.stores.memory import MemoryStore
from headrace.stores.redis import RedisStore
from headrace.stores.testing import EveryType, Visits, row, rows_of

USERS = [f"u{at}" for at in range(200)]


def filled(store: Any) -> Any:
    store.write(Visits, rows_of(Visits, [({"user": user}, row(0, visits=at)) for at, user in enumerate(USERS)]))
    return store


@pytest.mark.parametrize("kind", ["memory", "embedded", "feast", "packed"])
def test_it_answers_as_the_client_of_threads(kind: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    if kind == "memory":
        store: Any = MemoryStore()
    elif kind == "embedded":
        store = EmbeddedStore(tmp_path)
    else:
        store = RedisStore(request.getfixturevalue("redis_server").url, layout=kind)  # type: ignore[arg-type]

    async def ask() -> None:
        entities = {"user": ["u3", "new", "u7"]}
        async with AsyncClient(filled(store), [Visits]) as client:
            table, plain = await client.features(["visits"], entities), Client(store, [Visits])
            assert table.rows == plain.features(["visits"], entities).rows == [(3, 1.0), (0, 0), (7, 1.0)]
            assert table.statuses == plain.features(["visits"], entities).statuses
            assert await client.get("visits", user="u5") == plain.get("visits", user="u5")
            many = [{"user": "u1"}, {"user": "new"}]
            assert (await client.get_many("visits", many)).to_dicts() == plain.get_many("visits", many).to_dicts()

    asyncio.run(ask())
    store.close()


def test_tasks_that_are_cancelled_leave_no_answer_to_others(redis_server: RedisAddress) -> None:
    """300 tasks share 4 connections, a third of them is cancelled at some moment; the others get their own entities."""
    draw = random.Random(3)

    async def ask() -> int:
        with RedisStore(redis_server.url) as store:
            async with AsyncClient(filled(store), [Visits], connections=4) as client:

                async def one(at: int, patience_s: float | None) -> bool:
                    places = [(at * 7 + step) % len(USERS) for step in range(at % 5 + 1)]
                    entities = {"user": [USERS[place] for place in places]}
                    try:
                        table = await asyncio.wait_for(client.features(["visits:visits"], entities), patience_s)
                    except TimeoutError:
                        return False
                    assert table.rows == [(place,) for place in places]
                    return True

                waits = [draw.choice([None, None, draw.random() / 50]) for _ in range(300)]
                return sum(await asyncio.gather(*[one(at, wait) for at, wait in enumerate(waits)]))

    assert asyncio.run(ask()) >= 150


def test_a_stalled_server_costs_the_timeout_and_no_more(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    store = filled(RedisStore(server.url))

    async def ask() -> float:
        async with AsyncClient(store, [Visits], timeout_s=0.3, retries=RetryBudget(1.0)) as client:
            assert (await client.features(["visits"], {"user": ["u1"]})).rows == [(1, 1.0)]
            server.pause()
            start = time.monotonic()
            with pytest.raises(UnreachableError):
                await client.features(["visits"], {"user": ["u1"]})
            spent = time.monotonic() - start
            server.resume()
            assert (await client.features(["visits"], {"user": ["u2"]})).rows == [(2, 1.0)]
            server.restart(empty=True)
            assert (await client.features(["visits"], {"user": ["u2"]})).statuses[0] == ("NOT_FOUND",)
            return spent

    assert asyncio.run(ask()) < 2.0
    store.close()


def test_a_view_that_fails_alone_leaves_the_others(redis_server: RedisAddress) -> None:
    store = filled(RedisStore(redis_server.url))
    store.write(EveryType, rows_of(EveryType, []))
    other = RedisStore(redis_server.url, layout="packed")

    async def ask() -> None:
        async with AsyncClient(other, [Visits], on_failure="partial") as client:
            table = await client.features(["visits"], {"user": ["u1"]})
            assert table.statuses == (("FAILED",), ("FAILED",))
            assert isinstance(table.failures["visits"], SchemaMismatchError)
        async with AsyncClient(other, [Visits]) as client:
            with pytest.raises(SchemaMismatchError, match="layout='feast'"):
                await client.features(["visits"], {"user": ["u1"]})

    asyncio.run(ask())
    store.close()
    other.close()
