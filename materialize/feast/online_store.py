"""Feast's Redis online store with expiry and honest statuses, for whoever reads through Feast.

    online_store:
        type: headrace.materialize.feast.HeadraceOnlineStore
        connection_string: localhost:6379

Rows are Feast's own, byte for byte. What a read makes of them differs:

                                           Feast 0.67           here, get_online_features       here, online_read
    an entity never written                null, PRESENT        null, NOT_FOUND                 (None, None)
    a feature never written for it         null, PRESENT        null, NOT_FOUND                 left out
    a row older than the view's ttl        its value, PRESENT   null, OUTSIDE_MAX_AGE           (its time, None)
    a value written as null                null, PRESENT        null, NULL_VALUE                an empty Value

A row is as old as its event timestamp; one of Headrace's views as its entity's newest event, since such a row is
written again as its windows move.

What is pushed (`FeatureStore.push`, `write_to_online_store`, the feature server) is compared and written in one step
inside Redis: an older row never covers a newer one, whoever writes meanwhile. Feast's class reads timestamps first and
writes then. A row at the instant of the one that is there takes its place, where Feast drops it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from feast import FeatureView, RepoConfig, utils
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, _versioned_fv_name
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import StrictStr

from headrace.materialize.feast.place import feast_redis_address
from headrace.materialize.feast.pushed_rows import PushedRow, write_pushed
from headrace.stores.feast_rows import field_of
from headrace.stores.layout import NEWEST_EVENT
from headrace.stores.redis_talk import Talk

TAG = "headrace"
"""Tag of the views that `headrace feast apply` registers."""

TIMEOUT_S = 5.0
"""For connecting to write, and for each answer."""

CONNECTIONS = 32
"""The most that write at a time."""

Row = tuple[datetime | None, dict[str, Any] | None]
"""What Feast's readers take: event timestamp and values by feature name; without values there is nothing to give."""


class HeadraceOnlineStoreConfig(RedisOnlineStoreConfig):
    """As Feast's `redis`, with another `type`."""

    type: StrictStr = "headrace.materialize.feast.HeadraceOnlineStore"


@dataclass(frozen=True)
class _Asked:
    """What is read of one view: HMGET of `fields` for each of `keys`.

    Attributes:
        names: features, in the order of the first fields; after them come the row's time and, for a view of
            Headrace's, the newest event.
        indexes: for each key, the rows of the answer that it is for; `length`: how many those are.
    """

    view: FeatureView
    names: list[str]
    fields: list[Any]
    keys: list[bytes]
    indexes: Sequence[Sequence[int]] = ()
    length: int = 0


@dataclass(frozen=True)
class _Found:
    """A row as it was found: `row` as Feast takes it, and whether its values are withheld because of the ttl."""

    row: Row
    expired: bool = False


