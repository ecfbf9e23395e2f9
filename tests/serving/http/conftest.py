"""Apps over a memory store whose rows the tests know."""

from typing import Any

import pytest

from headrace.features import Entity, FeatureService, FeatureView, Request, derived
from headrace.serving import AsyncClient
from headrace.serving.http import ServerSettings, lookup_app
from headrace.stores.memory import MemoryStore
from headrace.stores.online import StoredRow
from headrace.stores.testing import AT, FULL, NULLS, VISITS, ByShop, EveryType, Visit, Visits, row, rows_of

HOUR = 3_600_000_000


class Fading(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="2h"):
    visits = Visit.count(last="1h")
    mean = Visit.amount.mean(last="1h", default=-1.0)


amount = Request("amount", float)
pricing = FeatureService(
    "pricing",
    [Fading["mean", "visits"], ByShop],
    derived={"to_mean": derived(amount / Fading["mean"], default=1.0)},
    version=3,
)
known = [Visits, EveryType, pricing]


@pytest.fixture
def store() -> MemoryStore:
    """At AT + 10 µs: users a (all there), n (a null), d (a default), o (too old); shop 1; visitors full and null."""
    store = MemoryStore()
    visits = [({"user": "a"}, row(0, visits=3, total=1.5)), ({"user": "b"}, row(5, visits=0, total=0.0))]
    store.write(Visits, rows_of(Visits, visits))
    rows = [
        ({"user": "a"}, StoredRow({"visits": 1, "mean": 4.0}, AT, AT)),
        ({"user": "n"}, StoredRow({"visits": 2, "mean": None}, AT + 1, AT)),
        ({"user": "d"}, StoredRow({"visits": 0, "mean": -1.0}, AT + 2, AT)),
        ({"user": "o"}, StoredRow({"visits": 5, "mean": 5.0}, AT, AT - 3 * HOUR)),
    ]
    store.write(Fading, rows_of(Fading, rows))
    store.write(ByShop, rows_of(ByShop, [({"shop": 1}, StoredRow({"visits": 9}, AT + 3, AT))]))
    every = [
        ({"user": "full", "shop": 1, "token": b"t"}, StoredRow(FULL, AT + 1, AT)),
        ({"user": "null", "shop": 1, "token": b"t"}, StoredRow(NULLS, AT + 1, AT)),
    ]
    store.write(EveryType, rows_of(EveryType, every))
    store.set_clock(AT + 10, "stream")
    return store


@pytest.fixture
def app(store: MemoryStore) -> Any:
    return lookup_app(AsyncClient(store, known))


@pytest.fixture
def app_with(store: MemoryStore) -> Any:
    """An app with settings of the server, and keywords of `lookup_app`."""

    def make(settings: ServerSettings | None = None, **given: Any) -> Any:
        return lookup_app(AsyncClient(store, known), settings=settings, **given)

    return make
