"""Redis behind a proxy that tears its answers: a client gives what is right, or an error, and heals."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.servers.fixtures import RedisAddress
from tests.serving.live.proxy import ShreddingProxy
from tests.serving.live.rows import USERS, expected, request_of, write
from tests.serving.live.views import checks

from headrace.serving import AsyncClient, Client, FeatureTable
from headrace.stores.errors import UnreachableError
from headrace.stores.redis import RedisStore

CALLS, AT_ONCE = 15, 16


def question(draw: random.Random) -> list[int]:
    return [draw.randrange(USERS) for _ in range(draw.randint(1, 30))]


def right(numbers: list[int], table: FeatureTable) -> None:
    wanted = expected(numbers)
    for name in ("visits", "total", "most", "above"):
        assert list(table[name]) == wanted[name]


def through(proxy: ShreddingProxy, url: str, timeout_s: float) -> RedisStore:
    return RedisStore(f"redis://127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}", timeout_s=timeout_s, connections=6)


def filled(address: RedisAddress) -> str:
    with RedisStore(address.url) as store:
        write(store)
    return address.url


@pytest.mark.parametrize("way", ["threads", "tasks"])
def test_torn_answers_are_errors_and_nothing_else(way: str, redis_server: RedisAddress) -> None:
    url = filled(redis_server)
    with ShreddingProxy(redis_server.port) as proxy, through(proxy, url, 10.0) as store:

        def by_threads() -> list[bool]:
            client = Client(store, [checks])

            def one(seed: int) -> list[bool]:
                draw, answered = random.Random(seed), []
                for _ in range(CALLS):
                    numbers = question(draw)
                    given = request_of(numbers)
                    try:
                        table = client.features("checks", given["entities"], request=given["request"])
                    except UnreachableError:
                        answered.append(False)
                        continue
                    right(numbers, table)
                    answered.append(True)
                return answered

            with ThreadPoolExecutor(AT_ONCE) as pool:
                return [each for found in pool.map(one, range(AT_ONCE)) for each in found]

        async def by_tasks() -> list[bool]:
            async def one(seed: int) -> list[bool]:
                draw, answered = random.Random(seed), []
                for _ in range(CALLS):
                    numbers = question(draw)
                    given = request_of(numbers)
                    try:
                        table = await client.features("checks", given["entities"], request=given["request"])
                    except UnreachableError:
                        answered.append(False)
                        continue
                    right(numbers, table)
                    answered.append(True)
                return answered

            async with AsyncClient(store, [checks], timeout_s=10.0, connections=6) as client:
                found = await asyncio.gather(*[one(seed) for seed in range(AT_ONCE)])
            return [each for some in found for each in some]

        def ask() -> list[bool]:
            return by_threads() if way == "threads" else asyncio.run(by_tasks())

        assert all(ask())
        proxy.tearing = 0.03
        answered: list[bool] = []
        while proxy.torn < 12 or set(answered) != {True, False}:
            answered += ask()
            assert len(answered) < 30 * CALLS * AT_ONCE, f"{proxy.torn} torn, {answered.count(False)} failed"
        proxy.tearing = 0.0
        assert all(ask())


def test_connections_on_which_nothing_more_comes(redis_server: RedisAddress) -> None:
    """Some stop in the midst of an answer and stay open: their calls time out, and they are not used again."""
    url = filled(redis_server)
    with ShreddingProxy(redis_server.port) as proxy, through(proxy, url, 1.0) as store:

        async def one(client: AsyncClient, seed: int) -> bool:
            numbers = question(random.Random(seed))
            given = request_of(numbers)
            try:
                table = await client.features("checks", given["entities"], request=given["request"])
            except UnreachableError:
                return False
            right(numbers, table)
            return True

        async def ask() -> None:
            async with AsyncClient(store, [checks], timeout_s=1.0, connections=AT_ONCE) as client:

                async def turn(number: int) -> list[bool]:
                    return await asyncio.gather(*[one(client, number * AT_ONCE + seed) for seed in range(AT_ONCE)])

                proxy.holding = 0.03
                later = 0
                while all(await turn(later)):
                    later += 1
                    assert later < 100, "no connection was held"
                assert proxy.held > 0
                proxy.holding = 0.0
                while not all(await turn(later)):
                    later += 1
                    assert later < 130, "calls still fail although every new connection is whole"

        asyncio.run(ask())
