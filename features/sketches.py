"""Approximate aggregations with stated error: distinct count by theta sketch, quantiles by logarithmic buckets.

Both states are sets in the mathematical sense (the least hashes of all values; counts per bucket), so the result is
the same for any order of updates and merges: a replay equals a live run (contract C3). Why these two:
docs/decisions/0003-sketches.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, exp, inf, isinf, log, sqrt
from typing import Any, ClassVar

from headrace.features.aggregations import Aggregation, Position, State
from headrace.features.dtypes import FLOAT, INT, NUMBERS
from headrace.features.errors import DefinitionError

_INFINITE_KEY = 2**40
_SMALLEST = 2.2250738585072014e-308 * 1.5
"""Magnitudes below this count as zero in a quantile: near the end of normal floats, buckets have no room."""


@dataclass(frozen=True)
class ApproxDistinct(Aggregation):
    """How many different values: a theta sketch of Apache DataSketches with k = 2**lg_k hashes.

    Exact while there are at most k different values. Beyond, unbiased with a relative standard error of 1/sqrt(k - 1):
    1.6 % at lg_k=12, 0.8 % at 14 (two thirds of the answers are nearer than that, 99.7 % nearer than three times that).
    Memory: 8 bytes per different value, at most 16 k bytes per tile.

    An answer is always read from a trimmed sketch, which holds the k least hashes of all values: so it depends on the
    set of values alone, however they were spread over tiles. A. Dasgupta, K. Lang, L. Rhodes, J. Thaler, ICDT 2016.

    State: [seen, sketch, union]: whether there was an input, a sketch that takes updates, and a union of what was
    merged in (None before the first merge).

    Raises:
        DefinitionError: lg_k is not between 5 and 20.
    """

    lg_k: int = 12
    kind: ClassVar[str] = "approx_distinct"
    empty: ClassVar[Any] = 0

    def __post_init__(self) -> None:
        if isinstance(self.lg_k, bool) or not isinstance(self.lg_k, int) or not 5 <= self.lg_k <= 20:
            raise DefinitionError(
                f"approx_distinct: lg_k must be between 5 and 20, got {self.lg_k!r}. The default is 12."
            )

    @property
    def error(self) -> float:
        """Relative standard error beyond k different values."""
        return 1 / sqrt(2**self.lg_k - 1)

    def out_dtype(self, in_dtype: str | None) -> str:
        return INT

    def init(self) -> State:
        return [False, _datasketches().update_theta_sketch(self.lg_k), None]

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        state[0] = True
        state[1].update(hashable(value))
        return state

    def merge(self, a: State, b: State) -> State:
        if not b[0]:
            return a
        if a[2] is None:
            a[2] = _datasketches().theta_union(self.lg_k)
        a[0] = True
        a[2].update(b[1])
        if b[2] is not None:
            a[2].update(b[2].get_result())
        return a

    def finish(self, state: State, t_us: int) -> int:
        return round(self._whole(state).get_estimate()) if state[0] else 0

    def is_empty(self, state: State) -> bool:
        return not state[0]

    def encode(self, state: State) -> bytes:
        data: bytes = self._whole(state).serialize()
        return data

    def decode(self, data: bytes) -> State:
        sketches = _datasketches()
        whole = sketches.compact_theta_sketch.deserialize(data)
        state = self.init()
        if not whole.is_empty():
            state[0], state[2] = True, sketches.theta_union(self.lg_k)
            state[2].update(whole)
        return state

    @staticmethod
    def _whole(state: State) -> Any:
        """The trimmed sketch of all values. To trim, and to unite what is united already, changes no later answer."""
        if state[2] is None:
            state[1].trim()
            return state[1].compact()
        state[2].update(state[1])
        return state[2].get_result()


def hashable(value: Any) -> int | float | str:
    """A value as DataSketches hashes it, the same in every process and on every machine.

    Text gets a prefix, because the library ignores the empty text; bytes go as Latin-1, and text that is no UTF-8 (a
    lone surrogate) as the bytes that it would be.
    """
    if isinstance(value, str):
        if value.isascii():
            return "_" + value
        try:
            value.encode()
        except UnicodeEncodeError:
            return "_" + value.encode("utf-8", "surrogatepass").decode("latin-1")
        return "_" + value
    if isinstance(value, bytes):
        return "_" + value.decode("latin-1")
    return int(value) if isinstance(value, bool) else value


@cache
def _datasketches() -> Any:
    """Imported at first use: it imports NumPy."""
    import datasketches

    return datasketches


@dataclass(frozen=True)
class Quantile(Aggregation):
    """The q-quantile within a relative error: DDSketch (C. Masson, J. E. Rim, H. K. Lee, PVLDB 12, 2019).

    With x_1 <= ... <= x_n the inputs of the window, the answer is within `error` of x_max(1, ceil(q * n)), the nearest
    rank (SQL's percentile_disc): 1 % means that 100 is read as 99 to 101. q=0 and q=1 are the least and the greatest,
    with the same error. Values under 3.4e-308 in magnitude count as zero; infinities are kept.

    Memory: one count per bucket of ratio (1 + error)/(1 - error) that occurs: values from 1 ms to 1 min fill at most
    550 buckets at 1 %, from 1e-9 to 1e9 at most 2,100. State: dict bucket -> count, see `bucket`.

    Raises:
        DefinitionError: q is outside [0, 1] or error outside [0.0001, 0.5].
    """

    q: float
    error: float = 0.01
    kind: ClassVar[str] = "quantile"
    takes: ClassVar[tuple[str, ...]] = NUMBERS

    def __post_init__(self) -> None:
        if isinstance(self.q, bool) or not isinstance(self.q, (int, float)) or not 0 <= self.q <= 1:
            raise DefinitionError(
                f"quantile: q must be between 0 and 1, got {self.q!r}. The median is 0.5, p95 is 0.95."
            )
        if isinstance(self.error, bool) or not isinstance(self.error, (int, float)) or not 1e-4 <= self.error <= 0.5:
            raise DefinitionError(
                f"quantile: error must be between 0.0001 and 0.5, got {self.error!r}. It is relative: 0.01 is 1 %."
            )

    @property
    def gamma(self) -> float:
        """The ratio of one bucket's bounds."""
        return (1 + self.error) / (1 - self.error)

    def out_dtype(self, in_dtype: str | None) -> str:
        return FLOAT

    def init(self) -> State:
        return {}

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        key = self.bucket(value)
        state[key] = state.get(key, 0) + 1
        return state

    def merge(self, a: State, b: State) -> State:
        for key, count in b.items():
            a[key] = a.get(key, 0) + count
        return a

    def finish(self, state: State, t_us: int) -> float | None:
        if not state:
            return None
        # A product that ought to be whole may come out a little above it: 0.07 * 100 > 7.
        rank = max(1, ceil(self.q * sum(state.values()) - 1e-9))
        seen = 0
        for key in sorted(state):
            seen += state[key]
            if seen >= rank:
                break
        return self.value_of(key)

    def encode(self, state: State) -> bytes:
        return super().encode(sorted(state.items()))

    def decode(self, data: bytes) -> State:
        return dict(super().decode(data))

    def bucket(self, value: float) -> int:
        """The key of a value's bucket; keys sort as values do.

        With i = ceil(log(|value|) / log(gamma)) a positive value has the key i + 2**32, a negative one the negation of
        that of its magnitude, zero has 0 and the infinities have +-2**40.
        """
        magnitude = abs(float(value))
        if magnitude < _SMALLEST:
            return 0
        key = _INFINITE_KEY if isinf(magnitude) else ceil(log(magnitude) / _log_gamma(self.error)) + _OFFSET
        return key if value > 0 else -key

    def value_of(self, key: int) -> float:
        """The value that stands for a bucket: the one with equal relative distance to both bounds."""
        if key == 0:
            return 0.0
        if abs(key) == _INFINITE_KEY:
            return inf if key > 0 else -inf
        exponent = (abs(key) - _OFFSET) * _log_gamma(self.error)
        magnitude = _bounded_exp(exponent, 2 / (1 + self.gamma))
        return magnitude if key > 0 else -magnitude

    def __str__(self) -> str:
        return f"quantile({self.q:g}, error={self.error:g})"


_OFFSET = 2**32
"""Added to a bucket's exponent, so that keys of positive values are positive whatever the exponent."""


def _bounded_exp(exponent: float, factor: float) -> float:
    """factor * e**exponent by two halves, so that the topmost bucket does not overflow on its way."""
    half = exp(exponent / 2)
    return min(half * factor * half, 1.7976931348623157e308)


@cache
def _log_gamma(error: float) -> float:
    return log((1 + error) / (1 - error))
