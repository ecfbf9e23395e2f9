"""A real Feast beside our server: its client reads from it, and its server says the same of the same rows in Redis."""

import asyncio
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.conftest import SLOW_IS_FINE
from tests.servers.process import free_port
from tests.serving.compat.comparing import exact_value
from tests.serving.compat.feast_side import (
    PROJECT,
    Cells,
    EntityKey,
    RemoteOnlineStore,
    RetryError,
    TestClient,
    Value,
    asked,
    feast_server,
    on_redis,
    registered,
    remote,
)
from tests.serving.compat.rows import NOW, ROWS, Drawn
from tests.serving.compat.scene import Scene
from tests.serving.compat.serving import Served
from tests.serving.compat.views import PLAIN, PRICING, VIEWS, Drivers, Pairs, Shops
from tests.serving.compat.ways import by_client

from headrace.serving import Client
from headrace.serving.http import ServerSettings
from headrace.stores.layout import row_layout
from headrace.stores.online import StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.rows import table_of

FULL: dict[str, Any] = {
    "visits": 3,
    "most": -(2**63),
    "total": 1.0,
    "mean": 0.1,
    "city": "Zürich ☃",
    "home": "nowhere",
    "paid": False,
    "raw": b"\x00\xff",
    "seen": NOW - 5,
    "times": [1, 2**62],
    "amounts": [1.0, 2.5],
    "cities": ["a", ""],
    "paids": [True, False],
    "raws": [b"a", b"\x80"],
    "seens": [NOW, 0],
    "by_city": {"a": 1, "": 0},
    "by_shop": {7: 0.5},
}
USERS = ["full", "nulls", "new", "old"]
"""One with values, one with nulls, one never seen, one past its ttl."""
REFS = [f"drivers:{name}" for name in FULL]
HOURS = 3_600_000_000
WORDS = ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
KEY = "s3cret-of-the-server"


@dataclass(frozen=True)
class Sides:
    """One Redis: our server twice, honest and saying what Feast says, and Feast's SDK and server beside it."""

    honest: Served
    feastly: Served
    store: RedisStore
    registry: Path
    sdk: Any
    theirs: TestClient


