"""What Feast's users are told through HeadraceOnlineStore: missing, expired and null, whichever way Feast reads."""

import asyncio
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    import pandas as pd
    from fastapi.testclient import TestClient
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.feature_server import get_app
    from feast.infra.online_stores.remote import RemoteOnlineStore
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.types import Int64, String
    from feast.value_type import ValueType

    from headrace.materialize.feast import HeadraceOnlineStore
    from headrace.materialize.feast.online_store import TAG, is_expired

from headrace.features import Entity as HeadraceEntity
from headrace.features import FeatureView as HeadraceView
from headrace.features import Lifetime
from headrace.materialize.online import fill
from headrace.serving.client import Client
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock, StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.testing import VISITS, Visit, rows_of

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=123_457)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FRESH, OLD, NEVER, NULL, PARTLY, AT_EPOCH = range(1, 7)
WORDS = {number: name for name, number in FieldStatus.items()}
ALL = [FRESH, OLD, NEVER, NULL, PARTLY]
SOURCE = FileSource(path="nowhere.parquet", timestamp_field="event_timestamp")
DRIVER = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)


def view(name: str, ttl: timedelta | None, tags: dict[str, str] | None = None, *more: Field) -> FeatureView:
    schema = [Field(name="driver", dtype=Int64), Field(name="rides", dtype=Int64), Field(name="city", dtype=String)]
    return FeatureView(name=name, entities=[DRIVER], schema=[*schema, *more], source=SOURCE, ttl=ttl, tags=tags)


@dataclass(frozen=True)
class Repo:
    """One registry and Redis, read as Feast reads it and as we do."""

    theirs: Any
    ours: Any


