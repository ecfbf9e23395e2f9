"""Aggregations as small algebras, and the numeric ones: count, sum, mean, min, max, var, std.

An aggregation is a frozen dataclass of its parameters with a plain Python algebra on a state. This is the reference
that the compiled engine is compared with, and what runs where no compiled form exists:

    init() -> state
    update(state, value, te_us, position) -> state      one event; value is never null or NaN (C6)
    merge(a, b) -> state                                may reuse a, never changes b
    finish(state, t_us) -> value | None                 t_us: the instant asked, less the window's `ending`
    encode(state) -> bytes,  decode(bytes) -> state     MessagePack, never pickle (C16)

`merge` is associative and commutative, `init()` is neutral, and the result depends on the events alone: not on the
order of updates and merges (C3; float sums to rounding). A state belongs to its owner: `update` and `merge` may change
the first argument in place, so keep only what they return.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite, isnan, nan, sqrt
from typing import Any, ClassVar, TypeAlias

from headrace.features.compensated import add, split
from headrace.features.dtypes import BOOL, FLOAT, INT, NUMBERS, STRING, TIMESTAMP

State: TypeAlias = Any
Position: TypeAlias = "int | tuple[int, ...]"
"""Where an event stood in its source: (partition, offset), or any number or tuple that orders alike."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Aggregation:
    """What every aggregation has. Subclasses are frozen dataclasses whose fields are its parameters.

    Attributes:
        kind: its name in stored states and fingerprints; never changes with a renamed class.
        empty: the value of a window without inputs (0 or None, contract C6).
        takes: types of input column it accepts; () means any scalar.
        ordered: its state must get the events in order, and there is no `merge`; see stateful.py.
    """

    kind: ClassVar[str]
    empty: ClassVar[Any] = None
    takes: ClassVar[tuple[str, ...]] = ()
    ordered: ClassVar[bool] = False

    def accepts(self, in_dtype: str | None) -> bool:
        """Whether a column of this type can be aggregated so; None means whole rows (only count)."""
        return in_dtype is not None and (not self.takes or in_dtype in self.takes)

    def out_dtype(self, in_dtype: str | None) -> str:
        """Type of the result for an input column of type `in_dtype`."""
        raise TypeError(f"{type(self).__name__} does not say its result type")

    def init(self) -> State:
        """The state of no events."""
        raise TypeError(f"{type(self).__name__} has no algebra")

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        """The state with one more event."""
        raise TypeError(f"{type(self).__name__} has no algebra")

    def merge(self, a: State, b: State) -> State:
        """The state of the events of both."""
        raise TypeError(f"{type(self).__name__} has no algebra")

    def finish(self, state: State, t_us: int) -> Any:
        """The value at t_us; `empty` for a state without inputs."""
        raise TypeError(f"{type(self).__name__} has no algebra")

    def is_empty(self, state: State) -> bool:
        """Whether the state has seen no input (then `default=` applies)."""
        return not state

    def encode(self, state: State) -> bytes:
        import msgspec

        return msgspec.msgpack.encode(state)

    def decode(self, data: bytes) -> State:
        import msgspec

        return msgspec.msgpack.decode(data)

    @property
    def key(self) -> tuple[Any, ...]:
        """Kind and parameters as plain values: equal keys compute the same thing."""
        return (self.kind, *((field.name, _plain(getattr(self, field.name))) for field in fields(self)))  # type: ignore[arg-type]

    def __str__(self) -> str:
        parameters = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))  # type: ignore[arg-type]
        return f"{self.kind}({parameters})" if parameters else self.kind


def _plain(value: Any) -> Any:
    return value.key if isinstance(value, Aggregation) else value


@dataclass(frozen=True)
class Count(Aggregation):
    """How many rows. State: int."""

    kind: ClassVar[str] = "count"
    empty: ClassVar[Any] = 0

    def accepts(self, in_dtype: str | None) -> bool:
        return True

    def out_dtype(self, in_dtype: str | None) -> str:
        return INT

    def init(self) -> int:
        return 0

    def update(self, state: int, value: Any, te_us: int, position: Position) -> int:
        return state + 1

    def merge(self, a: int, b: int) -> int:
        return a + b

    def finish(self, state: int, t_us: int) -> int:
        return state


@dataclass(frozen=True)
class Sum(Aggregation):
    """The sum: of integers exact in int64 and null beyond, of floats in double-double, of a condition how often true.

    State: [n, integer] or [n, hi, lo].
    """

    kind: ClassVar[str] = "sum"
    empty: ClassVar[Any] = 0
    takes: ClassVar[tuple[str, ...]] = (INT, FLOAT, BOOL)

    def out_dtype(self, in_dtype: str | None) -> str:
        return FLOAT if in_dtype == FLOAT else INT

    def init(self) -> State:
        return [0, 0]

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        if isinstance(value, float):
            hi, lo = _as_pair(state)
            return [state[0] + 1, *add(hi, lo, value)]
        return [state[0] + 1, state[1] + int(value)]

    def merge(self, a: State, b: State) -> State:
        if len(a) == len(b) == 2:
            return [a[0] + b[0], a[1] + b[1]]
        hi, lo = _as_pair(a)
        return [a[0] + b[0], *add(hi, lo, *_as_pair(b))]

    def finish(self, state: State, t_us: int) -> float | int | None:
        if len(state) == 2:
            return state[1] if INT64_MIN <= state[1] <= INT64_MAX else None
        return _number(state[1] + state[2])

    def is_empty(self, state: State) -> bool:
        return not state[0]

    def encode(self, state: State) -> bytes:
        # An integer sum may pass 64 bits on its way, which MessagePack has no number for.
        return super().encode([state[0], str(state[1])] if len(state) == 2 else state)

    def decode(self, data: bytes) -> State:
        state = super().decode(data)
        return [state[0], int(state[1])] if len(state) == 2 else state


