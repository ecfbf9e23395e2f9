"""A Feast repository on the tests' Redis: Feast's own view of rows that Headrace wrote, and rows that Feast writes."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.features.dtypes import split_list, split_map
from headrace.stores.layout import row_layout

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast import types as feast_types
    from feast.infra.online_stores.redis import RedisOnlineStoreConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.repo_config import RegistryConfig
    from feast.type_map import feast_value_type_to_python_type as python_type
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

SCALARS = {
    "int64": feast_types.Int64,
    "float64": feast_types.Float64,
    "string": feast_types.String,
    "bytes": feast_types.Bytes,
    "bool": feast_types.Bool,
    "timestamp": feast_types.UnixTimestamp,
}


def feast_type(dtype: str) -> Any:
    """Feast's type of a column type of ours."""
    element, pair = split_list(dtype), split_map(dtype)
    if element is not None:
        return feast_types.Array(SCALARS[element])
    if pair is not None:
        return feast_types.Map if pair[0] == "string" else feast_types.ScalarMap
    return SCALARS[dtype]


def python_value(value: Any, dtype: str) -> Any:
    """A value of ours as Feast takes and gives it: instants as datetimes, the rest as it is."""
    element, pair = split_list(dtype), split_map(dtype)
    if value is None:
        return None
    if element is not None:
        return [python_value(each, element) for each in value]
    if pair is not None:
        return {python_value(key, pair[0]): python_value(each, pair[1]) for key, each in value.items()}
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value) if dtype == "timestamp" else value


def feast_message(value: Any, dtype: str) -> Any:
    """Feast's own message of a value, made by Feast."""
    kind = feast_type(dtype).to_value_type()
    return python_values_to_proto_values([python_value(value, dtype)], kind)[0]


def feast_view(view: Any) -> FeatureView:
    """A Feast view with the columns of ours, `newest_event` among them."""
    layout = row_layout(view)
    # Feast takes its join keys by entity; one entity of Feast's has one.
    entities = [Entity(name=name, join_keys=[name], value_type=ValueType[dtype.upper()]) for name, dtype in layout.keys]
    return FeatureView(
        name=layout.view,
        entities=entities,
        schema=[
            *(Field(name=name, dtype=SCALARS[dtype]) for name, dtype in layout.keys),
            Field(name="newest_event", dtype=feast_types.Int64),
            *(Field(name=name, dtype=feast_type(dtype)) for name, dtype in layout.features),
        ],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )


class FeastRepo:
    """A Feast repository whose online store is Redis.

    Args:
        folder: for its registry. port, db: of Redis. views: views of ours that Feast shall know.
    """

    def __init__(self, folder: Path, port: int, db: int, project: str, *views: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = RepoConfig(
                project=project,
                provider="local",
                registry=RegistryConfig(path=str(folder / "registry.db")),
                online_store=RedisOnlineStoreConfig(connection_string=f"127.0.0.1:{port},db={db}"),
                offline_store={"type": "file"},
                entity_key_serialization_version=3,
            )
            self.store = FeatureStore(config=config)
            for view in views:
                made = feast_view(view)
                self.store.apply([*self._entities(view), made])

    @staticmethod
    def _entities(view: Any) -> list[Entity]:
        return [
            Entity(name=name, join_keys=[name], value_type=ValueType[dtype.upper()])
            for name, dtype in row_layout(view).keys
        ]

    def read(self, view: Any, keys: list[dict[str, Any]], features: list[str]) -> dict[str, list[Any]]:
        """What Feast's users get: feature -> values."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = row_layout(view).view
            asked = [f"{name}:{feature}" for feature in features]
            found: dict[str, list[Any]] = self.store.get_online_features(features=asked, entity_rows=keys).to_dict()
            return found

    def write(self, view: Any, rows: list[tuple[dict[str, Any], dict[str, Any], int]]) -> None:
        """Rows as Feast writes them, by its own online store: key, values as ours, event_timestamp in microseconds.

        `newest_event` is written when it is among the values.
        """
        layout = row_layout(view)
        dtypes = {**dict(layout.features), "newest_event": "int64"}
        data = []
        for key, values, at in rows:
            entity = EntityKey(
                join_keys=list(key),
                entity_values=[feast_message(key[name], dtype) for name, dtype in layout.keys],
            )
            messages = {name: feast_message(value, dtypes[name]) for name, value in values.items()}
            data.append((entity, messages, python_value(at, "timestamp"), None))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = self.store.get_feature_view(layout.view)
            provider = self.store._get_provider()
            provider.online_write_batch(self.store.config, made, data, None)


__all__ = ["FeastRepo", "Value", "feast_message", "feast_type", "python_type", "python_value"]
