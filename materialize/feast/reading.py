"""What the engine is given and what it reads: a task of Feast's, and its rows as record batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from feast import RepoConfig
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.common.materialization_job import MaterializationTask
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.utils import _get_column_names
from feast.value_type import ValueType

from headrace.features.errors import HeadraceError
from headrace.materialize.feast.options import HeadraceEngineConfig

_BATCH_ROWS, _BATCH_BYTES = 1 << 16, 1 << 25
_VECTOR = 2048
"""Rows that DuckDB works on at a time."""

LOGGER = logging.getLogger("headrace.materialize.feast")


class MaterializeError(HeadraceError):
    """A feature view of Feast's could not be materialized; the message names it, its source and the next move."""


@dataclass(frozen=True)
class Work:
    """One task of Feast's with all that reading and writing need.

    Attributes:
        registry, task, config, offline_store, online_store: Feast's. options: the engine's, as in feature_store.yaml.
    """

    registry: BaseRegistry
    task: MaterializationTask
    config: RepoConfig
    offline_store: OfflineStore
    online_store: OnlineStore
    options: HeadraceEngineConfig

    @property
    def view(self) -> Any:
        """The feature view of the task."""
        return self.task.feature_view

    @cached_property
    def keys(self) -> dict[str, ValueType]:
        """Join key -> its type; Feast's dummy key for a view without entities."""
        found = {field.name: field.dtype.to_value_type() for field in self.view.entity_columns}
        return found or {DUMMY_ENTITY_ID: ValueType.STRING}

    @property
    def entityless(self) -> bool:
        """Whether all rows of the view are of one entity, Feast's dummy."""
        return set(self.keys) == {DUMMY_ENTITY_ID}

    @cached_property
    def features(self) -> dict[str, ValueType]:
        """Feature -> its type."""
        return {field.name: field.dtype.to_value_type() for field in self.view.features}

    @property
    def time(self) -> str:
        """The column of event timestamps, as it is called after the field mapping."""
        return str(self.view.batch_source.timestamp_field)

    @property
    def created(self) -> str | None:
        """The column of created timestamps, as it is called after the field mapping."""
        return self.view.batch_source.created_timestamp_column or None

    @cached_property
    def columns(self) -> dict[str, str]:
        """Column of the view -> column of its source: join keys, features, time and created."""
        back = {given: stored for stored, given in (self.view.batch_source.field_mapping or {}).items()}
        keys = [] if self.entityless else list(self.keys)
        names = [*keys, *self.features, self.time, *([self.created] if self.created else [])]
        return {name: back.get(name, name) for name in names}

    @cached_property
    def source_columns(self) -> tuple[list[str], list[str], str, str | None]:
        """Join keys, features, time and created as the source calls them: what Feast asks its offline stores for."""
        entities = [self.registry.get_entity(name, self.task.project) for name in self.view.entities]
        keys, features, time, created = _get_column_names(self.view, entities)
        return list(keys), list(features), str(time), created or None

    @property
    def latest(self) -> bool:
        """Whether the newest row of each entity is asked for, and not all rows in order."""
        return bool(self.task.only_latest or self.config.materialization_config.pull_latest_features)

    @property
    def plain(self) -> bool:
        """Whether the view's rows are its source's: nothing is computed, joined, filtered or validated on the way."""
        view = self.view
        return bool(view.batch_source) and not (
            getattr(view, "source_views", None)
            or getattr(view, "feature_transformation", None)
            or getattr(view, "aggregations", None)
            or getattr(view, "filter", None)
            or getattr(view, "enable_validation", False)
        )


@dataclass(frozen=True)
class Reading:
    """The rows of a task.

    Attributes:
        batches: columns are called as the view calls them: join keys, features, the event timestamp; other columns are
        left alone. rows: how many there will be, if that is known. write: another way of writing than the engine's
        own; takes the batches, and what to call with the number of rows done.
    """

    batches: Iterator[pa.RecordBatch]
    rows: int | None
    write: Callable[[Iterator[pa.RecordBatch], Callable[[int], None]], None] | None = None


def batch_rows(size: int, rows: int) -> int:
    """How many rows a batch has: 65,536, or fewer where `rows` rows take `size` bytes and a batch would beyond 32 MB.

    >>> batch_rows(100_000_000, 1_000_000), batch_rows(4_000_000_000, 1_000_000), batch_rows(0, 0)
    (65536, 8192, 65536)
    """
    fitting = _BATCH_BYTES * rows // max(size, 1) if size else _BATCH_ROWS
    return min(_BATCH_ROWS, max(_VECTOR, fitting // _VECTOR * _VECTOR))


Reader = Callable[[Work], AbstractContextManager[Reading] | None]
"""Reads a task, or leaves it to the next reader."""
