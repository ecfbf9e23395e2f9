"""Feast's side: a registry of our views, read by its SDK from Redis, by its own HTTP server and by its HTTP client."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from requests.exceptions import RetryError
from tests.stores.feast_repo import feast_view

from headrace.features.services import FeatureService
from headrace.stores.layout import row_layout

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from fastapi.testclient import TestClient
    from feast import Entity, FeatureStore, FeatureView, PushSource, RepoConfig
    from feast import FeatureService as TheirService
    from feast.feature_server import get_app
    from feast.infra.online_stores.remote import RemoteOnlineStore
    from feast.online_response import OnlineResponse
    from feast.permissions.client.http_auth_requests_wrapper import HttpSessionManager
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.value_type import ValueType

PROJECT = "compat"
WORDS = {number: name for name, number in FieldStatus.items()}


@dataclass(frozen=True)
class Cells:
    """A column of an answer as Feast's users see it: n values, n words of status."""

    values: list[Any]
    statuses: list[str]


def registered(
    folder: Path, views: Sequence[Any], services: Sequence[FeatureService] = (), *, pushed: bool = False
) -> Path:
    """A registry that knows the views and those services of ours that Feast can express.

    Args:
        pushed: the views have push sources, named as they are with "_push", and no `newest_event`.
    """
    store = _store(folder / "registry.db", {"type": "sqlite", "path": str(folder / "none.db")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {}
        for view in views:
            keys = row_layout(view).keys
            entities = [Entity(name=name, join_keys=[name], value_type=ValueType[of.upper()]) for name, of in keys]
            known[view.name] = _pushed(feast_view(view)) if pushed else feast_view(view)
            store.apply([*entities, known[view.name]])
        for service in services:
            chosen: dict[str, list[str]] = {}
            for each in service.features:
                chosen.setdefault(each.view.name, []).append(each.feature)
            features = [known[name][names] for name, names in chosen.items()]
            store.apply([TheirService(name=service.name, features=features)])
    return folder / "registry.db"


def _pushed(view: Any) -> Any:
    """The view as its users push into it."""
    kept = [field for field in view.schema if field.name != "newest_event"]
    source = PushSource(name=f"{view.name}_push", batch_source=view.batch_source)
    entities = [Entity(name=name, join_keys=[name], value_type=of.dtype.to_value_type()) for name, of in _keys(view)]
    return FeatureView(name=view.name, entities=entities, schema=kept, source=source)


def _keys(view: Any) -> list[tuple[str, Any]]:
    return [(column.name, column) for column in view.entity_columns]


def _store(registry: Path, online: dict[str, Any], auth: dict[str, Any] | None = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = RepoConfig(
            project=PROJECT,
            provider="local",
            registry={"registry_type": "file", "path": str(registry)},
            online_store=online,
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
            **({} if auth is None else {"auth": auth}),
        )
        return FeatureStore(config=config)


def on_redis(registry: Path, port: int, db: int) -> Any:
    """Feast's SDK beside the same Redis."""
    return _store(registry, {"type": "redis", "connection_string": f"127.0.0.1:{port},db={db}"})


@contextmanager
def remote(registry: Path, url: str, auth: dict[str, Any] | None = None, **options: Any) -> Iterator[Any]:
    """Feast's SDK with a feature server in place of a store; its HTTP session is one for the process."""
    try:
        yield _store(registry, {"type": "remote", "path": url, **options}, auth)
    finally:
        HttpSessionManager.close_session()


@contextmanager
def feast_server(store: Any) -> Iterator[TestClient]:
    """Feast's own feature server, in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with TestClient(get_app(store, registry_ttl_sec=0)) as client:
            yield client


def asked(store: Any, features: Any, entities: Any, **options: Any) -> dict[str, Cells]:
    """What `get_online_features` gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer: OnlineResponse = store.get_online_features(features=features, entity_rows=entities, **options)
        values = answer.to_dict()
    proto = answer.proto
    words = {
        name: [WORDS[status] for status in vector.statuses]
        for name, vector in zip(proto.metadata.feature_names.val, proto.results, strict=True)
    }
    return {name: Cells(column, words[name]) for name, column in values.items()}


__all__ = ["EntityKey", "RemoteOnlineStore", "RetryError", "TestClient", "Value"]
