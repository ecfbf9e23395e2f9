"""Exponentially decayed sum and mean: an event of age `half_life` weighs half.

The weight of an event at te, asked at t, is 2**(-(t - te) / half_life). A state is kept as of its newest event, where
the weights are largest, so nothing overflows; older ones fade to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import Any, ClassVar

from headrace.features.aggregations import Aggregation, Position, State
from headrace.features.compensated import add, split
from headrace.features.dtypes import BOOL, FLOAT, INT


def decay(elapsed_us: int, half_life_us: int) -> float:
    """The factor by which a decayed sum has fallen after `elapsed_us`: 2**(-elapsed / half_life).

    >>> decay(3, 1), decay(0, 1)
    (0.125, 1.0)
    """
    return float(2.0 ** -(elapsed_us / half_life_us))


@dataclass(frozen=True)
class DecayedSum(Aggregation):
    """The decayed sum at t, float64. State: [n, as_of_us, hi, lo], the sum as of its newest event.

    It falls by time alone: a stored value is as of its row's instant, and readers carry it on (reading.py).

    Attributes:
        half_life_us: microseconds in which a weight halves.
    """

    half_life_us: int
    kind: ClassVar[str] = "decayed_sum"
    takes: ClassVar[tuple[str, ...]] = (INT, FLOAT, BOOL)

    def out_dtype(self, in_dtype: str | None) -> str:
        return FLOAT

    def init(self) -> State:
        return [0, 0, 0.0, 0.0]

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        return self.merge(state, [1, te_us, *split(value)])

    def merge(self, a: State, b: State) -> State:
        if not b[0]:
            return a
        if not a[0]:
            return list(b)
        as_of = max(a[1], b[1])
        hi_a, lo_a = self._carried(a, as_of)
        return [a[0] + b[0], as_of, *add(hi_a, lo_a, *self._carried(b, as_of))]

    def finish(self, state: State, t_us: int) -> float | None:
        if not state[0]:
            return None
        value = sum(self._carried(state, t_us))
        return None if isnan(value) else value

    def is_empty(self, state: State) -> bool:
        return not state[0]

    def _carried(self, state: State, to_us: int) -> tuple[float, float]:
        factor = decay(to_us - state[1], self.half_life_us)
        return state[2] * factor, state[3] * factor


@dataclass(frozen=True)
class DecayedMean(Aggregation):
    """The mean under decaying weights, float64; time alone does not change it.

    State: [n, as_of_us, hi, lo, weight_hi, weight_lo].

    Attributes:
        half_life_us: microseconds in which a weight halves.
    """

    half_life_us: int
    kind: ClassVar[str] = "decayed_mean"
    takes: ClassVar[tuple[str, ...]] = (INT, FLOAT, BOOL)

    def out_dtype(self, in_dtype: str | None) -> str:
        return FLOAT

    def init(self) -> State:
        return [0, 0, 0.0, 0.0, 0.0, 0.0]

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        return self.merge(state, [1, te_us, *split(value), 1.0, 0.0])

    def merge(self, a: State, b: State) -> State:
        if not b[0]:
            return a
        if not a[0]:
            return list(b)
        as_of = max(a[1], b[1])
        f, g = decay(as_of - a[1], self.half_life_us), decay(as_of - b[1], self.half_life_us)
        return [
            a[0] + b[0],
            as_of,
            *add(a[2] * f, a[3] * f, b[2] * g, b[3] * g),
            *add(a[4] * f, a[5] * f, b[4] * g, b[5] * g),
        ]

    def finish(self, state: State, t_us: int) -> float | None:
        if not state[0]:
            return None
        value = (state[2] + state[3]) / (state[4] + state[5])
        return None if isnan(value) else value

    def is_empty(self, state: State) -> bool:
        return not state[0]
