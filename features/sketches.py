"""Approximate aggregations with stated error: distinct count by least hashes, quantiles by logarithmic buckets.

Both states are sets in the mathematical sense (the least hashes of all values; counts per bucket), so the result is
the same for any order of updates and merges: a replay equals a live run (contract C3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil, exp, inf, isinf, log, sqrt
from typing import Any, ClassVar

from headrace.features.aggregations import Aggregation, Position, State
from headrace.features.dtypes import FLOAT, INT, NUMBERS
from headrace.features.errors import DefinitionError

_HASHES = 2**64
_INFINITE_KEY = 2**40
_SMALLEST = 2.2250738585072014e-308 * 1.5
"""Magnitudes below this count as zero in a quantile: near the end of normal floats, buckets have no room."""


@dataclass(frozen=True)
class ApproxDistinct(Aggregation):
    """How many different values, estimated from the k = 2**lg_k least of their hashes.

    Exact while there are at most k different values. Beyond, unbiased with a relative standard error of 1/sqrt(k - 1):
    1.6 % at lg_k=12, 0.8 % at 14 (two thirds of the answers are nearer than that, 99.7 % nearer than three times that).
    Memory: up to 2k hashes per tile. Z. Bar-Yossef et al., RANDOM 2002, algorithm 2; the estimator k/U(k + 1):
    K. Beyer et al., SIGMOD 2007, theorem 1.

    State: [theta, hashes]: all different 64-bit hashes (XXH3) below theta.

    Raises:
        DefinitionError: lg_k is not between 4 and 20.
    """

    lg_k: int = 12
    kind: ClassVar[str] = "approx_distinct"
    empty: ClassVar[Any] = 0

    def __post_init__(self) -> None:
        if isinstance(self.lg_k, bool) or not isinstance(self.lg_k, int) or not 4 <= self.lg_k <= 20:
            raise DefinitionError(
                f"approx_distinct: lg_k must be between 4 and 20, got {self.lg_k!r}. The default is 12."
            )

    @property
    def error(self) -> float:
        """Relative standard error beyond k different values."""
        return 1 / sqrt(2**self.lg_k - 1)

    def out_dtype(self, in_dtype: str | None) -> str:
        return INT

    def init(self) -> State:
        return [_HASHES, set()]

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        hashed = hash64(value)
        if hashed < state[0]:
            state[1].add(hashed)
            if len(state[1]) > 2 << self.lg_k:
                self._trim(state)
        return state

    def merge(self, a: State, b: State) -> State:
        theta = min(a[0], b[0])
        a[1] |= b[1]
        if theta < _HASHES:
            a[1] = {hashed for hashed in a[1] if hashed < theta}
        a[0] = theta
        if len(a[1]) > 2 << self.lg_k:
            self._trim(a)
        return a

    def finish(self, state: State, t_us: int) -> int:
        k = 1 << self.lg_k
        hashes = state[1]
        if len(hashes) <= k and state[0] == _HASHES:
            return len(hashes)
        # A trimmed state holds the k least hashes and theta is the next one: either way this is the (k+1)-th least.
        least: int = sorted(hashes)[k] if len(hashes) > k else state[0]
        return round(k * _HASHES / least)

    def is_empty(self, state: State) -> bool:
        return not state[1]

    def encode(self, state: State) -> bytes:
        hashes = sorted(state[1])
        return super().encode([state[0] - 1, struct.pack(f"<{len(hashes)}Q", *hashes)])

    def decode(self, data: bytes) -> State:
        theta, packed = super().decode(data)
        return [theta + 1, set(struct.unpack(f"<{len(packed) // 8}Q", packed))]

    def _trim(self, state: State) -> None:
        hashes = sorted(state[1])
        k = 1 << self.lg_k
        state[0] = hashes[k]
        state[1] = set(hashes[:k])


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


def hash64(value: Any) -> int:
    """XXH3 of a value's canonical bytes, the same in every process and on every machine.

    int64: 8 bytes little-endian; float64 likewise (-0.0 as 0.0); bool: one byte; text: UTF-8.
    """
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bool):
        data = b"\x01" if value else b"\x00"
    elif isinstance(value, int):
        data = value.to_bytes(8, "little", signed=True)
    elif isinstance(value, float):
        data = struct.pack("<d", value + 0.0)
    else:
        data = value
    return _xxh3()(data)


@cache
def _xxh3() -> Callable[[bytes], int]:
    from xxhash import xxh3_64_intdigest

    return xxh3_64_intdigest
