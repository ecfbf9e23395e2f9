"""The Redis store keeps the rules of online stores, in both layouts, on a real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress

from headrace.stores.redis import RedisStore
from headrace.stores.testing import LastingStoreSuite, PositionedStoreSuite


class RedisSuite(PositionedStoreSuite, LastingStoreSuite):
    layout: Any

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisAddress) -> Iterator[None]:
        self.server = redis_server
        self.opened: list[RedisStore] = []
        yield
        for store in self.opened:
            store.close()

    def open(self, place: Path) -> RedisStore:
        self.opened.append(RedisStore(self.server.url, layout=self.layout))
        return self.opened[-1]

    def again(self, store: RedisStore) -> RedisStore:
        return self.open(Path())

    def forget(self, store: RedisStore) -> None:
        with self.server.client() as client:
            client.flushdb()


class TestFeastLayout(RedisSuite):
    layout = "feast"


class TestPackedLayout(RedisSuite):
    layout = "packed"
