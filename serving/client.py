"""The lookup client: features of entities, as a model server needs them.

client = Client(EmbeddedStore("features/online", read_only=True), [DriverActivity, pricing])
client.features("pricing", {"driver_id": ["7", "8"]}, request={"amount": [3.5, 12.0]}).to_numpy()

vector = client.get(DriverActivity, driver_id="7")
vector["pickups_30m"], vector.status["pickups_30m"], vector.newest_event
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from headrace.features.time import instant_us
from headrace.serving.asking import Entities, OutOfReachError, Part, entity_of, instant_of
from headrace.serving.caching import RowCache
from headrace.serving.catalog import Catalog, Known
from headrace.serving.failing import RetryBudget, parts_of, worth_another_try
from headrace.serving.table import FeatureTable
from headrace.serving.vectors import FeatureVector, FeatureVectors
from headrace.stores.lookups import Ask, Looked
from headrace.stores.online import Clock, OnlineStore, View


class Client:
    """Reads features from an online store. Thread-safe as its store is.

    Args:
        store: an online store, such as `EmbeddedStore(path, read_only=True)`.
        known: views and feature services that may be asked by name; one that is given as it is needs no mention here.
        on_failure: what `features` does when a view's rows cannot be had: "raise", or "partial": its values are null
            with status FAILED, and `FeatureTable.failures` says why.
        retries: how many failed calls may be made again; by default none beyond a dead connection's.
        cache: rows that are kept in this process for a while; by default none.

    Max age, decay and derived features are applied as of the instant asked, the same as in a training set (contract
    C11).
    """

    def __init__(
        self,
        store: OnlineStore,
        known: Known | Iterable[Known] = (),
        *,
        on_failure: Literal["raise", "partial"] = "raise",
        retries: RetryBudget | None = None,
        cache: RowCache | None = None,
    ) -> None:
        self.store = store
        self.catalog = Catalog(known)
        self.on_failure, self.retries, self.cache = on_failure, retries, cache

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
        if self.cache is not None and exactly is None:
            kept = self.cache.kept(question.asks)
            if kept.missing:
                kept.take(*self._parts(kept.missing))
            clock, rows = kept.clock, kept.rows
        else:
            clock, rows = self._parts(question.asks)
        return question.answer(rows, instant_of(clock, exactly), exactly is not None)

    def get(
        self,
        view: View | str,
        key: Mapping[str, Any] | None = None,
        /,
        *,
        at: datetime | str | None = None,
        **keys: Any,
    ) -> FeatureVector:
        """One entity's features of one view.

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
        found: FeatureVector = self.get_many(view, [entity_of(key, keys)], at=at)[0]
        return found

    def get_many(
        self, view: View | str, keys: Sequence[Mapping[str, Any]], /, *, at: datetime | str | None = None
    ) -> FeatureVectors:
        """The features of several entities in one read, in the order asked; arguments and errors as `get`."""
        single = self.catalog.single(view)
        exactly = None if at is None else instant_us(at, "at")
        clock, (rows,) = self._looked([single.ask(keys)])
        return single.vectors(keys, rows, instant_of(clock, exactly), exactly is not None)

    def _parts(self, asks: Sequence[Ask]) -> tuple[Clock | None, list[Part]]:
        if self.on_failure == "partial":
            return parts_of(asks, self._looked)
        clock, rows = self._looked(asks)
        return clock, [*rows]

    def _looked(self, asks: Sequence[Ask]) -> Looked:
        if self.retries is None:
            return self.store.look_up(asks)
        self.retries.called()
        while True:
            try:
                return self.store.look_up(asks)
            except Exception as error:
                if not worth_another_try(error) or not self.retries.take():
                    raise


__all__ = ["Client", "OutOfReachError"]