@pytest.fixture(scope="module")
def sides(redis_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    registry = registered(tmp_path_factory.mktemp("feast"), VIEWS, [PLAIN])
    sdk, known = on_redis(registry, redis_port, 0), [*VIEWS, PLAIN, PRICING]
    with RedisStore(f"redis://127.0.0.1:{redis_port}/0", project=PROJECT, expire=False) as store:
        fill(store)
        feastly = ServerSettings(statuses="feast")
        with Served(store, known) as honest, Served(store, known, feastly) as ours, feast_server(sdk) as theirs:
            yield Sides(honest, ours, store, registry, sdk, theirs)


def fill(store: RedisStore) -> None:
    users = [("full", FULL, NOW), ("nulls", dict.fromkeys(FULL), NOW - 1), ("old", FULL, NOW - 3 * HOURS)]
    rows = [StoredRow(values, at, at) for _, values, at in users]
    store.write(Drivers, table_of(row_layout(Drivers), [{"user": user} for user, _, _ in users], rows))
    shop = StoredRow({"visits": 4, "fade": 0.5, "double": 1.0}, NOW, NOW - 9)
    store.write(Shops, table_of(row_layout(Shops), [{"shop": 1}], [shop]))
    pair = StoredRow({"visits": 5, "paid": True}, NOW, NOW)
    store.write(Pairs, table_of(row_layout(Pairs), [{"user": "full", "shop": 1}], [pair]))
    store.set_clock(NOW, "stream")


@pytest.fixture(scope="module")
def client(sides: Sides) -> Iterator[Any]:
    """Feast's client of our honest server."""
    with remote(sides.registry, sides.honest.url) as made:
        yield made


# Feast's client, our server

WIRE: dict[str, Any] = {
    **FULL,
    "raw": "AP8=",
    "seen": "2026-01-01T00:00:00.123452Z",
    "raws": ["YQ==", "gA=="],
    "seens": ["2026-01-01T00:00:00.123457Z", "1970-01-01T00:00:00Z"],
    "by_shop": {"7": 0.5},
}
"""What its users get: Feast's client has no types, so bytes and instants stay texts and keys of maps become texts."""
EMPTY = {"visits": 0, "total": 0.0, "mean": -1.0, "home": "nowhere"}


@pytest.mark.parametrize("feature", FULL)
def test_values_of_every_type_come_with_honest_statuses(client: Any, feature: str) -> None:
    found = asked(client, [f"drivers:{feature}"], {"user": USERS})
    assert list(found) == ["user", feature]
    assert found["user"] == Cells(USERS, ["PRESENT"] * 4)
    empty = EMPTY.get(feature)
    assert found[feature] == Cells([WIRE[feature], None, empty, empty], WORDS)
    assert type(found[feature].values[0]) is type(WIRE[feature])


def test_all_features_of_one_entity_in_the_order_asked(client: Any) -> None:
    found = asked(client, REFS, [{"user": "full"}])
    assert list(found) == ["user", *FULL]
    assert {name: cells.values for name, cells in found.items()} == {
        "user": ["full"],
        **{name: [value] for name, value in WIRE.items()},
    }


def test_several_views_with_keys_of_their_own(client: Any) -> None:
    rows = [{"user": "full", "shop": 1}, {"user": "full", "shop": 2}, {"user": "nulls", "shop": 1}]
    refs = ["shops:fade", "drivers:visits", "pairs:visits", "shops:visits"]
    found = asked(client, refs, rows, full_feature_names=True)
    assert {name: cells.values for name, cells in found.items()} == {
        "user": ["full", "full", "nulls"],
        "shop": [1, 2, 1],
        "shops__fade": [0.5, None, 0.5],
        "drivers__visits": [3, 3, None],
        "pairs__visits": [5, 0, 0],
        "shops__visits": [4, 0, 4],
    }
    assert found["pairs__visits"].statuses == ["PRESENT", "NOT_FOUND", "NOT_FOUND"]


def test_a_feature_service(client: Any) -> None:
    service = client.get_feature_service("plain")
    entities = {"user": ["full", "new"], "shop": [1, 2]}
    found = asked(client, service, entities)
    assert list(found) == ["user", "shop", "mean", "visits", "fade"]
    assert found["mean"] == Cells([0.1, -1.0], ["PRESENT", "NOT_FOUND"])
    full = asked(client, service, entities, full_feature_names=True)
    assert list(full) == ["user", "shop", "drivers__mean", "drivers__visits", "shops__fade"]


def test_request_data_goes_among_the_entities_as_in_feast(sides: Sides) -> None:
    """Feast cannot register our features on demand, but its client sends any service by its name."""
    with remote(sides.registry, sides.honest.url) as store:
        service = store.get_feature_service("plain")
        service.name = "pricing"
        entities = {"user": ["full", "new"], "shop": [1, 1], "amount": [1.0, 3.0]}
        found = asked(store, service, entities)
    assert found["to_mean"].values == [10.0, -3.0]
    assert found["to_mean"].statuses == ["PRESENT", "PRESENT"]


def test_feast_statuses_give_nulls_and_seconds(sides: Sides) -> None:
    with remote(sides.registry, sides.feastly.url) as store:
        found = asked(store, ["drivers:visits", "drivers:seen", "drivers:home"], {"user": USERS})
    assert found["visits"] == Cells([3, None, None, None], ["PRESENT"] * 4)
    assert found["seen"] == Cells([NOW // 1_000_000, None, None, None], ["PRESENT"] * 4)
    assert found["home"] == Cells(["nowhere", None, None, None], ["PRESENT"] * 4)


def test_the_older_way_of_reading(client: Any) -> None:
    """`RemoteOnlineStore.online_read`: rows as protobuf, typed by the registry, one event time for all of them."""
    keys = [EntityKey(join_keys=["user"], entity_values=[Value(string_val=user)]) for user in USERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = client.get_feature_view("drivers")
        found = RemoteOnlineStore().online_read(client.config, view, keys, ["visits", "mean", "cities"])
    assert [row["visits"] for _, row in found] == [Value(int64_val=3), Value(), Value(), Value()]
    assert found[0][1]["mean"] == Value(double_val=0.1)
    assert list(found[0][1]["cities"].string_list_val.val) == ["a", ""]
    assert {at.isoformat() for at, _ in found} == {"2026-01-01T00:00:00.123457+00:00"}


@pytest.mark.parametrize(
    ("features", "entities", "status", "said"),
    [
        (["drivers:visit"], {"user": ["full"]}, 404, "did you mean 'visits'"),
        (["driver:visits"], {"user": ["full"]}, 404, "did you mean 'drivers'"),
        (["drivers:visits"], {"usr": ["full"]}, 422, "entities.usr"),
        (["drivers:visits"], {"user": [7]}, 422, "entities.user[0]"),
        (["shops:visits"], {"shop": [1, "x"]}, 422, "entities.shop[1]"),
    ],
)
def test_what_is_wrong_reaches_feasts_user(client: Any, features: Any, entities: Any, status: int, said: str) -> None:
    with pytest.raises(RuntimeError, match=f"Failed to get online features: {status}") as error:
        asked(client, features, entities)
    assert said in str(error.value)


def test_bearer_tokens(sides: Sides) -> None:
    with Served(sides.store, VIEWS, ServerSettings(keys=[KEY])) as server:
        with remote(sides.registry, server.url, {"type": "oidc", "token": KEY}) as store:
            assert asked(store, ["drivers:visits"], {"user": ["full"]})["visits"].values == [3]
        for auth in ({"type": "oidc", "token": "wrong"}, None):
            refused = pytest.raises(RuntimeError, match="Failed to get online features: 401")
            with remote(sides.registry, server.url, auth) as store, refused:
                asked(store, ["drivers:visits"], {"user": ["full"]})


# What Feast's client cannot read, from its own server either


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"cities": []}, "Couldn't infer value type from empty value"),
        ({"by_city": {}}, "Couldn't infer value type from empty value"),
        ({"amounts": [float("inf"), 1.0]}, "List value type for field  is inconsistent"),
    ],
)
def test_values_that_feasts_client_refuses(sides: Sides, client: Any, value: dict[str, Any], error: str) -> None:
    (feature,) = value
    user = f"odd {feature}"
    sides.store.write(Drivers, table_of(row_layout(Drivers), [{"user": user}], [StoredRow(FULL | value, NOW, NOW)]))
    body = {"features": [f"drivers:{feature}"], "entities": {"user": [user]}}
    assert columns(sides.honest.ask(body).json)[feature] == columns(their(sides, body))[feature]
    with pytest.raises((TypeError, ValueError), match=error):
        asked(client, body["features"], body["entities"])


