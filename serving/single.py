"""Lookups of one view: entities to an ask, its rows to feature vectors. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.features.reading import read_at
from headrace.features.time import as_datetime
from headrace.features.views import ViewDefinition
from headrace.serving.asking import out_of_reach
from headrace.serving.vectors import FeatureVector, FeatureVectors, moments
from headrace.stores.keys import key_values
from headrace.stores.layout import row_layout
from headrace.stores.lookups import Ask, FoundRow


class SingleView:
    """A view and what reading all its features needs, worked out once."""

    def __init__(self, view: ViewDefinition) -> None:
        self.view, self._layout, self._moments = view, row_layout(view), moments(view)

    def ask(self, keys: Sequence[Mapping[str, Any]]) -> Ask:
        """What to ask a store. Raises DataError for a key that is missing, unknown or of another type."""
        plain = [key_values(self.view.name, self._layout.keys, key) for key in keys]
        return Ask(self._layout, self._layout.feature_names, plain)

    def vectors(
        self, keys: Sequence[Mapping[str, Any]], rows: Sequence[FoundRow | None], t_us: int, exactly: bool
    ) -> FeatureVectors:
        """The vectors at t, from the rows that the ask found.

        Raises:
            OutOfReachError: with `exactly`, a row is of after t.
        """
        made = [self._vector(key, row, t_us, exactly) for key, row in zip(keys, rows, strict=True)]
        return FeatureVectors(self.view, made)

    def _vector(self, key: Mapping[str, Any], row: FoundRow | None, t_us: int, exactly: bool) -> FeatureVector:
        if row is None:
            values, status = read_at(self.view, None, None, None, t_us)
            return FeatureVector(self.view, key, as_datetime(t_us), self._shown(values), status, None, None)
        stored, as_of, newest = row
        if exactly and as_of > t_us:
            raise out_of_reach(self.view.name, key, as_of, t_us)
        named = dict(zip(self._layout.feature_names, stored, strict=True))
        values, status = read_at(self.view, named, as_of, newest, t_us)
        # A fresh event shows at once, also ahead of the flow's clock (contract C17).
        moment, times = as_datetime(max(t_us, as_of)), (as_datetime(as_of), as_datetime(newest))
        return FeatureVector(self.view, key, moment, self._shown(values), status, *times)

    def _shown(self, values: dict[str, Any]) -> dict[str, Any]:
        for name, function in self._moments.items():
            if values[name] is not None:
                values[name] = function(values[name])
        return values
