"""The lookup client: features of an entity, as a model server needs them.

client = Client(EmbeddedStore("features/online", read_only=True), [DriverActivity])
vector = client.get(DriverActivity, driver_id="7")
vector["pickups_30m"], vector.status["pickups_30m"], vector.newest_event
client.get_many(DriverActivity, [{"driver_id": "7"}, {"driver_id": "8"}]).to_numpy()
client.features(pricing, {"driver_id": ["7", "8"]}, request={"amount": [3.5, 12.0]}).to_numpy()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.features.errors import DataError
from headrace.features.reading import read_at
from headrace.features.time import as_datetime, instant_us
from headrace.features.views import ViewDefinition, definition
from headrace.serving.asking import Entities, OutOfReachError, instant_of, out_of_reach
from headrace.serving.catalog import Catalog, Known
from headrace.serving.table import FeatureTable
from headrace.serving.vectors import FeatureVector, FeatureVectors, moments
from headrace.stores.online import OnlineStore, StoredRow, View


@dataclass(frozen=True)
class _Known:
    """A view and what reading it needs, worked out once."""

    view: ViewDefinition
    moments: dict[str, Any]


class Client:
    """Reads features from an online store. Thread-safe as its store is.

    Args:
        store: an online store, such as `EmbeddedStore(path, read_only=True)`.
        known: views and feature services that may be asked by name; one that is given as it is needs no mention here.

    Max age, decay and derived features are applied as of the instant asked, the same as in a training set (contract
    C11).
    """

    def __init__(self, store: OnlineStore, known: Known | Iterable[Known] = ()) -> None:
        self.store = store
        self.catalog = Catalog(known)
        self._known: dict[Any, _Known] = {}

    def features(
        self,
        asked: Any,
        entities: Entities,
        /,
        *,
        request: Mapping[str, Sequence[Any]] | None = None,
        at: datetime | str | None = None,
        full_names: bool = False,
    ) -> FeatureTable:
        """Features of several views for several entities, in one round trip.

        Args:
            asked: a feature service or its name; or a list of views, of their names, of `View["feature"]` and of
                `"view:feature"`.
            entities: key column -> n values, or n mappings of key column -> value; the key columns of all views.
            request: n values for each `Request` of the service.
            at: the instant asked, as in `get`.
            full_names: of a list: name every feature `view__feature`, not only where two views have one of that name.

        Raises:
            DataError: a key or a request column is missing, unknown or of another type.
            DefinitionError: there is no such service, view or feature.
            OutOfReachError: as `get`.
            SchemaMismatchError: as `get`.
        """
        question = self.catalog.plan(asked, full_names).question(entities, request)
        exactly = None if at is None else instant_us(at, "at")
        looked = self.store.look_up(question.asks)
        return question.answer(looked.rows, instant_of(looked.clock, exactly), exactly is not None)

    def get(
        self,
        view: View | str,
        key: Mapping[str, Any] | None = None,
        /,
        *,
        at: datetime | str | None = None,
        **keys: Any,
    ) -> FeatureVector:
        """One entity's features.

        Args:
            view: the view: its class, its definition or its name.
            key: the entity, key column -> value; or give the columns as keywords.
            at: the instant asked, an aware datetime or ISO text with a zone. By default now: the wall clock, or where
                the replay stands that wrote the store.

        Raises:
            DataError: a key is missing, unknown or of another type.
            OutOfReachError: the store's row is of after `at`, or `at` is later than the store's flow has come.
            SchemaMismatchError: the store's rows are of another definition of the view.
        """
        if key is not None and keys:
            raise DataError(f"get: the entity is given twice, as {dict(key)} and as {keys}. Give it once.")
        return self._read(view, [keys if key is None else key], at)[0]

    def get_many(
        self, view: View | str, keys: Sequence[Mapping[str, Any]], /, *, at: datetime | str | None = None
    ) -> FeatureVectors:
        """The features of several entities in one read, in the order asked; arguments and errors as `get`."""
        known = self._view(view)
        return FeatureVectors(known.view, self._read(view, keys, at))

    def _read(
        self, view: View | str, keys: Sequence[Mapping[str, Any]], at: datetime | str | None
    ) -> list[FeatureVector]:
        known = self._view(view)
        # The clock is read before the rows: rows may then be newer than it, which is right, but never older.
        t = instant_of(self.store.clock(), None if at is None else instant_us(at, "at"))
        rows = self.store.read(known.view, keys)
        moment = as_datetime(t)
        return [
            self._vector(known, key, row, t, moment, exactly=at is not None)
            for key, row in zip(keys, rows, strict=True)
        ]

    def _vector(
        self, known: _Known, key: Mapping[str, Any], row: StoredRow | None, t: int, moment: datetime, exactly: bool
    ) -> FeatureVector:
        if row is None:
            values, status = read_at(known.view, None, None, None, t)
            return FeatureVector(known.view, key, moment, _with(values, known.moments), status, None, None)
        as_of, newest = row.event_timestamp_us, row.newest_event_us
        if exactly and as_of > t:
            raise out_of_reach(known.view.name, key, as_of, t)
        values, status = read_at(known.view, row.values, as_of, newest, t)
        if as_of > t:  # a fresh event shows at once, also ahead of the flow's clock (contract C17)
            moment = as_datetime(as_of)
        shown = _with(values, known.moments)
        return FeatureVector(known.view, key, moment, shown, status, as_datetime(as_of), as_datetime(newest))

    def _view(self, view: View | str) -> _Known:
        known = self._known.get(view)
        if known is None:
            known = self._known[view] = self._resolve(view)
        return known

    def _resolve(self, view: View | str) -> _Known:
        if isinstance(view, str):
            view = self.catalog.view(view)
        found = definition(view)
        return _Known(found, moments(found))


def _with(values: dict[str, Any], convert: Mapping[str, Any]) -> dict[str, Any]:
    for name, function in convert.items():
        if values[name] is not None:
            values[name] = function(values[name])
    return values


__all__ = ["Client", "OutOfReachError"]
