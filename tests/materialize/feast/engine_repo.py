"""Feast repositories of the engine's tests: one registry, one engine, one online store, views made in a line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.servers.fixtures import RedisAddress

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast import types as feast_types
    from feast.infra.common.materialization_job import MaterializationTask
    from feast.repo_config import RegistryConfig
    from feast.value_type import ValueType

OURS = "headrace.materialize.feast.HeadraceEngine"
T0 = datetime(2026, 5, 1, 12, tzinfo=UTC)
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
DRIVER_ID = Field(name="driver_id", dtype=feast_types.Int64)
TRIPS = Field(name="trips", dtype=feast_types.Int64)
PATTERN = dict[str, Sequence[Any]]


def at(seconds: float) -> datetime:
    """An instant so long after T0."""
    return T0 + timedelta(seconds=seconds)


def write(path: Path, columns: PATTERN | pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), path)
    return path


def rides(*rows: tuple[int | None, float, int]) -> pa.Table:
    """Rows (driver, seconds after T0, trips)."""
    return pa.table(
        {
            "driver_id": pa.array([driver for driver, _, _ in rows], pa.int64()),
            "event_timestamp": pa.array([at(seconds) for _, seconds, _ in rows], pa.timestamp("us", "UTC")),
            "trips": pa.array([trips for _, _, trips in rows], pa.int64()),
        }
    )


def trips_view(path: Path, name: str = "trips_of", **options: Any) -> FeatureView:
    """The view of `rides`."""
    source = FileSource(path=str(path), timestamp_field="event_timestamp", name=f"source_of_{name}")
    given = {"entities": [DRIVER], "schema": [DRIVER_ID, TRIPS], "source": source, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureView(name=name, **given)


class Repo:
    """A Feast repository.

    Args:
        folder: for its registry. online: a Redis, or options of another online store. engine: options of Feast's
        `batch_engine`. offline: type of the offline store. others: of RepoConfig.
    """

    def __init__(
        self,
        folder: Path,
        online: RedisAddress | dict[str, Any],
        *objects: Any,
        engine: dict[str, Any] | str = OURS,
        offline: str = "file",
        registry: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        if isinstance(online, RedisAddress):
            online = {
                "type": "redis",
                "connection_string": f"127.0.0.1:{online.port},db={online.url.rpartition('/')[2]}",
            }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = RepoConfig(
                project="p",
                provider="local",
                registry=RegistryConfig(path=str(folder / "registry.db"), **(registry or {})),
                online_store=online,
                offline_store={"type": offline},
                batch_engine={"type": engine} if isinstance(engine, str) else engine,
                entity_key_serialization_version=3,
                **others,
            )
            self.store = FeatureStore(config=config)
            self.store.apply([DRIVER, *objects])

    def materialize(self, start: float = -3600, end: float = 3600, views: list[str] | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.store.materialize(at(start), at(end), feature_views=views)

    def run(self, view: str, start: float = -3600, end: float = 3600, **task: Any) -> Any:
        """The job of one task."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            engine = self.store._get_provider().batch_engine
            found = self.store._registry.get_any_feature_view(view, "p")
            asked = MaterializationTask(project="p", feature_view=found, start_time=at(start), end_time=at(end), **task)
            (job,) = engine.materialize(self.store._registry, asked)
            return job

    def read(
        self, view: str, feature: str = "trips", key: str = "driver_id", values: Sequence[Any] = (1, 2)
    ) -> list[Any]:
        """A feature of some entities, as Feast's users get it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = [{key: value} for value in values]
            found = self.store.get_online_features(features=[f"{view}:{feature}"], entity_rows=rows).to_dict()
        return list(found[feature])


def hashes(server: RedisAddress) -> dict[bytes, dict[bytes, bytes]]:
    """All that Redis holds."""
    with server.client() as client:
        return {key: client.hgetall(key) for key in client.scan_iter()}
