"""A bucket's events in portions of time: little is in memory at once, also of an entity that has most of all events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.flows.batch import EventBatch

Ints = npt.NDArray[np.int64]
PORTION = 1 << 19
"""Events of a portion, about; all that count from one instant are in one."""


@dataclass(frozen=True)
class Portion:
    """Some events of a bucket, or none. upto: every event effective at or before it is in this portion or was in one
    before."""

    events: EventBatch | None
    upto: int


def spans(effective: Sequence[Ints], settled_us: int, every_us: int | None) -> Iterator[tuple[int | None, int | None]]:
    """The spans of time (from, upto] that have some `PORTION` of events each, in order. The first begins with the first
    event (None), the last has all that is left (None).

    Args:
        effective: of all events, microseconds. settled_us: no span ends after it, but the last. every_us: spans end
            at multiples of it, as a thinned log settles.
    """
    cuts: list[int] = []
    n = sum(map(len, effective))
    if n > PORTION:
        ordered = np.sort(np.concatenate(effective))
        pieces = -(-n // PORTION)
        ends = ordered[np.arange(1, pieces) * n // pieces]
        if every_us is not None:
            ends = ends // every_us * every_us
        cuts = np.unique(ends[ends < settled_us]).tolist()
    edges: list[Any] = [None, *cuts, None]
    return pairwise(edges)


def within(effective: Ints, span: tuple[int | None, int | None]) -> npt.NDArray[np.bool_]:
    """Which events lie in a span."""
    first, last = span
    inside = np.ones(len(effective), dtype=np.bool_)
    if first is not None:
        inside &= effective > first
    if last is not None:
        inside &= effective <= last
    return inside
