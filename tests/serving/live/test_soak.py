"""The soak in short: the same load and the same bounds, for seconds."""

import asyncio
from collections.abc import Callable

from tests.servers.redis import RedisServer
from tests.serving.live.process import LookupServer
from tests.serving.live.soak import soak

SECONDS, CLIENTS = 10.0, 24


def test_memory_files_and_connections_stay_flat(
    new_redis: Callable[..., RedisServer], new_server: Callable[..., LookupServer]
) -> None:
    redis = new_redis()
    server = new_server(redis.url, workers=2)
    with redis.client() as client:
        found = asyncio.run(soak(server, client, SECONDS, CLIENTS))
    assert found.troubles(CLIENTS) == []
    assert found.right > 100
    assert found.left > 10
