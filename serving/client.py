"""The lookup client: features of entities, as a model server needs them.

client = Client(EmbeddedStore("features/online", read_only=True), [DriverActivity, pricing])
client.features("pricing", {"driver_id": ["7", "8"]}, request={"amount": [3.5, 12.0]}).to_numpy()

vector = client.get(DriverActivity, driver_id="7")
vector["pickups_30m"], vector.status["pickups_30m"], vector.newest_event
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headrace.features.time import instant_us
from headrace.serving.asking import Entities, OutOfReachError, Part, entity_of, instant_of
from headrace.serving.failing import parts_of
from headrace.serving.lookups import Lookups
from headrace.serving.table import FeatureTable
from headrace.serving.vectors import FeatureVector, FeatureVectors
from headrace.stores.lookups import Ask, Looked
from headrace.stores.online import Clock, View


class Client(Lookups):
    """Reads features from an online store. Thread-safe as its store is. Arguments are those of `Lookups`:

    Args:
        store: an online store, or its address. known: views and services that may be asked by name. on_failure,
        retries, cache, watchers, project, layout: see `Lookups`.

    Max age, decay and derived features are applied as of the instant asked, the same as in a training set (contract
    C11).
    """

    def features(
        self,
        asked: Any,
        entities: Entities,
        /,
        *,
        request: Mapping[str, Sequence[Any]] | None = None,
        at: datetime | str | None = None,
        full_names: bool = False,
        trace: str | None = None,
    ) -> FeatureTable:
        """Features of several views for several entities, in one round trip.

        Args:
            asked: a feature service or its name; or a list of views, of their names, of `View["feature"]` and of
                `"view:feature"`.
            entities: key column -> n values, or n mappings of key column -> value; the key columns of all views.
            request: n values for each `Request` of the service.
            at: the instant asked, as in `get`.
            full_names: of a list: name every feature `view__feature`, not only where two views have one of that name.
            trace: passed on to the watchers, so that they can name the call.

        Raises:
            DataError: a key or a request column is missing, unknown or of another type.
            DefinitionError: there is no such service, view or feature.
            OutOfReachError: as `get`.
            SchemaMismatchError: as `get`.
        """
        watched, plan = self._watchers.call(trace), None
        try:
            plan = self.catalog.plan(asked, full_names)
            question = plan.question(entities, request)
            exactly = None if at is None else instant_us(at, "at")
            if self.cache is not None and exactly is None:
                kept = self.cache.kept(question.asks)
                if kept.missing:
                    kept.take(*self._parts(kept.missing))
                clock, rows = kept.clock, kept.rows
            else:
                clock, rows = self._parts(question.asks)
            table = question.answer(rows, instant_of(clock, exactly), exactly is not None)
        except Exception as error:
            if watched is not None:
                watched.failed(plan, error)
            raise
        if watched is not None:
            watched.answered(question, table)
        return table

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
                if not self._again(error):
                    raise

    def close(self) -> None:
        """Close the store, if the client opened it."""
        self._close_store()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["Client", "OutOfReachError"]
