"""Which features a training set has, from which views, under which names: views, some of their features, a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.features import derivation, dtypes
from headrace.features.errors import DataError, DefinitionError
from headrace.features.naming import NamedFeature
from headrace.features.reading import column_of, status_codes
from headrace.features.services import FeatureOf, FeatureService, Request, ServedFeature, served_features
from headrace.features.views import ViewDefinition
from headrace.materialize.spine import check_column, column_named

if TYPE_CHECKING:
    from headrace.features.evaluate import Pair


@dataclass(frozen=True)
class AskedFeatures:
    """What is asked for each row of a spine.

    Attributes:
        stored: features of views, by title (column of the result) in order.
        on_demand: computed after them, from `inputs` (features of views, by reference) and from `request` (columns of
            the spine).
    """

    stored: tuple[tuple[str, ServedFeature], ...]
    on_demand: tuple[NamedFeature, ...] = ()
    inputs: Mapping[str, FeatureOf] | None = None
    request: tuple[Request, ...] = ()

    @property
    def views(self) -> dict[ViewDefinition, tuple[str, ...]]:
        """The features that are read of each view."""
        read: dict[ViewDefinition, dict[str, None]] = {}
        for _, each in self.stored:
            read.setdefault(each.view, {})[each.feature] = None
        for of in (self.inputs or {}).values():
            read.setdefault(of.view, {})[of.name] = None
        return {view: tuple(names) for view, names in read.items()}

    @property
    def titles(self) -> tuple[str, ...]:
        return (*(title for title, _ in self.stored), *(each.name for each in self.on_demand))

    def check(self, spine: pa.Schema, statuses: bool, endings: tuple[str, ...] = ("",)) -> None:
        """Raises DataError: a column would stand in the result twice, or the spine lacks one of the request.

        Args:
            endings: of the names of each feature's columns.
        """
        owner = dict.fromkeys(spine.names, "the spine")
        of = [(title, f"view '{each.view.name}'") for title, each in self.stored]
        for title, where in [*of, *((each.name, "the service") for each in self.on_demand)]:
            named = [title + ending for ending in endings]
            for column in [*named, *(f"{each}__status" for each in named)] if statuses else named:
                if column in owner:
                    advice = (
                        "Rename the spine's column." if "__" in title else "Give prefix=True, or rename one of them."
                    )
                    raise DataError(f"Column '{column}' would come from {owner[column]} and from {where}. {advice}")
                owner[column] = where
        for each in self.request:
            check_column(spine, each.name, f"{each.name} of the service's request, {each.dtype}")

    def computed(
        self, portion: pa.Table, values: Mapping[tuple[str, str], Pair], first: int
    ) -> dict[str, tuple[Pair, Any]]:
        """Values and status codes of the features on demand.

        Args:
            portion: n rows of the spine. values: by view and feature, (n,). first: row of the spine that it begins
                with, for errors.

        Raises:
            DataError: a value of the request is of another type.
        """
        if not self.on_demand:
            return {}
        inputs = self.inputs or {}
        columns = {ref: values[of.view.name, of.name] for ref, of in inputs.items()}
        columns |= {each.name: _given(portion, each, first) for each in self.request}
        types = {ref: of.dtype for ref, of in inputs.items()} | {each.name: each.dtype for each in self.request}
        types |= {each.name: each.feature.dtype for each in self.on_demand}
        made = derivation.derive(self.on_demand, columns, types, portion.num_rows)
        return {
            each.name: (made[each.name], status_codes(made[each.name], each.feature.default)) for each in self.on_demand
        }


def asked_features(features: Any, prefix: bool) -> AskedFeatures:
    """What was asked: a feature service, or views and features of views, one or several.

    Args:
        prefix: name each `<view>__<feature>`; a service has names of its own.

    Raises:
        DefinitionError: something else; a feature twice; a service with prefix.
    """
    if isinstance(features, FeatureService):
        if prefix:
            raise DefinitionError(
                f"training_set: service '{features.name}' names its features itself. Leave prefix= out, or give the "
                "service full_names=True."
            )
        stored = tuple((each.name, each) for each in features.features)
        return AskedFeatures(stored, features.on_demand, features.inputs, features.request)
    if not isinstance(features, (list, tuple)) and not isinstance(features, (ViewDefinition, FeatureOf, type)):
        features = list(features)
    found = served_features("training_set", features, full_names=True)
    return AskedFeatures(tuple((each.name if prefix else each.feature, each) for each in found))


def _given(portion: pa.Table, request: Request, first: int) -> Pair:
    """A column of the request as lookups take it: null and NaN are missing, anything else is of the type declared."""
    values = column_named(portion, request.name, "of the request").to_pylist()
    out = []
    for at, value in enumerate(values):
        missing = value is None or value != value
        try:
            out.append(None if missing else dtypes.coerce(value, request.dtype, request.name))
        except DefinitionError as error:
            raise DataError(f"Row {first + at} of the spine: request: {error}") from None
    return column_of(out, request.dtype)


def statuses_column(codes: Any) -> pa.Array:
    """Codes of `STATUSES` as their names, stored once."""
    from headrace.features.reading import STATUSES

    return pa.DictionaryArray.from_arrays(pa.array(np.asarray(codes)), pa.array([str(each) for each in STATUSES]))
