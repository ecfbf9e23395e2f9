"""The same answer from every way of asking and a naive oracle: values, statuses, event times to the microsecond."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.conftest import SLOW_IS_FINE
from tests.serving.compat.comparing import alike, same, unsigned
from tests.serving.compat.rows import NOW, ROWS, Drawn
from tests.serving.compat.scene import Scene
from tests.serving.compat.serving import Served
from tests.serving.compat.views import ALL, VIEWS
from tests.serving.compat.ways import Answer, by_arrow, by_async_client, by_client, by_json, by_training_set

from headrace.features.time import as_datetime
from headrace.serving import AsyncClient, Client
from headrace.stores.redis import RedisStore

EXAMPLES = settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[*SLOW_IS_FINE, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module", params=["feast", "packed"])
def store(request: pytest.FixtureRequest, redis_port: int) -> Iterator[RedisStore]:
    with RedisStore(
        f"redis://127.0.0.1:{redis_port}/0", project=f"compat-{request.param}", layout=request.param, expire=False
    ) as made:
        yield made


@pytest.fixture(scope="module")
def server(store: RedisStore) -> Iterator[Served]:
    with Served(store, VIEWS) as made:
        yield made


@EXAMPLES
@given(rows=ROWS)
def test_all_ways_tell_what_the_oracle_does(store: RedisStore, server: Served, rows: list[Drawn]) -> None:
    with tempfile.TemporaryDirectory() as folder, Scene(Path(folder), rows) as scene:
        scene.fill(store)
        first = by_client(Client(store, VIEWS), ALL, scene.entities)
        alike(first, scene.expected())

        async def ask() -> Answer:
            async with AsyncClient(store, VIEWS) as client:
                return await by_async_client(client, ALL, scene.entities)

        same(asyncio.run(ask()), first)
        same(by_json(server, ALL, scene.entities, VIEWS), first)
        same(by_arrow(server, ALL, scene.entities, VIEWS), first)
        trained = by_training_set(scene.log, VIEWS, scene.entities, as_datetime(NOW))
        same(unsigned(trained), unsigned(first))
