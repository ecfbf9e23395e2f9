"""Feast's client writes through our server: `write_to_online_store` and `push`, both of which POST to
/write-to-online-store."""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.servers.fixtures import RedisAddress
from tests.serving.compat.feast_side import asked, registered, remote
from tests.serving.compat.serving import Served
from tests.serving.compat.views import VIEWS, Drivers, Pairs

from headrace.serving import Client
from headrace.serving.http.pushing import Pushing
from headrace.stores.redis import RedisStore

AT = datetime.now(UTC).replace(microsecond=123_456)


@pytest.fixture
def store(redis_server: RedisAddress) -> Iterator[RedisStore]:
    with RedisStore(redis_server.url) as made:
        yield made


@pytest.fixture
def feast(store: RedisStore, tmp_path: Path) -> Iterator[Any]:
    pushes, registry = Pushing(store, VIEWS), registered(tmp_path, VIEWS, pushed=True)
    with Served(store, VIEWS, pushes=pushes) as server, remote(registry, server.url) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield made
    pushes.close()


def frame(at: datetime = AT, **columns: Any) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({**columns, "event_timestamp": [at] * n})


def pairs(client: Client) -> Any:
    return client.features([Pairs], {"user": ["a", "b", "a"], "shop": [1, 2, 2]})


@pytest.mark.parametrize("way", ["write_to_online_store", "push"])
def test_rows_written_are_rows_read(feast: Any, store: RedisStore, way: str) -> None:
    rows = frame(user=["a", "b"], shop=[1, 2], visits=[3, 4], paid=[True, False])
    if way == "push":
        feast.push("pairs_push", rows)
    else:
        feast.write_to_online_store("pairs", rows)
    found = pairs(Client(store))
    assert found.rows == [(3, True), (4, False), (0, False)]
    assert found.event_times[0] == (AT, AT, None)
    again = asked(feast, ["pairs:visits", "pairs:paid"], {"user": ["a", "b"], "shop": [1, 2]})
    assert (again["visits"].values, again["paid"].values) == ([3, 4], [True, False])


def test_an_older_row_never_takes_the_place_of_a_newer_one(feast: Any, store: RedisStore) -> None:
    for at, visits in ((AT, 3), (AT - timedelta(microseconds=1), 2), (AT - timedelta(days=1), 1)):
        feast.push("pairs_push", frame(at, user=["a"], shop=[1], visits=[visits], paid=[True]))
    assert pairs(Client(store)).rows[0] == (3, True)


WRITTEN: dict[str, Any] = {
    "visits": 3,
    "most": -(2**63),
    "total": 0.1,
    "mean": -1.0,
    "city": "Zürich ☃",
    "home": "",
    "paid": False,
    "raw": None,
    "seen": datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC),
    "times": [1, 2**62],
    "amounts": [1.0, 2.5],
    "cities": ["a", ""],
    "paids": [True, False],
    "raws": None,
    "seens": [datetime(2026, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)],
    "by_city": {"a": 1, "b": 2},
    "by_shop": None,
}
"""What Feast's client can send: no bytes and no maps with keys that are no texts, and of instants whole seconds."""


def test_values_of_every_type_that_feasts_client_can_send(feast: Any, store: RedisStore) -> None:
    feast.write_to_online_store("drivers", frame(user=["a"], **{name: [value] for name, value in WRITTEN.items()}))
    assert Client(store).features([Drivers], {"user": ["a"]}).to_dicts() == [WRITTEN]


def test_bytes_never_leave_feasts_client(feast: Any) -> None:
    rows = frame(user=["a"], **{name: [value] for name, value in (WRITTEN | {"raw": b"x"}).items()})
    with pytest.raises(TypeError, match="bytes is not JSON serializable"):
        feast.write_to_online_store("drivers", rows)


def test_nothing_is_written_of_rows_of_which_one_is_wrong(feast: Any, store: RedisStore) -> None:
    later = frame(AT + timedelta(days=1), user=["a", "b"], shop=[1, 2], visits=[3, 4], paid=[True, False])
    later.loc[0, "event_timestamp"] = AT
    with pytest.raises(RuntimeError, match=r"Error_code=422.*df\.event_timestamp\[1\]"):
        feast.push("pairs_push", later)
    assert pairs(Client(store)).rows == [(0, False)] * 3


def test_a_server_that_takes_no_pushes_says_so(store: RedisStore, tmp_path: Path) -> None:
    rows = frame(user=["a"], shop=[1], visits=[3], paid=[True])
    registry = registered(tmp_path, VIEWS, pushed=True)
    with Served(store, VIEWS) as server, remote(registry, server.url) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match=r"Error_code=404.*Nothing is served at '/write-to-online-store'"):
            made.push("pairs_push", rows)
