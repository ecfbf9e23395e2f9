"""What a lookup gives: one entity's feature vector, or those of many as a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BOOL, FLOAT, INT, TIMESTAMP, split_list, split_map
from headrace.features.errors import DataError, did_you_mean
from headrace.features.reading import Status
from headrace.features.time import as_datetime
from headrace.features.views import ViewDefinition

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_NUMERIC = (FLOAT, INT, BOOL)


class FeatureVector(Mapping[str, Any]):
    """The features of one entity at one instant: a mapping from name to value, in the order of the definition.

    Instants are aware datetimes, null is None.

    Attributes:
        view: the definition of the view.
        key: the entity.
        at: the instant that was asked, as an aware datetime.
        status: by feature, what the value is; see `headrace.features.reading.Status`.
        event_timestamp: the instant the stored row is as of; None for an entity that was never seen.
        newest_event: the newest event of the entity that the view took; None for an entity that was never seen.
    """

    __slots__ = ("_values", "at", "event_timestamp", "key", "newest_event", "status", "view")

    def __init__(
        self,
        view: ViewDefinition,
        key: Mapping[str, Any],
        at: datetime,
        values: Mapping[str, Any],
        status: Mapping[str, Status],
        event_timestamp: datetime | None,
        newest_event: datetime | None,
    ) -> None:
        self.view = view
        self.key = dict(key)
        self.at = at
        self.status = dict(status)
        self.event_timestamp = event_timestamp
        self.newest_event = newest_event
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            known = tuple(self._values)
            raise KeyError(
                f"View '{self.view.name}' has no feature '{name}'{did_you_mean(name, known)} "
                f"Its features are: {', '.join(known)}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def to_dict(self) -> dict[str, Any]:
        """Name -> value, in the order of the definition."""
        return dict(self._values)

    def to_numpy(self, features: Sequence[str] | None = None) -> npt.NDArray[np.float64]:
        """The values as (f,) float64, NaN for null; arguments and errors as `FeatureVectors.to_numpy`."""
        row: npt.NDArray[np.float64] = _matrix(self.view, [self._values], features)[0]
        return row

    def __repr__(self) -> str:
        key = ", ".join(f"{name}={value!r}" for name, value in self.key.items())
        return f"FeatureVector({self.view.name}, {key}, at={self.at.isoformat()}: {self._values})"


class FeatureVectors(Sequence[FeatureVector]):
    """The vectors of several entities at one instant, in the order asked."""

    __slots__ = ("_vectors", "view")

    def __init__(self, view: ViewDefinition, vectors: Sequence[FeatureVector]) -> None:
        self.view = view
        self._vectors = tuple(vectors)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return FeatureVectors(self.view, self._vectors[index])
        return self._vectors[index]

    def __len__(self) -> int:
        return len(self._vectors)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per entity."""
        return [vector.to_dict() for vector in self._vectors]

    def to_numpy(self, features: Sequence[str] | None = None) -> npt.NDArray[np.float64]:
        """The values as a matrix (n entities, f features) float64, NaN for null, columns in the order of the
        definition.

        Args:
            features: only these, in this order.

        Raises:
            DataError: a feature is not a number or bool, or unknown.

        Integers beyond 2^53 are rounded; read them from the vectors.
        """
        return _matrix(self.view, [vector._values for vector in self._vectors], features)

    def __repr__(self) -> str:
        return f"FeatureVectors({self.view.name}, {len(self)} entities)"


def _matrix(
    view: ViewDefinition, rows: Sequence[Mapping[str, Any]], features: Sequence[str] | None
) -> npt.NDArray[np.float64]:
    import numpy as np

    known = view.feature_names()
    names = known if features is None else tuple(features)
    for name in names:
        if name not in known:
            raise DataError(
                f"View '{view.name}' has no feature '{name}'{did_you_mean(name, known)} Its features are: "
                f"{', '.join(known)}."
            )
        if view.dtypes[name] not in _NUMERIC:
            numeric = [each for each in known if view.dtypes[each] in _NUMERIC]
            raise DataError(
                f"Feature '{name}' of view '{view.name}' is {view.dtypes[name]}, which no matrix of floats can hold. "
                "Name those "
                f"you want: to_numpy({numeric})."
            )
    out = np.empty((len(rows), len(names)))
    for i, values in enumerate(rows):
        for j, name in enumerate(names):
            value = values[name]
            out[i, j] = np.nan if value is None else value
    return out


def moments(view: ViewDefinition) -> dict[str, Any]:
    """For each feature that holds instants, the function that turns its microseconds into datetimes."""
    found = {name: moment_of(view.dtypes[name]) for name in view.feature_names() if TIMESTAMP in view.dtypes[name]}
    return {name: convert for name, convert in found.items() if convert is not None}


def moment_of(dtype: str) -> Any:
    """The function that turns a value's microseconds into datetimes; None for a type without instants."""
    if dtype == TIMESTAMP:
        return as_datetime
    element = split_list(dtype)
    if element is not None:
        inner = moment_of(element)
        return inner and (lambda values: [None if value is None else inner(value) for value in values])
    pair = split_map(dtype)
    if pair is not None:
        inner = moment_of(pair[1])
        return inner and (lambda values: {k: None if v is None else inner(v) for k, v in values.items()})
    return None