# Our server, Feast's server

EXAMPLES = settings(max_examples=10, suppress_health_check=[*SLOW_IS_FINE, HealthCheck.function_scoped_fixture])


def their(sides: Sides, body: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reply = sides.theirs.post("/get-online-features", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def columns(answer: Any) -> dict[str, str]:
    """Name -> column as text, so that 1 is not 1.0. The order is left out: Feast's server gives features in any."""
    names = answer["metadata"]["feature_names"]
    return {name: json.dumps(each, sort_keys=True) for name, each in zip(names, answer["results"], strict=True)}


def test_answers_have_the_form_of_feasts(sides: Sides) -> None:
    body = {"features": REFS, "entities": {"user": USERS[:3]}, "include_feature_view_version_metadata": True}
    ours, theirs = sides.feastly.ask(body).json, their(sides, body)
    assert set(ours) == set(theirs) == {"results", "metadata"}
    assert ours["metadata"]["feature_view_metadata"] == [{"name": "drivers", "version": 0}]
    assert theirs["metadata"]["feature_view_metadata"] == [{"name": "drivers"}]
    mine, others = columns(ours), columns(theirs)
    assert mine.keys() == others.keys()
    differing = [name for name in mine if mine[name] != others[name]]
    assert differing == ["by_shop"]  # a map whose keys are no texts is null on Feast's wire


@EXAMPLES
@given(rows=ROWS)
def test_both_servers_say_the_same_of_random_rows(sides: Sides, rows: list[Drawn]) -> None:
    """But for what Feast does not do: ttl and decay."""
    with tempfile.TemporaryDirectory() as folder, Scene(Path(folder), rows) as scene:
        scene.fill(sides.store)
        old = by_client(Client(sides.store, VIEWS), ["drivers:visits"], {"user": scene.users})["drivers__visits"]
        users = [user for user, cell in zip(scene.users, old, strict=True) if cell.status != "OUTSIDE_MAX_AGE"]
        for refs, entities in [
            ([f"drivers:{name}" for name in FULL if name != "by_shop"], {"user": users}),
            (["shops:visits"], {"shop": scene.shops}),
        ]:
            body = {"features": refs, "entities": entities, "full_feature_names": True}
            assert columns(sides.feastly.ask(body).json) == columns(their(sides, body))


@EXAMPLES
@given(rows=ROWS)
def test_feasts_sdk_reads_from_redis_what_our_client_says(sides: Sides, rows: list[Drawn]) -> None:
    """Values where there are any; Feast keeps no microseconds of instants among the values."""
    with tempfile.TemporaryDirectory() as folder, Scene(Path(folder), rows) as scene:
        scene.fill(sides.store)
        refs = [f"drivers:{name}" for name in FULL if name not in ("seen", "seens")] + ["shops:visits"]
        mine = by_client(Client(sides.store, VIEWS), refs, scene.entities)
        theirs = asked(sides.sdk, refs, scene.entities, full_feature_names=True)
        for name, cells in mine.items():
            for ours, value in zip(cells, theirs[name].values, strict=True):
                if ours.status == "NOT_FOUND":
                    assert value is None, name
                elif ours.status != "OUTSIDE_MAX_AGE":
                    assert exact_value(value) == exact_value(ours.value), name


# What docs/serving.md says of Feast's client besides


def test_composite_keys_are_torn_by_the_older_way_of_reading(client: Any) -> None:
    key = EntityKey(join_keys=["user", "shop"], entity_values=[Value(string_val="full"), Value(int64_val=1)])
    with pytest.raises(RuntimeError, match=r"Error_code=422.*expected exactly user \(string\), shop \(int64\)"):
        RemoteOnlineStore().online_read(client.config, client.get_feature_view("pairs"), [key], ["visits"])


def test_event_times_are_dropped_and_there_is_no_asyncio(client: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = client.get_online_features(features=["drivers:visits"], entity_rows={"user": ["full"]})
        assert answer.to_dict(include_event_timestamps=True)["visits__ts"] == []
        with pytest.raises(NotImplementedError, match="does not support online read async"):
            asyncio.run(client.get_online_features_async(features=["drivers:visits"], entity_rows={"user": ["full"]}))


@pytest.mark.parametrize("infinity", [float("inf"), float("-inf")])
def test_infinity_is_a_word_for_both(sides: Sides, client: Any, infinity: float) -> None:
    row = StoredRow(FULL | {"total": infinity}, NOW, NOW)
    sides.store.write(Drivers, table_of(row_layout(Drivers), [{"user": f"at {infinity}"}], [row]))
    body = {"features": ["drivers:total"], "entities": {"user": [f"at {infinity}"]}}
    assert columns(sides.honest.ask(body).json) == columns(their(sides, body))
    assert asked(client, body["features"], body["entities"])["total"].values == [
        "Infinity" if infinity > 0 else "-Infinity"
    ]


def test_a_store_that_is_away_ends_the_clients_patience(sides: Sides) -> None:
    with RedisStore(f"redis://127.0.0.1:{free_port()}/0", timeout_s=1) as gone, Served(gone, VIEWS) as server:
        assert server.ask({"features": ["drivers:visits"], "entities": {"user": ["full"]}}).status == 503
        with remote(sides.registry, server.url, connection_retries=0) as store, pytest.raises(RetryError):
            asked(store, ["drivers:visits"], {"user": ["full"]})