def a_store(folder: Path, kind: str, server: RedisAddress) -> Any:
    db = server.url.rpartition("/")[2]
    config = RepoConfig(
        project="statuses",
        provider="local",
        registry={"registry_type": "file", "path": str(folder / "registry.db")},
        online_store={"type": kind, "connection_string": f"127.0.0.1:{server.port},db={db}"},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


@pytest.fixture
def repo(tmp_path: Path, redis_server: RedisAddress) -> Iterator[Repo]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = a_store(tmp_path, "headrace.materialize.feast.HeadraceOnlineStore", redis_server)
        views = [
            view("daily", DAY),
            view("lasting", timedelta(0)),
            view("windows", DAY, {"headrace": "1"}, Field(name="newest_event", dtype=Int64)),
        ]
        service = FeatureService(name="model", features=[views[0][["rides"]], views[1][["city"]]])
        store.apply([DRIVER, *views, service])
        for name in ("daily", "lasting"):
            made = store.get_feature_view(name)
            write(store, made, FRESH, NOW, rides=Value(int64_val=7), city=Value(string_val="Lyon"))
            write(store, made, OLD, NOW - 2 * DAY, rides=Value(int64_val=8), city=Value(string_val="Nice"))
            write(store, made, NULL, NOW, rides=Value(), city=Value(string_val=""))
            write(store, made, PARTLY, NOW, city=Value(string_val="Metz"))
        write(store, store.get_feature_view("lasting"), AT_EPOCH, EPOCH, rides=Value(int64_val=1))
        yield Repo(a_store(tmp_path, "redis", redis_server), store)


def write(store: Any, made: Any, driver: int, at: datetime, **values: Any) -> None:
    key = EntityKey(join_keys=["driver"], entity_values=[Value(int64_val=driver)])
    store._get_provider().online_write_batch(store.config, made, [(key, values, at, None)], None)


def cells(proto: Any, values: dict[str, list[Any]]) -> dict[str, list[tuple[Any, str]]]:
    """Feature -> value and status of each row."""
    words = {
        name: [WORDS[status] for status in vector.statuses]
        for name, vector in zip(proto.metadata.feature_names.val, proto.results, strict=True)
    }
    return {name: list(zip(column, words[name], strict=True)) for name, column in values.items() if name != "driver"}


def asked(store: Any, features: Any, drivers: list[int], **options: Any) -> dict[str, list[tuple[Any, str]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [{"driver": each} for each in drivers]
        answer = store.get_online_features(features=features, entity_rows=rows, **options)
        return cells(answer.proto, answer.to_dict())


def asked_async(store: Any, features: Any, drivers: list[int]) -> dict[str, list[tuple[Any, str]]]:
    async def ask() -> Any:
        rows = [{"driver": each} for each in drivers]
        answer = await store.get_online_features_async(features=features, entity_rows=rows)
        await store._get_provider().online_store._client_async.aclose()
        return answer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = asyncio.run(ask())
        return cells(answer.proto, answer.to_dict())


def served(store: Any, features: Any, drivers: list[int]) -> Any:
    """What Feast's feature server answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with TestClient(get_app(store, registry_ttl_sec=0)) as client:
            body = {"features": features, "entities": {"driver": drivers}}
            return client.post("/get-online-features", json=body).json()


def asked_remotely(store: Any, features: Any, drivers: list[int]) -> dict[str, list[tuple[Any, str]]]:
    """What Feast's client makes of that answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = RemoteOnlineStore()._build_online_response_from_json(served(store, features, drivers))
        return cells(answer.proto, answer.to_dict())


def asked_server(store: Any, features: Any, drivers: list[int]) -> dict[str, list[tuple[Any, str]]]:
    answer = served(store, features, drivers)
    found = zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
    return {
        name: list(zip(vector["values"], vector["statuses"], strict=True)) for name, vector in found if name != "driver"
    }


WAYS = {
    "in process": asked,
    "async": asked_async,
    "feature server": asked_server,
    "remote client": asked_remotely,
}
RIDES = [
    (7, "PRESENT"),
    (None, "OUTSIDE_MAX_AGE"),
    (None, "NOT_FOUND"),
    (None, "NULL_VALUE"),
    (None, "NOT_FOUND"),
]
CITY = [("Lyon", "PRESENT"), (None, "OUTSIDE_MAX_AGE"), (None, "NOT_FOUND"), ("", "PRESENT"), ("Metz", "PRESENT")]


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_whichever_way_feast_reads_it_tells_missing_expired_and_null(repo: Repo, way: Any) -> None:
    assert way(repo.ours, ["daily:rides", "daily:city"], ALL) == {"rides": RIDES, "city": CITY}


def test_feast_itself_calls_all_of_them_present(repo: Repo) -> None:
    """The table in docs/feast.md; when Feast tells more, so should the table."""
    values = [7, 8, None, None, None]
    assert asked(repo.theirs, ["daily:rides"], ALL) == {"rides": [(value, "PRESENT") for value in values]}


def test_features_on_demand_are_computed_from_what_is_there(repo: Repo) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @on_demand_feature_view(
            sources=[repo.ours.get_feature_view("daily")], schema=[Field(name="double", dtype=Int64)], mode="python"
        )
        def doubled(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
            return {"double": [None if each is None else 2 * each for each in inputs["rides"]]}

        repo.ours.apply([doubled])
    found = asked(repo.ours, ["daily:rides", "doubled:double"], ALL)
    assert found["rides"] == RIDES
    assert found["double"] == [(14, "PRESENT"), *[(None, "PRESENT")] * 4]


@pytest.mark.parametrize("way", [asked, asked_async])
def test_features_on_demand_that_were_written_are_rows_without_a_ttl(repo: Repo, way: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @on_demand_feature_view(
            entities=[DRIVER],
            sources=[repo.ours.get_feature_view("daily")],
            schema=[Field(name="double", dtype=Int64)],
            write_to_online_store=True,
        )
        def doubled(frame: pd.DataFrame) -> pd.DataFrame:
            return frame.assign(double=2 * frame["rides"])

        repo.ours.apply([doubled])
        written = repo.ours.get_on_demand_feature_view("doubled")
        write(repo.ours, written, OLD, NOW - 9 * DAY, double=Value(int64_val=16))
        write(repo.ours, written, NULL, NOW, double=Value())
    found = way(repo.ours, ["daily:rides", "doubled:double"], [OLD, NULL, NEVER])
    assert found["rides"] == [(None, "OUTSIDE_MAX_AGE"), (None, "NULL_VALUE"), (None, "NOT_FOUND")]
    assert found["double"] == [(16, "PRESENT"), (None, "NULL_VALUE"), (None, "NOT_FOUND")]


def test_a_view_without_ttl_never_expires_and_views_of_one_entity_are_told_apart(repo: Repo) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        service = repo.ours.get_feature_service("model")
    assert asked(repo.ours, service, ALL) == {
        "rides": RIDES,
        "city": [("Lyon", "PRESENT"), ("Nice", "PRESENT"), (None, "NOT_FOUND"), ("", "PRESENT"), ("Metz", "PRESENT")],
    }


def test_rows_asked_twice_and_a_row_of_1970_are_told_right(repo: Repo) -> None:
    drivers = [OLD, FRESH, OLD, AT_EPOCH, NEVER, FRESH]
    found = asked(repo.ours, ["daily:rides", "lasting:rides"], drivers, full_feature_names=True)
    old, fresh, never = (None, "OUTSIDE_MAX_AGE"), (7, "PRESENT"), (None, "NOT_FOUND")
    assert found["daily__rides"] == [old, fresh, old, never, never, fresh]
    assert found["lasting__rides"] == [(8, "PRESENT"), fresh, (8, "PRESENT"), (1, "PRESENT"), never, fresh]


def test_a_view_of_headrace_is_as_old_as_its_newest_event(repo: Repo) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = repo.ours.get_feature_view("windows")

        def micros(at: datetime) -> Any:
            return Value(int64_val=(at - EPOCH) // timedelta(microseconds=1))

        write(repo.ours, made, FRESH, NOW, rides=Value(int64_val=0), newest_event=micros(NOW - 2 * DAY))
        write(repo.ours, made, OLD, NOW, rides=Value(int64_val=3), newest_event=micros(NOW - DAY / 2))
        write(repo.ours, made, NULL, NOW - 2 * DAY, rides=Value(int64_val=3))  # as Feast pushes it
        seconds = Value(unix_timestamp_val=int((NOW - 2 * DAY).timestamp()))
        write(repo.ours, made, PARTLY, NOW, rides=Value(int64_val=3), newest_event=seconds)
    expired = (None, "OUTSIDE_MAX_AGE")
    found = asked(repo.ours, ["windows:rides"], [FRESH, OLD, NULL, PARTLY])
    assert found == {"rides": [expired, (3, "PRESENT"), expired, expired]}
    assert asked(repo.ours, ["windows:newest_event"], [FRESH])["newest_event"] == [(None, "OUTSIDE_MAX_AGE")]


class Lately(HeadraceView, source=VISITS, entity=HeadraceEntity("user", key="user"), ttl="1d"):
    visits = Visit.count(last="2d")
    city = Visit.city.last(over=Lifetime())


def test_a_view_of_headrace_has_the_statuses_of_its_own_client(tmp_path: Path, redis_server: RedisAddress) -> None:
    """Filled from a log; all rows were written again an hour ago, as windows moved."""
    now, hour, days = (NOW - EPOCH) // timedelta(microseconds=1), 3_600_000_000, 86_400_000_000
    drawn = {
        "fresh": StoredRow({"visits": 2, "city": "Lyon"}, now - hour, now - 2 * hour),
        "idle": StoredRow({"visits": 1, "city": "Nice"}, now - hour, now - days - hour),
        "null": StoredRow({"visits": 1, "city": None}, now - hour, now - hour),
    }
    users = [*drawn, "never"]
    with OfflineLog(tmp_path / "log") as log, RedisStore(redis_server.url, project="statuses", expire=False) as store:
        log.append(Lately, rows_of(Lately, [({"user": user}, row) for user, row in drawn.items()]))
        log.commit(clock=Clock(now, "wall"))
        assert fill(store, Lately, log=log)[0].written == 3
        vectors = Client(store).get_many(Lately, [{"user": user} for user in users])
    expected = {name: [(each[name], str(each.status[name])) for each in vectors] for name in ("visits", "city")}
    assert [status for _, status in expected["visits"]] == ["PRESENT", "OUTSIDE_MAX_AGE", "PRESENT", "NOT_FOUND"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repo = a_store(tmp_path, "headrace.materialize.feast.HeadraceOnlineStore", redis_server)
        made = FeatureView(
            name="lately",
            entities=[Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)],
            schema=[
                Field(name="user", dtype=String),
                Field(name="visits", dtype=Int64),
                Field(name="city", dtype=String),
            ],
            source=SOURCE,
            ttl=DAY,
            tags={TAG: ""},
        )
        repo.apply([Entity(name="user", join_keys=["user"], value_type=ValueType.STRING), made])
        rows = [{"user": user} for user in users]
        answer = repo.get_online_features(features=["lately:visits", "lately:city"], entity_rows=rows)
    found = cells(answer.proto, answer.to_dict())
    for name, theirs in expected.items():
        # Feast calls a null by another word, and has no values of an empty window.
        ours = [(value, {"NULL": "NULL_VALUE"}.get(status, status)) for value, status in theirs]
        assert found[name] == [(value if status == "PRESENT" else None, status) for value, status in ours]


def test_rows_by_key_say_what_they_can(repo: Repo) -> None:
    """`online_read` has no statuses: no time is never written, a time without values is expired."""
    keys = [EntityKey(join_keys=["driver"], entity_values=[Value(int64_val=each)]) for each in ALL]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, online = repo.ours.get_feature_view("daily"), repo.ours._get_provider().online_store

    async def read_async() -> Any:
        found = await online.online_read_async(repo.ours.config, made, keys)
        await online._client_async.aclose()
        return found

    assert isinstance(online, HeadraceOnlineStore)
    expected = [
        (NOW, {"rides": Value(int64_val=7), "city": Value(string_val="Lyon")}),
        (NOW - 2 * DAY, None),
        (None, None),
        (NOW, {"rides": Value(), "city": Value(string_val="")}),
        (NOW, {"city": Value(string_val="Metz")}),
    ]
    assert online.online_read(repo.ours.config, made, keys) == expected
    assert asyncio.run(read_async()) == expected
    assert online.online_read(repo.ours.config, made, keys[:1], ["rides"]) == [(NOW, {"rides": Value(int64_val=7)})]
    assert online.online_read(repo.ours.config, made, []) == []


def test_as_a_repository_says_it(tmp_path: Path, redis_server: RedisAddress) -> None:
    """Store and engine by their names in feature_store.yaml; rows that the engine materialized."""
    (tmp_path / "feature_store.yaml").write_text(
        "project: told\nprovider: local\nregistry: registry.db\noffline_store: {type: file}\n"
        "entity_key_serialization_version: 3\n"
        "batch_engine: {type: headrace.materialize.feast.HeadraceEngine}\n"
        "online_store:\n  type: headrace.materialize.feast.HeadraceOnlineStore\n"
        f"  connection_string: 127.0.0.1:{redis_server.port},db={redis_server.url.rpartition('/')[2]}\n"
    )
    stamps = [NOW - timedelta(hours=1), NOW - 2 * DAY]
    pd.DataFrame({"driver": [1, 2], "rides": [5, 6], "city": ["a", None], "event_timestamp": stamps}).to_parquet(
        tmp_path / "rides.parquet"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = FeatureStore(repo_path=str(tmp_path))
        source = FileSource(path=str(tmp_path / "rides.parquet"), timestamp_field="event_timestamp")
        schema = [Field(name="driver", dtype=Int64), Field(name="rides", dtype=Int64), Field(name="city", dtype=String)]
        views = [
            FeatureView(name=name, entities=[DRIVER], schema=schema, source=source, ttl=ttl)
            for name, ttl in (("daily", DAY), ("lasting", timedelta(0)))
        ]
        store.apply([DRIVER, *views])
        store.materialize(NOW - 3 * DAY, NOW)
    assert asked(store, ["daily:rides", "lasting:city"], [1, 2, 3]) == {
        "rides": [(5, "PRESENT"), (None, "OUTSIDE_MAX_AGE"), (None, "NOT_FOUND")],
        "city": [("a", "PRESENT"), (None, "NULL_VALUE"), (None, "NOT_FOUND")],
    }


@pytest.mark.parametrize(
    ("age", "ttl", "ours", "expired"),
    [
        (DAY, DAY, False, False),
        (DAY + timedelta(microseconds=1), DAY, False, True),
        (DAY - timedelta(microseconds=1), DAY, True, False),
        (DAY, DAY, True, True),
        (100 * DAY, timedelta(0), True, False),
        (100 * DAY, None, False, False),
        (-DAY, DAY, False, False),
    ],
)
def test_the_edge_of_the_ttl(age: timedelta, ttl: timedelta | None, ours: bool, expired: bool) -> None:
    assert is_expired(age, ttl, ours) is expired
