"""What a lookup gives: n entities by f features, with a status and an event time for every value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BOOL, FLOAT, INT, TIMESTAMP
from headrace.features.errors import DataError, did_you_mean
from headrace.features.features import MISSING
from headrace.features.reading import Status
from headrace.features.time import as_datetime

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

_NUMERIC = (FLOAT, INT, BOOL)
_PRESENT, _NULL, _DEFAULT = Status.PRESENT, Status.NULL, Status.DEFAULT


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where some columns of a table come from: one view, or what was computed on demand.

    Attributes:
        view: its name; "" for features on demand.
        why: (n,) why an entity's values are those of an empty window, None where they are its own; None: all are.
        event_times_us: (n,) the instant each entity's row is as of; None where there is none.
        newest_us: (n,) its newest event.
    """

    view: str
    why: Sequence[Status | None] | None
    event_times_us: Sequence[int | None]
    newest_us: Sequence[int | None]


@dataclass(frozen=True, slots=True, eq=False)
class TableColumn:
    """A column of a table.

    Attributes:
        name: of the feature. dtype: its type. origin: number of its origin. default: a value that counts as its
        default; `features.MISSING` when it has none.
    """

    name: str
    dtype: str
    origin: int
    default: Any


class FeatureTable:
    """The features of n entities at one instant, in the declared order. Columns are made when they are first read.

    Attributes:
        names: of the features. entities: key column -> (n,) values, as asked. at_us: the instant asked, microseconds.
        rows: n tuples of f values; instants are aware datetimes, null is None. failures: view -> why its store could
        not be asked, when a partial answer was wanted.
    """

    def __init__(
        self,
        columns: tuple[TableColumn, ...],
        origins: Sequence[Origin],
        rows: Sequence[tuple[Any, ...]],
        entities: Mapping[str, Sequence[Any]],
        at_us: int,
        failures: Mapping[str, Exception],
    ) -> None:
        self.columns, self.origins = columns, tuple(origins)
        self.rows, self.entities, self.at_us, self.failures = rows, entities, at_us, failures

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple([each.name for each in self.columns])

    @property
    def at(self) -> datetime:
        """The instant asked; a row of a fresh event may be newer (contract C17)."""
        return as_datetime(self.at_us)

    @cached_property
    def values(self) -> tuple[tuple[Any, ...], ...]:
        """f columns of n values."""
        return tuple(zip(*self.rows, strict=True)) if self.rows else ((),) * len(self.columns)

    @cached_property
    def statuses(self) -> tuple[tuple[Status, ...], ...]:
        """f columns of n statuses."""
        present = (_PRESENT,) * len(self.rows)
        return tuple(
            [self._statuses(column, values, present) for column, values in zip(self.columns, self.values, strict=True)]
        )

    def _statuses(self, column: TableColumn, values: Sequence[Any], present: tuple[Status, ...]) -> tuple[Status, ...]:
        why, default = self.origins[column.origin].why, column.default
        if why is None and None not in values and (default is MISSING or default not in values):
            return present
        own = [_NULL if value is None else _DEFAULT if value == default else _PRESENT for value in values]
        return tuple(own if why is None else [each or mine for each, mine in zip(why, own, strict=True)])

    @cached_property
    def event_times(self) -> tuple[tuple[datetime | None, ...], ...]:
        """f columns of n instants: what each value is as of; None for an entity without row."""
        times = [
            tuple([None if us is None else as_datetime(us) for us in each.event_times_us]) for each in self.origins
        ]
        return tuple([times[column.origin] for column in self.columns])

    def event_times_us(self, name: str) -> Sequence[int | None]:
        """(n,) the instants that a feature's values are as of, microseconds."""
        return self.origins[self.columns[self._place(name)].origin].event_times_us

    def __getitem__(self, name: str) -> tuple[Any, ...]:
        """(n,) values of a feature. Raises DataError when the table has no such feature."""
        return self.values[self._place(name)]

    def status(self, name: str) -> tuple[Status, ...]:
        """(n,) statuses of a feature. Raises DataError when the table has no such feature."""
        return self.statuses[self._place(name)]

    def __len__(self) -> int:
        return len(self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per entity, name -> value."""
        names = self.names
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def to_numpy(self, features: Sequence[str] | None = None) -> npt.NDArray[np.float64]:
        """The values as a matrix (n, f) float64, NaN for null, columns in the declared order.

        Args:
            features: only these, in this order.

        Raises:
            DataError: a feature is not a number or bool, or unknown.

        Integers beyond 2^53 are rounded; read them from the columns.
        """
        import numpy as np

        places = range(len(self.columns)) if features is None else [self._place(name) for name in features]
        for at in places:
            if self.columns[at].dtype not in _NUMERIC:
                numeric = [each.name for each in self.columns if each.dtype in _NUMERIC]
                raise DataError(
                    f"Feature '{self.columns[at].name}' is {self.columns[at].dtype}, which no matrix of floats can "
                    f"hold. Name those you want: to_numpy({numeric})."
                )
        if features is not None:
            out = np.empty((len(self.rows), len(places)))
            for j, at in enumerate(places):
                out[:, j] = np.array(self.values[at], dtype=np.float64)
            return out
        return np.array(self.rows, dtype=np.float64).reshape(len(self.rows), len(self.columns))

    def to_arrow(self, *, keys: bool = True) -> pa.Table:
        """An Arrow table with the types of the features; with `keys` the entities' key columns come first.

        Raises:
            ModuleNotFoundError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ModuleNotFoundError as error:
            raise _missing("to_arrow()", "pyarrow", error) from error

        from headrace.stores.layout import arrow_type
        from headrace.stores.rows import table_value

        arrays: dict[str, Any] = {}
        if keys:
            arrays |= {name: pa.array(list(values)) for name, values in self.entities.items()}
        for column, values in zip(self.columns, self.values, strict=True):
            dtype = column.dtype
            plain = values if dtype in _NUMERIC or dtype == TIMESTAMP else [table_value(each, dtype) for each in values]
            arrays[column.name] = pa.array(plain, arrow_type(dtype))
        return pa.table(arrays)

    def to_pandas(self, *, keys: bool = True) -> pd.DataFrame:
        """A pandas frame: `to_arrow().to_pandas()`.

        Raises:
            ModuleNotFoundError: pandas or pyarrow is not installed.
        """
        try:
            import pandas  # noqa: F401 - found missing before the values are converted
        except ModuleNotFoundError as error:
            raise _missing("to_pandas()", "pandas pyarrow", error) from error
        return self.to_arrow(keys=keys).to_pandas()

    def _place(self, name: str) -> int:
        try:
            return self.names.index(name)
        except ValueError:
            raise DataError(
                f"The answer has no feature '{name}'{did_you_mean(name, self.names)} It has: {', '.join(self.names)}."
            ) from None

    def __repr__(self) -> str:
        return f"FeatureTable({len(self.rows)} entities, {len(self.columns)} features: {', '.join(self.names)})"


def _missing(call: str, packages: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"{call} needs the package {error.name}, which is not installed: pip install {packages}. "
        "Lookups themselves need neither pandas nor pyarrow: to_dicts() and to_numpy() do without.",
        name=error.name,
    )
