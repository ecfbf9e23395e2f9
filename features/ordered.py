"""Aggregations that look at order in time: first, last, first_n, last_n.

Events at one instant are ordered by their position in the source, (partition, offset), so that replays agree (contract
C4).
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from heapq import merge as merge_sorted
from typing import Any, ClassVar

from headrace.features.aggregations import Aggregation, Position, State
from headrace.features.dtypes import INT, list_of
from headrace.features.errors import DefinitionError

_MAX_N = 10_000


def _when(entry: Any) -> tuple[int, Position]:
    return entry[0], entry[1]


def _with_tuple(entry: Any) -> Any:
    """An entry as decoded, its position a tuple again: lists and tuples do not compare."""
    te_us, position, value = entry
    return [te_us, tuple(position) if isinstance(position, list) else position, value]


@dataclass(frozen=True)
class First(Aggregation):
    """The earliest value. State: [] or [te_us, position, value]."""

    kind: ClassVar[str] = "first"

    def out_dtype(self, in_dtype: str | None) -> str:
        return in_dtype or INT

    def init(self) -> State:
        return []

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        return [te_us, position, value] if not state or (te_us, position) < _when(state) else state

    def merge(self, a: State, b: State) -> State:
        return list(b) if b and (not a or _when(b) < _when(a)) else a

    def finish(self, state: State, t_us: int) -> Any:
        return state[2] if state else None

    def decode(self, data: bytes) -> State:
        state = super().decode(data)
        return _with_tuple(state) if state else state


@dataclass(frozen=True)
class Last(First):
    """The newest value. State: [] or [te_us, position, value]."""

    kind: ClassVar[str] = "last"

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        return [te_us, position, value] if not state or (te_us, position) > _when(state) else state

    def merge(self, a: State, b: State) -> State:
        return list(b) if b and (not a or _when(b) > _when(a)) else a


@dataclass(frozen=True)
class FirstN(Aggregation):
    """The `n` earliest values, in time order. State: at most n of [te_us, position, value], sorted.

    Raises:
        DefinitionError: n is not between 1 and 10,000.
    """

    n: int
    kind: ClassVar[str] = "first_n"

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or not 1 <= self.n <= _MAX_N:
            raise DefinitionError(f"{self.kind}: n must be between 1 and {_MAX_N:,}, got {self.n!r}.")

    def out_dtype(self, in_dtype: str | None) -> str:
        return list_of(in_dtype or INT)

    def init(self) -> State:
        return []

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        insort(state, [te_us, position, value], key=_when)
        return self._cut(state)

    def merge(self, a: State, b: State) -> State:
        return self._cut(list(merge_sorted(a, b, key=_when))) if b else a

    def finish(self, state: State, t_us: int) -> list[Any] | None:
        return [entry[2] for entry in state] if state else None

    def decode(self, data: bytes) -> State:
        return [_with_tuple(entry) for entry in super().decode(data)]

    def _cut(self, state: State) -> State:
        del state[self.n :]
        return state


@dataclass(frozen=True)
class LastN(FirstN):
    """The `n` newest values, in time order (the newest last). State: as `FirstN`.

    Not the window `LastN`, which is the n newest *rows* for any aggregation.
    """

    kind: ClassVar[str] = "last_n"

    def _cut(self, state: State) -> State:
        del state[: -self.n]
        return state
