"""The lookup client: features of an entity, as a model server needs them.

client = Client(EmbeddedStore("features/online", read_only=True), [DriverActivity])
vector = client.get(DriverActivity, driver_id="7")
vector["pickups_30m"], vector.status["pickups_30m"], vector.newest_event
client.get_many(DriverActivity, [{"driver_id": "7"}, {"driver_id": "8"}]).to_numpy()
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.features.errors import DataError, DefinitionError, did_you_mean
from headrace.features.reading import read_at
from headrace.features.time import as_datetime, format_instant, instant_us
from headrace.features.views import ViewDefinition, definition
from headrace.serving.vectors import FeatureVector, FeatureVectors, moments
from headrace.stores.online import OnlineStore, StoredRow, View


class OutOfReachError(DataError):
    """The online store cannot tell about that instant: it keeps the newest row of an entity and no other."""


@dataclass(frozen=True)
class _Known:
    """A view and what reading it needs, worked out once."""

    view: ViewDefinition
    moments: dict[str, Any]


class Client:
    """Reads features from an online store. Thread-safe as its store is.

    Args:
        store: an online store, such as `EmbeddedStore(path, read_only=True)`.
        views: the views that may be asked by name; a view given as class or definition needs no mention here.

    Max age, decay and derived features are applied as of the instant asked, the same as in a training set (contract
    C11).
    """

    def __init__(self, store: OnlineStore, views: View | Iterable[View] = ()) -> None:
        self.store = store
        self._known: dict[Any, _Known] = {}
        several = views if isinstance(views, Iterable) and not hasattr(views, "__view__") else [views]
        self._named = {each.name: each for each in map(definition, several)}

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
        t = self._now() if at is None else self._reachable(instant_us(at, "at"))
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
            raise OutOfReachError(
                f"View '{known.view.name}': {dict(key)} was asked as of {format_instant(t)}, but its row in the online "
                "store is "
                f"as of {format_instant(as_of)} and nothing older is kept there. Ask the log: "
                "headrace.materialize.training_set."
            )
        values, status = read_at(known.view, row.values, as_of, newest, t)
        if as_of > t:  # a fresh event shows at once, also ahead of the flow's clock (contract C17)
            moment = as_datetime(as_of)
        shown = _with(values, known.moments)
        return FeatureVector(known.view, key, moment, shown, status, as_datetime(as_of), as_datetime(newest))

    def _now(self) -> int:
        clock = self.store.clock()
        return time.time_ns() // 1000 if clock is None or clock.kind == "wall" else clock.us

    def _reachable(self, t: int) -> int:
        clock = self.store.clock()
        if clock is not None and clock.kind == "stream" and t > clock.us:
            raise OutOfReachError(
                f"The online store was asked as of {format_instant(t)}, but the replay that wrote it stands at "
                f"{format_instant(clock.us)}: what expires after that is not known there. Ask the log: "
                "headrace.materialize.training_set."
            )
        if clock is not None and clock.kind == "wall" and t > time.time_ns() // 1000:
            raise OutOfReachError(f"The online store was asked as of {format_instant(t)}, which is in the future.")
        return t

    def _view(self, view: View | str) -> _Known:
        known = self._known.get(view)
        if known is None:
            known = self._known[view] = self._resolve(view)
        return known

    def _resolve(self, view: View | str) -> _Known:
        if isinstance(view, str):
            if view not in self._named:
                names = tuple(self._named)
                raise DefinitionError(
                    f"No view is named '{view}'{did_you_mean(view, names)} This client knows: "
                    f"{', '.join(names) or 'none'}. "
                    "Give the views to Client(store, [...]) or ask by the class."
                )
            view = self._named[view]
        found = definition(view)
        return _Known(found, moments(found))


def _with(values: dict[str, Any], convert: Mapping[str, Any]) -> dict[str, Any]:
    for name, function in convert.items():
        if values[name] is not None:
            values[name] = function(values[name])
    return values


__all__ = ["Client", "OutOfReachError"]
