"""The soak in short: the same load and the same bounds, for seconds."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from tests.servers.redis import RedisServer
from tests.serving.live.process import LookupServer
from tests.serving.live.soak import Soaked, soak

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


def test_what_grows_is_told() -> None:
    flat = Soaked(10.0, 100, 0, 0, 0, 5, 0.1, 30, 200e6, 201e6, (80, 90), (8, 9))
    assert flat.troubles(24) == []
    worse = replace(flat, wrong=1, rss_last=240e6, files=(80, 200), connections=(8, 90))
    assert [each.split()[0] for each in worse.troubles(24)] == ["1", "resident", "open", "connections"]
