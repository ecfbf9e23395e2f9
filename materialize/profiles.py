"""What is seen of one feature's values as they go by: how many are missing, and how the others are distributed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.features.dtypes import BOOL, FLOAT, INT, STRING
from headrace.materialize.distances import Grid

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS, CATEGORIES = (INT, FLOAT), (STRING, BOOL)
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
EXACT = 100_000
"""So many numbers are kept as they are; beyond, quantiles are those of a t-digest, within half a percent of ranks."""
DIGEST_K = 1_000
DIFFERENT = 10_000
"""Categories that are counted; what comes when there are so many counts as `OTHER`."""
OTHER = "(other)"


@dataclass
class Seen:
    """Counts of one feature. rows: all; missing: null or NaN; infinite: numbers that are neither."""

    rows: int = 0
    missing: int = 0
    infinite: int = 0

    @property
    def missing_share(self) -> float:
        """Of all rows; 0 without any."""
        return self.missing / self.rows if self.rows else 0.0


class NumberProfile:
    """Numbers of one feature. grid: the reference that they are counted against; None: none."""

    def __init__(self, grid: Grid | None = None) -> None:
        self.seen = Seen()
        self.grid = grid
        self.cells = None if grid is None else np.zeros_like(grid.reference)
        self._kept: list[npt.NDArray[np.float64]] = []
        self._held = 0
        self._digest: Any = None

    def add(self, column: pa.ChunkedArray | pa.Array) -> None:
        """Take values in."""
        values = _floats(column)
        self.seen.rows += len(values)
        present = values[~np.isnan(values)]
        self.seen.missing += len(values) - len(present)
        finite = present[np.isfinite(present)]
        self.seen.infinite += len(present) - len(finite)
        if self.grid is not None and self.cells is not None:
            self.cells += self.grid.count(finite)
        self._kept.append(finite)
        self._held += len(finite)
        if self._held > EXACT or self._digest is not None:
            if self._digest is None:
                import datasketches

                self._digest = datasketches.tdigest_double(DIGEST_K)
            self._digest.update(np.concatenate(self._kept))
            self._kept, self._held = [], 0

    def quantiles(self) -> dict[str, float] | None:
        """By "min", "p1", ..., "max"; None without values."""
        if self._digest is not None:
            found = [float(self._digest.get_quantile(q)) for q in QUANTILES]
            found[0], found[-1] = float(self._digest.get_min_value()), float(self._digest.get_max_value())
        elif self._held:
            found = np.quantile(np.concatenate(self._kept), QUANTILES).tolist()
        else:
            return None
        return dict(zip(NAMES, found, strict=True))

    def shares(self, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The shares of the values up to the first edge, up to the second, ..., beyond the last."""
        if self._digest is not None:
            upto = np.array([self._digest.get_rank(each) for each in edges.tolist()])
        else:
            values = np.sort(np.concatenate(self._kept))
            upto = np.searchsorted(values, edges, side="right") / len(values)
        return np.diff(upto, prepend=0.0, append=1.0)


NAMES = ("min", *(f"p{q * 100:g}" for q in QUANTILES[1:-1]), "max")


class CategoryProfile:
    """Texts or booleans of one feature."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.counts: Counter[str] = Counter()

    def add(self, column: pa.ChunkedArray | pa.Array) -> None:
        """Take values in."""
        self.seen.rows += len(column)
        for pair in column.value_counts().to_pylist():
            value, count = pair["values"], pair["counts"]
            if value is None:
                self.seen.missing += count
            else:
                name = str(value).lower() if isinstance(value, bool) else str(value)
                self.counts[name if name in self.counts or len(self.counts) < DIFFERENT else OTHER] += count


class OtherProfile:
    """Lists, maps, instants and bytes, of which only what is missing is counted."""

    def __init__(self) -> None:
        self.seen = Seen()

    def add(self, column: pa.ChunkedArray | pa.Array) -> None:
        """Take values in."""
        self.seen.rows += len(column)
        self.seen.missing += column.null_count


Profile = NumberProfile | CategoryProfile | OtherProfile


def profile_of(dtype: str, grid: Grid | None = None) -> Profile:
    """An empty profile for values of a feature type."""
    if dtype in NUMBERS:
        return NumberProfile(grid)
    return CategoryProfile() if dtype in CATEGORIES else OtherProfile()


def _floats(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float64]:
    import pyarrow as pa

    values = column.cast(pa.float64())
    found: npt.NDArray[np.float64] = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else (
        values.to_numpy()
    )  # fmt: skip
    return found