def _as_pair(state: State) -> tuple[float, float]:
    return split(state[1]) if len(state) == 2 else (state[1], state[2])


@dataclass(frozen=True)
class Mean(Aggregation):
    """The mean, float64; of a condition the share of trues. State: [n, hi, lo], a double-double sum."""

    kind: ClassVar[str] = "mean"
    takes: ClassVar[tuple[str, ...]] = (INT, FLOAT, BOOL)

    def out_dtype(self, in_dtype: str | None) -> str:
        return FLOAT

    def init(self) -> State:
        return [0, 0.0, 0.0]

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        return [state[0] + 1, *add(state[1], state[2], *split(value))]

    def merge(self, a: State, b: State) -> State:
        return [a[0] + b[0], *add(a[1], a[2], b[1], b[2])]

    def finish(self, state: State, t_us: int) -> float | None:
        n, hi, lo = state
        return _number((hi + lo) / n) if n else None

    def is_empty(self, state: State) -> bool:
        return not state[0]


@dataclass(frozen=True)
class Min(Aggregation):
    """The least value, in the column's own type (text by code point). State: [] or [value]."""

    kind: ClassVar[str] = "min"
    takes: ClassVar[tuple[str, ...]] = (*NUMBERS, STRING, TIMESTAMP)

    def out_dtype(self, in_dtype: str | None) -> str:
        return in_dtype or INT

    def init(self) -> State:
        return []

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        return [value] if not state or value < state[0] else state

    def merge(self, a: State, b: State) -> State:
        return list(b) if b and (not a or b[0] < a[0]) else a

    def finish(self, state: State, t_us: int) -> Any:
        return state[0] if state else None


@dataclass(frozen=True)
class Max(Aggregation):
    """The greatest value, in the column's own type (text by code point). State: [] or [value]."""

    kind: ClassVar[str] = "max"
    takes: ClassVar[tuple[str, ...]] = (*NUMBERS, STRING, TIMESTAMP)

    def out_dtype(self, in_dtype: str | None) -> str:
        return in_dtype or INT

    def init(self) -> State:
        return []

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        return [value] if not state or value > state[0] else state

    def merge(self, a: State, b: State) -> State:
        return list(b) if b and (not a or b[0] > a[0]) else a

    def finish(self, state: State, t_us: int) -> Any:
        return state[0] if state else None


@dataclass(frozen=True)
class Var(Aggregation):
    """The variance of the sample (n - 1), null below two values. State: [n, mean_hi, mean_lo, m2].

    Welford's update and Chan's merge (T. F. Chan, G. H. Golub, R. J. LeVeque, The American Statistician 37, 1983,
    equation 2.1) around a mean kept as a double-double: each step errs by a rounding of the *distance* to the mean, so
    values like 1e15 + {0, 1} keep their digits where a sum of squares would have none.
    """

    kind: ClassVar[str] = "var"
    takes: ClassVar[tuple[str, ...]] = (INT, FLOAT, BOOL)

    def out_dtype(self, in_dtype: str | None) -> str:
        return FLOAT

    def init(self) -> State:
        return [0, 0.0, 0.0, 0.0]

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        # An infinite input leaves no variance, whatever the order in which it came.
        # An integer counts as the nearest float64, as in columns of them.
        return self._merge(state, 1, float(value), 0.0, 0.0 if isfinite(value) else nan)

    def merge(self, a: State, b: State) -> State:
        if not b[0]:
            return a
        return self._merge(a, *b)

    def finish(self, state: State, t_us: int) -> float | None:
        n, _, _, m2 = state
        return _number(m2 / (n - 1)) if n > 1 else None

    def is_empty(self, state: State) -> bool:
        return not state[0]

    @staticmethod
    def _merge(a: State, n_b: int, hi_b: float, lo_b: float, m2_b: float) -> State:
        n_a, hi_a, lo_a, m2_a = a
        if not n_a:
            return [n_b, hi_b, lo_b, m2_b]
        n = n_a + n_b
        delta = (hi_b - hi_a) + (lo_b - lo_a)
        hi, lo = add(hi_a, lo_a, delta * (n_b / n))
        return [n, hi, lo, m2_a + m2_b + delta * delta * (n_a * n_b / n)]


@dataclass(frozen=True)
class Std(Var):
    """The standard deviation of the sample: the root of `Var`, with its state and guarantees."""

    kind: ClassVar[str] = "std"

    def finish(self, state: State, t_us: int) -> float | None:
        variance = super().finish(state, t_us)
        return None if variance is None else sqrt(variance)


def _number(value: float) -> float | None:
    """A float result; NaN (inf - inf) is null (S9 of C6)."""
    return None if isnan(value) else value
