"""Sorting by an instant with ties settled by other columns, for the price of sorting by the instant."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def in_order(instants: Ints, ties: Callable[[Ints], tuple[npt.NDArray[Any], ...]]) -> Ints:
    """(n,) indices that sort by instant, and rows of one instant by the columns that `ties` gives for their indices.

    Instants are microseconds, so few rows tie: they alone are sorted by more than one column, where sorting all of
    them so would cost three times as much. `ties` gives columns in order of weight.
    """
    order = np.argsort(instants)
    ordered = instants[order]
    tied = np.zeros(len(order) + 1, dtype=np.bool_)
    tied[1:-1] = ordered[1:] == ordered[:-1]
    among = np.flatnonzero(tied[1:] | tied[:-1])
    if len(among):
        at = order[among]
        order[among] = at[np.lexsort((*reversed(ties(at)), ordered[among]))]
    return order
