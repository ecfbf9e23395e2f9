"""How far two distributions are apart: the population stability index, and the Kolmogorov-Smirnov statistic.

Both need one pass over the values that are compared, and memory for the reference's distinct values only: of the others
it is counted how many fall on each of those values and between them. Where the reference's distribution function does
not move, the other's is farthest from it at one of the two ends, so the statistic is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 10
"""Bins of the index: tenths of the reference, fewer where many values are equal."""
LEAST_SHARE = 1e-4
"""Stands for a share of zero, which has no logarithm."""


class Grid:
    """The distinct values of a reference, and counts of it and of others on them and between them.

    Cell 2i is what lies between value i-1 and value i, cell 2i+1 what equals value i.

    Args:
        values: of the reference, finite, at least one.
    """

    def __init__(self, values: Floats) -> None:
        self.points, on = np.unique(values, return_counts=True)
        self.reference: Ints = np.zeros(2 * len(self.points) + 1, dtype=np.int64)
        self.reference[1::2] = on

    def count(self, values: Floats) -> Ints:
        """How many of `values` are in each cell."""
        left = np.searchsorted(self.points, values, side="left")
        right = np.searchsorted(self.points, values, side="right")
        return np.bincount(left + right, minlength=len(self.reference)).astype(np.int64)

    def edges(self, bins: int = BINS) -> Floats:
        """Inner edges of bins that hold about equal shares of the reference; each belongs to the bin below it."""
        upto = np.cumsum(self.reference[1::2])
        wanted = upto[-1] * np.arange(1, bins) / bins
        return np.unique(self.points[np.searchsorted(upto, wanted)])

    def binned(self, counts: Ints, edges: Floats) -> Ints:
        """Cells put together to bins: up to the first edge, up to the second, ..., beyond the last."""
        at = np.searchsorted(self.points, edges)
        below = np.cumsum(counts)[2 * at + 1]
        return np.diff(below, prepend=0, append=counts.sum())


def stability_index(reference: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """The population stability index of counts by bin: the sum of (a - b) ln(a / b) over the shares of both.

    0 is equal; by custom below 0.1 is little, above 0.25 much. A share of zero counts as `LEAST_SHARE`.

    >>> round(stability_index(np.array([50, 50]), np.array([60, 40])), 6)
    0.040547
    """
    a, b = (np.maximum(each / max(1, each.sum()), LEAST_SHARE) for each in (reference, other))
    return float(((b - a) * np.log(b / a)).sum())


def kolmogorov_smirnov(reference: Ints, other: Ints) -> float:
    """The largest difference of the two distribution functions, of counts by cell of one `Grid`; 0 to 1."""
    a, b = (np.cumsum(each) / max(1, int(each.sum())) for each in (reference, other))
    # Up to a value included is a cell of odd number; up to it and not included the even one before.
    return float(np.abs(a - b).max())
