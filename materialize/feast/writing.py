"""Rows into Feast's online store: into Redis straight from the columns, into every other by Feast's own class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.offline_utils import get_pyarrow_schema_from_batch_source
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.utils import _convert_arrow_to_proto, _validate_vector_field_lengths
from feast.value_type import ValueType

from headrace.materialize.feast.messages import as_encoded, encoded_here, feast_messages
from headrace.materialize.feast.online_store import HeadraceOnlineStore
from headrace.materialize.feast.place import feast_redis_address
from headrace.materialize.feast.reading import LOGGER, MaterializeError, Reading, Work
from headrace.stores.feast_columns import FeastTable
from headrace.stores.redis_bulk import BulkWriter

Progress = Callable[[int], None]
"""Is told how many rows more are written."""

_OTHER_STORES_ROWS = 10_000
"""Rows that another online store is given at a time: a message for each value is held meanwhile."""

_KEY_TYPES = {
    ValueType.STRING: pa.string(),
    ValueType.BYTES: pa.binary(),
    ValueType.INT32: pa.int32(),
    ValueType.INT64: pa.int64(),
    ValueType.UNIX_TIMESTAMP: pa.int64(),
}
"""What Feast takes keys of, and the columns that hold them."""


def write_rows(work: Work, reading: Reading, progress: Progress) -> None:
    """Write the rows of a task online, then offline, as its view says.

    Raises:
        MaterializeError: a column cannot be encoded as its view says. StoreError: Redis refuses or does not answer.
    """
    batches = reading.batches
    kept: list[pa.RecordBatch] = []
    if work.view.offline and not work.plain:  # a plain view's rows come from where they would go
        batches = _keeping(batches, kept)
    if reading.write is not None:
        reading.write(batches, progress)
    elif not work.view.online:
        for batch in batches:
            progress(batch.num_rows)
    elif goes_straight(work):
        _write_redis(work, _keyed(work, batches), progress)
    else:
        _write_by_feast(work, _keyed(work, batches), progress)
    if kept:
        _write_offline(work, pa.Table.from_batches(kept))


def _keeping(batches: Iterator[pa.RecordBatch], kept: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        kept.append(batch)
        yield batch


def _keyed(work: Work, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches with the key of views that have none, and without rows that no lookup could ask for."""
    left_out = 0
    for batch in batches:
        _validate_vector_field_lengths(batch, work.view)
        if work.entityless and DUMMY_ENTITY_ID not in batch.schema.names:
            batch = batch.append_column(DUMMY_ENTITY_ID, pa.array([""] * batch.num_rows))
        for key, kind in work.keys.items():
            batch = batch.set_column(batch.schema.get_field_index(key), key, as_encoded(key, kind, batch.column(key)))
            if batch.column(key).null_count:
                there = batch.filter(pc.is_valid(batch.column(key)))
                left_out += batch.num_rows - there.num_rows
                batch = there
        if batch.num_rows:
            yield batch
    if left_out:
        LOGGER.warning(
            "Feature view '%s': %d rows are left out, since a join key (%s) is null in them: no lookup can ask for "
            "them. Fill the key in the source, or leave such rows out there.",
            *(work.view.name, left_out, ", ".join(work.keys)),
        )


def goes_straight(work: Work) -> bool:
    """Whether the online store is Feast's Redis in the form that is written here; a subclass may write otherwise."""
    store = type(work.online_store)
    return (
        issubclass(store, RedisOnlineStore)
        and store.online_write_batch in (RedisOnlineStore.online_write_batch, HeadraceOnlineStore.online_write_batch)
        and work.config.entity_key_serialization_version == 3
    )


