"""Redis is killed or stalled under load: no request hangs, no answer is wrong, and all heals by itself."""

import asyncio
from collections.abc import Callable

from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer
from tests.serving.live.load import load
from tests.serving.live.process import LookupServer
from tests.serving.live.rows import judged_without_shops
from tests.serving.live.talking import get
from tests.serving.live.views import Visit, visits

from headrace.features import Entity, FeatureView

NewServer = Callable[..., LookupServer]
NewRedis = Callable[..., RedisServer]

SLACK_S = 10.0
"""Generous: what a machine with no core to spare adds to a timeout."""


def test_redis_is_killed_and_comes_back(new_redis: NewRedis, new_server: NewServer) -> None:
    redis = new_redis(persist=True)
    server = new_server(redis.url, workers=2, settings={"timeout": "1s"})

    async def ask() -> None:
        async with load(server.port, 30) as tally:
            await tally.more(200)
            for _ in range(2):
                redis.kill()
                refused = tally.refused[503]
                await tally.until(lambda now, before=refused: now.refused[503] >= before + 60)
                assert (await asyncio.to_thread(get, server.port, "/healthz"))[0] == 200
                await server.says(ready=False)
                redis.start()
                await tally.calm(300)
                await server.says(ready=True)
            await tally.calm(500)
        assert tally.wrong == []
        assert set(tally.refused) == {503}
        assert tally.slowest_s < 1 + SLACK_S
        assert tally.torn == 0

    asyncio.run(ask())


def test_redis_drops_every_connection(new_redis: NewRedis, new_server: NewServer) -> None:
    """As a failover or a proxy does: Redis itself is well, so nobody is refused."""
    redis = new_redis()
    server = new_server(redis.url, workers=2)

    async def ask() -> None:
        with redis.client() as client:
            async with load(server.port, 30) as tally:
                for _ in range(8):
                    await tally.more(200)
                    await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await tally.more(200)
        assert (tally.wrong, tally.refused, tally.torn) == ([], {}, 0)

    asyncio.run(ask())


class ByShopBefore(FeatureView, source=visits, entity=Entity("shop", key="shop"), name="by_shop"):
    most = Visit.amount.max(last="1d")


def test_a_view_that_fails_leaves_the_others_by_option(redis_server: RedisAddress, new_server: NewServer) -> None:
    """The rows of shops were written by another definition; Redis itself is well."""
    server = new_server(redis_server.url, shops_by=ByShopBefore, settings={"on_failure": "partial"})

    async def ask() -> None:
        async with load(server.port, 10, judge=judged_without_shops) as tally:
            await tally.more(200)
        assert (tally.wrong, tally.refused, tally.torn) == ([], {}, 0)

    asyncio.run(ask())


def test_a_stalled_redis_costs_a_timeout_and_no_memory(new_redis: NewRedis, new_server: NewServer) -> None:
    """200 clients ask for three timeouts long while Redis answers nothing."""
    redis = new_redis()
    server = new_server(redis.url, settings={"timeout": "1s"})

    async def ask() -> None:
        async with load(server.port, 200) as tally:
            await tally.more(1000)
            before = server.usage()
            redis.pause()
            await tally.until(lambda now: sum(now.refused.values()) >= 600)
            during = server.usage()
            assert (await asyncio.to_thread(get, server.port, "/healthz"))[0] == 200
            await server.says(ready=False)
            redis.resume()
            await tally.calm(1000)
            await server.says(ready=True)
            after = server.usage()
        assert tally.wrong == []
        assert set(tally.refused) <= {503, 504}
        assert tally.torn == 0
        assert tally.slowest_s < 1 + SLACK_S
        assert during.rss < before.rss + (64 << 20)
        assert after.files < 200 + 100  # a connection of each client, and what the process has open anyway

    asyncio.run(ask())
