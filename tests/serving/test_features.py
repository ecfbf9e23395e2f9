"""Lookups of feature services: they say what `get` says of each view, in the declared order, from any store."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.fixtures import RedisAddress

from headrace.features import Entity, FeatureService, FeatureView, Lifetime, Request, derived
from headrace.features.errors import DataError, DefinitionError
from headrace.features.functions import coalesce
from headrace.serving import Client, OutOfReachError
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import SchemaMismatchError
from headrace.stores.memory import MemoryStore
from headrace.stores.online import OnlineStore, StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, FULL, NULLS, VISITS, EveryType, Visit, Visits, instant, row, rows_of

HOUR = 3_600_000_000
KEY = {"user": "a", "shop": 1, "token": b"t"}


class Fading(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="2h"):
    visits = Visit.count(last="1h")
    mean = Visit.amount.mean(last="1h", default=-1.0)
    fade = Visit.amount.decayed_sum("1h", over=Lifetime())
    double = derived(fade * 2)
    least = derived(coalesce(derived(fade * 3), 1.0))


class Shops(FeatureView, source=VISITS, entity=Entity("shop", key="shop")):
    visits = Visit.count(last="1h")
    paid = Visit.paid.last(over=Lifetime())
    seen = Visit.seen.last(over=Lifetime())


VIEWS = (Visits, Fading, Shops)
AMOUNT = Request("amount", float)


@pytest.fixture(params=["memory", "embedded", "redis feast", "redis packed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "embedded":
        with EmbeddedStore(tmp_path) as embedded:
            yield embedded
    else:
        url = request.getfixturevalue("redis_server").url
        with RedisStore(url, layout=request.param.split()[1], expire=False) as server:
            yield server


def fill(store: OnlineStore) -> None:
    """Rows of users a, b, c, u0 ... and shops 1, 2 as of AT; the clock is ten microseconds on."""
    users = [({"user": "a"}, row(0, visits=3, total=1.5)), ({"user": "b"}, row(5, visits=0, total=math.inf))]
    store.write(Visits, rows_of(Visits, users))
    values = {"visits": 1, "mean": 2.0, "fade": 8.0, "double": 16.0, "least": 24.0, "_least_1": 24.0}
    made = {name: values[name] for name in Fading.__view__.stored_names}  # type: ignore[union-attr]
    rows = [
        ({"user": "a"}, StoredRow(made, AT, AT - HOUR)),
        ({"user": "b"}, StoredRow(made | {"mean": None, "fade": None, "double": None}, AT + 5, AT - 3 * HOUR)),
        ({"user": "c"}, StoredRow(made | {"mean": -1.0, "visits": 300}, AT - 60_000_000, AT - HOUR)),
    ]
    store.write(Fading, rows_of(Fading, rows))
    shops = [
        ({"shop": 1}, StoredRow({"visits": 2**40, "paid": True, "seen": AT + 1}, AT, AT)),
        ({"shop": -2}, StoredRow({"visits": -(2**63), "paid": None, "seen": None}, AT, AT)),
    ]
    store.write(Shops, rows_of(Shops, shops))
    store.set_clock(AT + 10, "stream")


@given(data=st.data())
def test_it_says_what_get_says_of_each_view(data: st.DataObject) -> None:
    store = MemoryStore()
    fill(store)
    check_against_get(store, data)


def test_so_do_all_stores(store: Any) -> None:
    fill(store)

    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        check_against_get(store, data)

    check()


def check_against_get(store: OnlineStore, data: st.DataObject) -> None:
    """Any choice of features in any order, any entities with repetitions, now and at an instant."""
    refs = [(view, name) for view in VIEWS for name in view.__view__.feature_names()]  # type: ignore[attr-defined]
    chosen = data.draw(st.lists(st.sampled_from(refs), min_size=1, unique=True))
    n = data.draw(st.integers(0, 6))
    entities = {
        "user": data.draw(st.lists(st.sampled_from(["a", "b", "c", "new"]), min_size=n, max_size=n)),
        "shop": data.draw(st.lists(st.sampled_from([1, -2, 3]), min_size=n, max_size=n)),
    }
    keys = {key for view, _ in chosen for key in view.__view__.entity.keys}
    entities = {name: values for name, values in entities.items() if name in keys}
    client = Client(store, VIEWS)
    at = data.draw(st.sampled_from([None, instant(7)]))
    table = client.features([f"{view.__view__.name}:{name}" for view, name in chosen], entities, at=at)
    assert len(table) == n
    short = [name for _, name in chosen]
    views = {name: {view for view, each in chosen if each == name} for name in short}
    full = [f"{view.__view__.name}__{name}" if len(views[name]) > 1 else name for view, name in chosen]
    assert list(table.names) == full
    for j, (view, name) in enumerate(chosen):
        asked = [{key: entities[key][i] for key in view.__view__.entity.keys} for i in range(n)]
        vectors = client.get_many(view, asked, at=at)
        assert list(table.values[j]) == [vector[name] for vector in vectors]
        assert list(table.statuses[j]) == [vector.status[name] for vector in vectors]
        assert list(table.event_times[j]) == [vector.event_timestamp for vector in vectors]
        assert table[full[j]] == table.values[j]
        assert table.status(full[j]) == table.statuses[j]
    rows = [{name: values[i] for name, values in entities.items()} for i in range(n)]
    again = client.features([view[name] for view, name in chosen], rows, at=at)
    assert again.rows == table.rows


def test_values_of_every_type_come_back(store: Any) -> None:
    for at, values in enumerate((NULLS, FULL)):
        store.write(EveryType, rows_of(EveryType, [(KEY, StoredRow(values, AT + at, AT + at))]))
        client = Client(store, [EveryType])
        table, vector = client.features(["every_type"], [KEY]), client.get(EveryType, KEY)
        assert table.to_dicts() == [vector.to_dict()]
        assert [each[0] for each in table.statuses] == list(vector.status.values())
        assert table.to_arrow().num_columns == 3 + len(vector)
        assert table.to_arrow(keys=False).column("city").to_pylist() == [vector["city"]]
        names = ["paid", "total", "most"]
        assert np.array_equal(table.to_numpy(names), [vector.to_numpy(names)], equal_nan=True)
    with pytest.raises(DataError, match=r"Feature 'city' is string.*to_numpy\(\['visits', 'total'"):
        table.to_numpy()


def test_a_service_with_features_on_demand(store: Any) -> None:
    fill(store)
    share = derived(AMOUNT / Fading["mean"], default=9.0)
    service = FeatureService(
        "judging",
        [Fading["mean"], Shops["visits", "seen"]],
        derived={"share": share, "more": derived(share + Visits["visits"]), "big": derived(AMOUNT > 2)},
        version=3,
    )
    client = Client(store, service)
    entities = {"user": ["a", "b", "new"], "shop": [1, 1, -2]}
    table = client.features("judging", entities, request={"amount": [4, None, math.nan]})
    assert table.names == service.names == ("mean", "visits", "seen", "share", "more", "big")
    assert table["share"] == (2.0, 9.0, 9.0)
    assert table["more"] == (5.0, 9.0, 9.0)
    assert table["big"] == (True, None, None)
    assert table.status("share") == ("PRESENT", "DEFAULT", "DEFAULT")
    assert table.status("big") == ("PRESENT", "NULL", "NULL")
    assert table.event_times[3] == (instant(0), instant(5), None)
    assert table["seen"] == (instant(1), instant(1), None)
    with pytest.raises(DataError, match=r"request columns \[\], expected exactly amount \(float64\)"):
        client.features(service, entities)
    with pytest.raises(DataError, match="'amount' has 1 values for 3 entities"):
        client.features(service, entities, request={"amount": [1.0]})
    with pytest.raises(DataError, match="request: amount: got 'x'"):
        client.features(service, entities, request={"amount": ["x", 1.0, 1.0]})


def test_what_a_service_says() -> None:
    one = FeatureService("judging", [Fading, Shops["visits"]])
    assert one.names == ("fading__visits", "mean", "fade", "double", "least", "shops__visits")
    assert one == FeatureService("judging", [Fading, Shops["visits"]])
    assert one.fingerprint() != FeatureService("judging", [Fading, Shops["visits"]], version=2).fingerprint()
    assert one.keys == ("user", "shop")
    assert FeatureService("full", Visits, full_names=True).names == ("visits__visits", "visits__total")
    assert "fading:mean" in str(one)
    with pytest.raises(DefinitionError, match="no feature 'men'; did you mean 'mean'"):
        Fading["men"]
    with pytest.raises(DefinitionError, match="is asked for twice"):
        FeatureService("twice", [Visits, Visits["total"]])
    with pytest.raises(DefinitionError, match="has no features of views"):
        FeatureService("s", derived={"x": derived(AMOUNT * 2)})
    with pytest.raises(DefinitionError, match="computed from View"):
        FeatureService("s", [Visits], derived={"x": derived(Visit.count(last="1h") + 1)})
    with pytest.raises(DefinitionError, match=r"goes into FeatureService"):

        class Wrong(FeatureView, source=VISITS, entity=Entity("user", key="user")):
            x = derived(AMOUNT * 2)


def test_what_cannot_be_answered_is_said(store: Any) -> None:
    fill(store)
    client = Client(store, VIEWS)
    with pytest.raises(DefinitionError, match="No view is named 'visit'; did you mean 'visits'"):
        client.features(["visit"], {"user": ["a"]})
    with pytest.raises(DataError, match=r"got the key columns \['shop', 'user'\], expected exactly user \(string\)"):
        client.features(["visits"], {"user": ["a"], "shop": [1]})
    with pytest.raises(DataError, match="of different lengths"):
        client.features(["visits", "shops"], {"user": ["a"], "shop": [1, 2]})
    with pytest.raises(DataError, match="'user' is 7 "):
        client.features(["visits"], {"user": [7]})
    with pytest.raises(OutOfReachError, match=r"\{'user': 'b'\} was asked as of"):
        client.features(["visits"], {"user": ["a", "b"]}, at=instant(4))
    with pytest.raises(OutOfReachError, match="stands at"):
        client.features(["visits"], {"user": ["a"]}, at=instant(11))

    class Other(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
        visits = Visit.count(last="2h")

    with pytest.raises(SchemaMismatchError, match="'visits' is computed in another way"):
        client.features([Other], {"user": ["a"]})


def test_a_changed_view_is_noticed(redis_server: RedisAddress) -> None:
    """A reader that looked at the views before another one was written, or one changed, looks at them again."""
    with RedisStore(redis_server.url) as writer, RedisStore(redis_server.url) as reader:
        client = Client(reader)
        assert client.features(Visits, {"user": ["a"]}).statuses[0] == ("NOT_FOUND",)
        fill(writer)
        assert client.features(Visits, {"user": ["a"]}).rows == [(3, 1.5)]


def test_live_the_clock_is_the_wall() -> None:
    store = MemoryStore()
    before = datetime.now(UTC)
    assert before <= Client(store).features(Visits, {"user": ["a"]}).at <= datetime.now(UTC)
    store.set_clock(AT, "wall")
    with pytest.raises(OutOfReachError, match="in the future"):
        Client(store).features(Visits, {"user": ["a"]}, at=before + timedelta(hours=1))