def _write_redis(work: Work, batches: Iterator[pa.RecordBatch], progress: Progress) -> None:
    first = next(batches, None)
    if first is None:
        return
    kinds = {
        feature: kind.value if encoded_here(kind, first.column(feature).type) else None
        for feature, kind in work.features.items()
    }
    versioned = work.config.registry.enable_online_feature_view_versioning
    table = FeastTable(
        project=work.config.project,
        view=compute_versioned_name(work.view, versioned),
        keys=tuple((key, kind.value) for key, kind in work.keys.items()),
        features=tuple(kinds.items()),
    )
    size = work.options.write_batch
    with BulkWriter(
        feast_redis_address(work.config.online_store),
        table=table,
        time=work.time,
        **({"rows_per_portion": size} if size else {}),
        ttl_ms=_ttl_ms(work) if work.options.expire else None,
        key_ttl_s=work.config.online_store.key_ttl_seconds,
    ) as writer:
        batch: pa.RecordBatch | None = first
        while batch is not None:
            writer.write(_encodable(work, batch, kinds))
            progress(batch.num_rows)
            batch = next(batches, None)
        done = writer.finish()
    LOGGER.info(
        "Feature view '%s': %d rows written, %d older than what was there", table.view, done.written, done.older
    )


def _ttl_ms(work: Work) -> int | None:
    """How long after its event a row's key ends; None where a view that shares the key lives forever.

    Raises:
        MaterializeError: Feast's own option ends keys, too.
    """
    if work.config.online_store.key_ttl_seconds:
        raise MaterializeError(
            f"batch_engine has expire: true and online_store has key_ttl_seconds: "
            f"{work.config.online_store.key_ttl_seconds}; both say when keys of Redis end. Take one of them out of "
            "feature_store.yaml."
        )
    for view in work.registry.list_all_feature_views(work.task.project, skip_udf=True):
        keys = {field.name for field in getattr(view, "entity_columns", [])}
        if keys == {field.name for field in work.view.entity_columns} and _rests(view):
            return None
    return int(work.view.ttl.total_seconds() * 1000)


def _rests(view: Any) -> bool:
    """Whether its rows online are never too old. A view on demand that writes its features has no ttl."""
    if isinstance(view, OnDemandFeatureView):
        return bool(view.write_to_online_store)
    return bool(view.online) and not view.ttl


def _encodable(work: Work, batch: pa.RecordBatch, kinds: dict[str, int | None]) -> pa.RecordBatch:
    """The columns that go to Redis; those that are not encoded there as Feast's messages."""
    columns = {key: _key_column(key, kind, batch.column(key)) for key, kind in work.keys.items()}
    for feature, kind in work.features.items():
        values = as_encoded(feature, kind, batch.column(feature))
        if kinds[feature] is None:
            messages = [message.SerializeToString() for message in feast_messages(feature, kind, values)]
            values = pa.array(messages, pa.binary())
        columns[feature] = values
    columns.setdefault(work.time, batch.column(work.time))
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _key_column(key: str, kind: ValueType, values: pa.Array) -> pa.Array:
    """A key as the type that its view says; what is stored as another is converted as Feast converts it."""
    stored = _KEY_TYPES.get(kind)
    if stored is None:
        raise MaterializeError(
            f"its join key '{key}' is of type {kind.name}, of which Feast takes no keys for Redis. Expected one of: "
            f"{', '.join(known.name for known in _KEY_TYPES)}."
        )
    if encoded_here(kind, values.type):
        return values
    messages = feast_messages(key, kind, values)
    return pa.array([getattr(message, f"{kind.name.lower()}_val") for message in messages], stored)


def _write_by_feast(work: Work, batches: Iterator[pa.RecordBatch], progress: Progress) -> None:
    size = work.options.write_batch or work.config.materialization_config.online_write_batch_size
    for batch in batches:
        for start in range(0, batch.num_rows, size or _OTHER_STORES_ROWS):
            part = batch.slice(start, size or _OTHER_STORES_ROWS)
            rows = _convert_arrow_to_proto(part, work.view, work.keys)
            work.online_store.online_write_batch(
                config=work.config, table=work.view, data=rows, progress=lambda rows: None
            )
            progress(part.num_rows)


def _write_offline(work: Work, table: pa.Table) -> None:
    """Hand the rows to Feast's offline store, with the columns in the order that it asks for."""
    source = work.view.batch_source
    stored = {given: column for given, column in work.columns.items() if given in table.column_names}
    renamed = table.rename_columns([stored.get(column, column) for column in table.column_names])
    _, asked = get_pyarrow_schema_from_batch_source(work.config, source)
    if set(asked) <= set(renamed.column_names):
        renamed = renamed.select(asked)
    work.offline_store.offline_write_batch(
        config=work.config, feature_view=work.view, table=renamed, progress=lambda rows: None
    )