class HeadraceOnlineStore(RedisOnlineStore):
    """Feast's Redis store whose reads tell what is missing, expired and null; see the table above.

    It overrides `online_read`, `online_read_async` and, since only these see the statuses of an answer,
    `_read_features_per_fv` and `_read_features_per_fv_async` of Feast 0.67: all ways in which Feast reads rows by key,
    in process and behind its feature server. And `online_write_batch` with its async form, which Feast pushes by; the
    setting `skip_dedup` is honoured by Feast's own.
    """

    _talking: tuple[str, Talk] | None = None

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[PushedRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        if config.online_store.skip_dedup:
            super().online_write_batch(config, table, data, progress)
            return
        keys = self._generate_redis_keys_for_entities(config, [key for key, _, _, _ in data])
        title = _versioned_fv_name(table, config)
        write_pushed(self._talk(config), title, keys, data, config.online_store.key_ttl_seconds)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[PushedRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        if config.online_store.skip_dedup:
            await super().online_write_batch_async(config, table, data, progress)
            return
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def _talk(self, config: RepoConfig) -> Talk:
        where = config.online_store.connection_string
        if self._talking is None or self._talking[0] != where:
            self._talking = where, Talk(feast_redis_address(config.online_store), TIMEOUT_S, CONNECTIONS)
        return self._talking[1]

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        asked = self._asked(config, table, entity_keys, requested_features)
        return [found.row for found in _found(asked, self._read_hash_fields(config, _commands([asked])))]

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        asked = self._asked(config, table, entity_keys, requested_features)
        return [found.row for found in _found(asked, await self._read_async(config, [asked]))]

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, list[Value]],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        asked = self._all_asked(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        replies = self._read_hash_fields(config, _commands(asked)) if asked else []
        _answer(asked, replies, online_features_response, full_feature_names, include_feature_view_version_metadata)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, list[Value]],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        asked = self._all_asked(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        replies = await self._read_async(config, asked) if asked else []
        _answer(asked, replies, online_features_response, full_feature_names, include_feature_view_version_metadata)

    def _all_asked(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, list[Value]],
        join_keys: dict[str, str],
    ) -> list[_Asked]:
        found = []
        for view, features in grouped_refs:
            entities, indexes, length = utils._get_unique_entities(view, join_key_values, join_keys)
            keys = utils._get_entity_key_protos(entities)
            found.append(self._asked(config, view, keys, features, indexes, length))
        return found

    def _asked(
        self,
        config: RepoConfig,
        view: FeatureView,
        entity_keys: list[EntityKey],
        features: list[str] | None,
        indexes: Sequence[Sequence[int]] = (),
        length: int = 0,
    ) -> _Asked:
        names = list(features or [feature.name for feature in view.features])
        title = _versioned_fv_name(view, config)
        fields: list[Any] = [field_of(title, name) for name in names]
        fields.append(f"_ts:{title}")
        if _is_ours(view):
            fields.append(field_of(title, NEWEST_EVENT))
        keys = self._generate_redis_keys_for_entities(config, entity_keys)
        return _Asked(view, names, fields, keys, indexes, length)

    async def _read_async(self, config: RepoConfig, asked: Sequence[_Asked]) -> list[Any]:
        client = await self._get_client_async(config.online_store)
        async with client.pipeline(transaction=False) as pipe:
            for key, fields in _commands(asked):
                pipe.hmget(key, fields)
            found: list[Any] = await pipe.execute()
            return found


def is_expired(age: timedelta, ttl: timedelta | None, ours: bool) -> bool:
    """Whether a row of this age is withheld. Without a ttl, or with one of zero, never.

    A row as old as the ttl is valid in a view of Feast's, as it is in a historical read of Feast's, and no longer in
    one of Headrace's.

    >>> day = timedelta(days=1)
    >>> is_expired(day, day, ours=False), is_expired(day, day, ours=True), is_expired(day, timedelta(0), ours=True)
    (False, True, False)
    """
    if not ttl:
        return False
    return age >= ttl if ours else age > ttl


def _is_ours(view: FeatureView) -> bool:
    return TAG in (view.tags or {})


def _commands(asked: Sequence[_Asked]) -> list[tuple[bytes, list[Any]]]:
    return [(key, each.fields) for each in asked for key in each.keys]


def _found(asked: _Asked, replies: Sequence[Sequence[bytes | None]]) -> list[_Found]:
    """The rows in the replies to the commands of `asked`."""
    ttl = getattr(asked.view, "ttl", None)  # a view on demand that writes its features has none
    now, ours, count = datetime.now(UTC), _is_ours(asked.view), len(asked.names)
    parse = Value.FromString
    rows = []
    for reply in replies:
        stamp = reply[count]
        if stamp is None:
            rows.append(_Found((None, None)))
            continue
        at = Timestamp.FromString(stamp).ToDatetime(tzinfo=UTC)
        newest = reply[count + 1] if ours else None
        measured = at if newest is None else _instant(parse(newest), at)
        if is_expired(now - measured, ttl, ours):
            rows.append(_Found((at, None), expired=True))
            continue
        values = {name: parse(data) for name, data in zip(asked.names, reply, strict=False) if data is not None}
        rows.append(_Found((at, values)))
    return rows


def _instant(newest: Value, default: datetime) -> datetime:
    """The newest event of a row, which is written as Int64 microseconds; Feast itself may write it as UnixTimestamp."""
    kind = newest.WhichOneof("val")
    if kind == "unix_timestamp_val":
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=newest.unix_timestamp_val)
    if kind == "int64_val":
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=newest.int64_val)
    return default


def _answer(
    asked: Sequence[_Asked],
    replies: Sequence[Sequence[bytes | None]],
    response: GetOnlineFeaturesResponse,
    full_feature_names: bool,
    with_versions: bool,
) -> None:
    """Append to the response a vector for each feature, as Feast does, and say in it what is expired and null."""
    start = 0
    for each in asked:
        found = _found(each, replies[start : start + len(each.keys)])
        start += len(each.keys)
        first = len(response.results)
        rows = [one.row for one in found]
        utils._populate_response_from_feature_data(
            each.names, rows, each.indexes, response, full_feature_names, each.view, each.length, with_versions
        )
        vectors = response.results[first:]
        for one, places in zip(found, each.indexes, strict=True):
            if one.expired:
                _say(vectors, places, FieldStatus.OUTSIDE_MAX_AGE)
            values = one.row[1] or {}
            null = {name for name, value in values.items() if value.WhichOneof("val") is None}
            if null:
                chosen = [vector for name, vector in zip(each.names, vectors, strict=True) if name in null]
                _say(chosen, places, FieldStatus.NULL_VALUE)


def _say(vectors: Any, places: Sequence[int], status: int) -> None:
    for vector in vectors:
        for place in places:
            vector.statuses[place] = status
