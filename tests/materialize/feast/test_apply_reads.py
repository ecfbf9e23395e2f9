"""Headrace's views in a Feast repository, read in every way that Feast has: the values are Headrace's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.servers.fixtures import RedisAddress
from tests.serving.compat.serving import Served

from headrace.features import Entity, Event, EventTime, FeatureService, FeatureView, IterableSource, Lifetime
from headrace.features.views import definition
from headrace.flows.runner import run
from headrace.materialize import training_set
from headrace.serving.client import Client
from headrace.stores.offline import OfflineLog
from headrace.stores.redis import RedisStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from fastapi.testclient import TestClient
    from feast import FeatureStore
    from feast.permissions.client.http_auth_requests_wrapper import HttpSessionManager
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
    from feast.ui_server import get_app

    from headrace.materialize.feast.planning import apply_plan, plan

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Payment(Event):
    user: str
    amount: float | None
    shop: str
    at: EventTime


def event(user: str, minute: float, amount: float | None, shop: str = "a") -> dict[str, Any]:
    return {"user": user, "amount": amount, "shop": shop, "at": T0 + timedelta(minutes=minute)}


"""
minute  0   10   20   30   40   50   60   70   80   90
u       1    2         4              8
v           16        null
w                                                   32      so that the log has settled
"""
EVENTS = [
    event("u", 0, 1.0),
    event("v", 10, 16.0, "b"),
    event("u", 10.5, 2.0, "b"),
    event("u", 30, 4.0),
    event("v", 30.5, None),
    event("u", 61, 8.0, "ü"),
    event("w", 90, 32.0),
]
payments = IterableSource(EVENTS, Payment)


class Spend(FeatureView, source=payments, entity=Entity("user", key="user")):
    """What a user spent."""

    total = Payment.amount.sum(last="30m")
    visits = Payment.count(last="30m")
    mean = Payment.amount.mean(last="30m")
    shop = Payment.shop.last(over=Lifetime())
    amounts = Payment.amount.last_n(2, over=Lifetime())


class ByShop(FeatureView, source=payments, entity=Entity("place", key="shop")):
    """What a shop sold."""

    sold = Payment.amount.sum(last="30m")


NAMES = ["total", "visits", "mean", "shop", "amounts"]
pricing = FeatureService("pricing", [Spend["total", "shop"], ByShop])
VIEWS = [definition(Spend), definition(ByShop)]
USERS = ["u", "v", "w", "x"]


@dataclass(frozen=True)
class Applied:
    """A flow's log, and a Feast repository that knows its views."""

    log: OfflineLog
    repo: Path
    server: RedisAddress

    @property
    def store(self) -> Any:
        return quietly(lambda: FeatureStore(repo_path=str(self.repo)))

    def materialize(self, minute: float) -> None:
        quietly(lambda: self.store.materialize(T0 - timedelta(days=1), T0 + timedelta(minutes=minute)))


