"""The same answer from every way of asking and a naive oracle: values, statuses, event times to the microsecond."""

import asyncio
import math
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.conftest import SLOW_IS_FINE
from tests.serving.compat.rows import ENTITIES, NOW, ROWS, Drawn, Told, key_of, python_value, stored, told
from tests.serving.compat.serving import Served
from tests.serving.compat.views import ALL, VIEWS
from tests.serving.compat.ways import Answer, by_arrow, by_async_client, by_client, by_json, by_training_set, micros

from headrace.features.time import as_datetime
from headrace.materialize.online import sync
from headrace.serving import AsyncClient, Client
from headrace.stores.layout import row_layout
from headrace.stores.offline import OfflineLog
from headrace.stores.redis import RedisStore
from headrace.stores.rows import table_of

EXAMPLES = settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[*SLOW_IS_FINE, HealthCheck.function_scoped_fixture],
)
_TURN = count(1)

PAIRS = [(user, shop) for user in range(ENTITIES + 1) for shop in range(ENTITIES + 1)]


class Scene:
    """Drawn rows in a log and, by it, in an online store; entities are of names that no scene before had."""

    def __init__(self, folder: Path, rows: list[Drawn]) -> None:
        turn = next(_TURN)
        self.rows = rows
        self.users = [f"ü{turn}-{at}" for at in range(ENTITIES + 1)]
        self.shops = [-(turn * 10 + at) for at in range(ENTITIES + 1)]
        self.log = OfflineLog(folder)
        for view in VIEWS:
            of = sorted((row for row in rows if row.view == view.name), key=lambda row: -row.before)
            keys = [key_of(view.name, self.users[row.user], self.shops[row.shop]) for row in of]
            self.log.append(view, table_of(row_layout(view), keys, [stored(row) for row in of]))
        self.log.commit()

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    @property
    def entities(self) -> dict[str, list[Any]]:
        return {"user": [self.users[user] for user, _ in PAIRS], "shop": [self.shops[shop] for _, shop in PAIRS]}

    def expected(self) -> Answer:
        """By the oracle."""
        found = {}
        for view in VIEWS:
            for name in view.feature_names():
                cells = [told(self.rows, view.name, name, user, shop) for user, shop in PAIRS]
                dtype = view.dtypes[name]
                found[f"{view.name}__{name}"] = [
                    Told(python_value(cell.value, dtype), cell.status, cell.event_time) for cell in cells
                ]
        return found


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
        sync(store, VIEWS, log=scene.log, at_us=NOW)
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


def same(found: Answer, expected: Answer) -> None:
    """Equal to the last bit, minus zero included, and of the same Python types."""
    assert list(found) == list(expected)
    for name, cells in expected.items():
        assert list(map(exact, found[name])) == list(map(exact, cells)), name


def alike(found: Answer, expected: Answer) -> None:
    """Equal to the last bit, but for what decays: there the oracle computes 2^-x otherwise."""
    assert list(found) == list(expected)
    for name, cells in expected.items():
        for mine, theirs in zip(found[name], cells, strict=True):
            if name in ("shops__fade", "shops__double") and theirs.value is not None and math.isfinite(theirs.value):
                assert (mine.status, mine.event_time) == (theirs.status, theirs.event_time), name
                assert math.isclose(mine.value, theirs.value, rel_tol=1e-12, abs_tol=1e-320), name
            else:
                assert exact(mine) == exact(theirs), name


def unsigned(answer: Answer) -> Answer:
    """Without event times, which a training set does not tell, and without the sign of zero, which DuckDB does not keep
    in lists."""
    return {name: [Told(_unsigned(cell.value), cell.status, None) for cell in cells] for name, cells in answer.items()}


def _unsigned(value: Any) -> Any:
    if isinstance(value, list):
        return [_unsigned(each) for each in value]
    if isinstance(value, dict):
        return {key: _unsigned(each) for key, each in value.items()}
    return 0.0 if isinstance(value, float) and value == 0 else value


def exact(told: Told) -> str:
    """A text that is equal for equal values of equal types only; whose UTC it is does not count."""
    return f"{told.status} {told.event_time} {_exact(told.value)}"


def _exact(value: Any) -> str:
    if isinstance(value, datetime):
        return f"instant {micros(value)}"
    return f"[{', '.join(map(_exact, value))}]" if isinstance(value, list) else repr(value)