def quietly(call: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast and its dependencies deprecate of themselves
        return call()


@pytest.fixture
def applied(tmp_path: Path, redis_server: RedisAddress) -> Applied:
    run([Spend, ByShop], tmp_path / "data")
    repo = tmp_path / "repo"
    repo.mkdir()
    number = redis_server.url.rpartition("/")[2]
    (repo / "feature_store.yaml").write_text(
        "project: rides\nprovider: local\nregistry: registry.db\noffline_store: { type: file }\n"
        f'online_store: {{ type: redis, connection_string: "127.0.0.1:{redis_server.port},db={number}" }}\n'
        "entity_key_serialization_version: 3\n"
        "batch_engine: { type: headrace.materialize.feast.HeadraceEngine }\n"
    )
    log = tmp_path / "data" / "log"
    planned, store = plan(repo, {"views.py": VIEWS}, {"views.py": [pricing]}, log=str(log))
    apply_plan(planned, store)
    return Applied(OfflineLog(log), repo, redis_server)


@contextmanager
def ours(applied: Applied) -> Iterator[RedisStore]:
    with RedisStore(applied.server.url, project="rides") as store:
        yield store


def plain(value: Any) -> Any:
    """A cell of a frame or an answer: NaN is null, arrays are lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and value != value else value


@pytest.mark.parametrize("minute", [35, 75, 200])
def test_online_reads_are_the_clients(applied: Applied, minute: int) -> None:
    """As of minute 35, 75, and 200, when all windows have emptied."""
    applied.materialize(minute)
    asked = [f"spend:{name}" for name in NAMES]
    rows = [{"user": user} for user in USERS]
    found = quietly(lambda: applied.store.get_online_features(features=asked, entity_rows=rows).to_dict())
    with ours(applied) as store:
        vectors = Client(store).get_many(Spend, rows)
    totals = {35: [6.0, 16.0, None, None], 75: [8.0, 0.0, None, None], 200: [0.0, 0.0, 0.0, None]}
    assert found["total"] == totals[minute]
    for at, user in enumerate(USERS):
        there = vectors[at].newest_event is not None
        for name in NAMES:
            assert found[name][at] == (vectors[at][name] if there else None), (user, name)


def test_a_feature_service_is_read_online(applied: Applied) -> None:
    applied.materialize(75)
    rows = [{"user": "u", "shop": "ü"}, {"user": "v", "shop": "b"}]
    store = applied.store
    service = store.get_feature_service("pricing")
    found = quietly(lambda: store.get_online_features(features=service, entity_rows=rows).to_dict())
    with ours(applied) as online:
        expected = [Client(online).get(ByShop, shop=row["shop"])["sold"] for row in rows]
    assert (found["total"], found["shop"]) == ([8.0, 0.0], ["ü", "a"])
    assert found["sold"] == expected == [8.0, 0.0]


def test_historical_reads_are_the_training_set(applied: Applied) -> None:
    """At every fifth minute of the settled log, where the entity was seen before."""
    minutes = range(0, 91, 5)
    spine = pd.DataFrame(
        [{"user": user, "event_timestamp": pd.Timestamp(T0 + timedelta(minutes=m))} for user in "uv" for m in minutes]
    )
    features = [f"spend:{name}" for name in NAMES]
    found = quietly(lambda: applied.store.get_historical_features(entity_df=spine, features=features).to_df())
    expected = training_set(spine, Spend, log=applied.log, statuses=True).to_pylist()
    got = {(row["user"], row["event_timestamp"]): row for row in found.to_dict("records")}
    seen = [row for row in expected if row["total__status"] != "NOT_FOUND"]
    assert (len(expected), len(seen)) == (38, 19 + 17)
    for row in seen:
        theirs = got[row["user"], pd.Timestamp(row["event_timestamp"])]
        assert {name: plain(theirs[name]) for name in NAMES} == {name: row[name] for name in NAMES}
    assert len(got) == len(seen), "Feast leaves out entities that it has never seen"


def test_feast_ui_shows_them(applied: Applied) -> None:
    store = applied.store
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with TestClient(get_app(store, "rides")) as ui:
            views = ui.get("/api/v1/feature_views", params={"project": "rides"}).json()["featureViews"]
            services = ui.get("/api/v1/feature_services", params={"project": "rides"}).json()["featureServices"]
            sources = ui.get("/api/v1/data_sources", params={"project": "rides"}).json()["dataSources"]
    shown = {view["spec"]["name"]: view["spec"] for view in views}
    assert set(shown) == {"spend", "by_shop"}
    assert {"total", "visits", "mean", "shop", "amounts"} <= {each["name"] for each in shown["spend"]["features"]}
    assert shown["spend"]["tags"]["headrace"] == VIEWS[0].fingerprint()
    assert [service["spec"]["name"] for service in services] == ["pricing"]
    assert {"spend_log", "spend_stream"} <= {source["name"] for source in sources}


def test_feasts_remote_store_reads_from_headraces_server(applied: Applied) -> None:
    """The repository's registry, with `headrace serve` in place of its online store: statuses are honest."""
    applied.materialize(75)
    text = (applied.repo / "feature_store.yaml").read_text().splitlines()
    with ours(applied) as online, Served(online, [Spend, ByShop, pricing]) as server:
        remote = f"online_store: {{ type: remote, path: {server.url} }}"
        lines = [remote if line.startswith("online_store") else line for line in text]
        (applied.repo / "feature_store.yaml").write_text("\n".join(lines))
        try:
            store = applied.store
            rows = [{"user": user} for user in USERS]
            asked = ["spend:total", "spend:amounts"]
            answer = quietly(lambda: store.get_online_features(features=asked, entity_rows=rows))
            by_service = quietly(
                lambda: store.get_online_features(
                    features=store.get_feature_service("pricing"), entity_rows=[{"user": "u", "shop": "ü"}]
                ).to_dict()
            )
        finally:
            HttpSessionManager.close_session()
    found = quietly(answer.to_dict)
    assert found["total"] == [8.0, 0.0, 0.0, 0.0]
    assert found["amounts"][:2] == [[4.0, 8.0], [16.0]]
    statuses = {
        name: list(vector.statuses)
        for name, vector in zip(answer.proto.metadata.feature_names.val, answer.proto.results, strict=True)
    }
    assert statuses["total"] == [FieldStatus.PRESENT] * 2 + [FieldStatus.NOT_FOUND] * 2
    assert by_service["sold"] == [8.0]
