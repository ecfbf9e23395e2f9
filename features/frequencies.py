"""Aggregations over which values occur: exact bounded distinct count, and the most frequent values.

Both keep the values themselves, so their results are exact and do not depend on order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from headrace.features.aggregations import Aggregation, Position, State
from headrace.features.dtypes import BOOL, BYTES, INT, STRING, TIMESTAMP, map_of
from headrace.features.errors import DefinitionError

_MAX_LIMIT = 1_000_000


@dataclass(frozen=True)
class Distinct(Aggregation):
    """How many different values: exact up to `limit`, and `limit` when there are that many or more.

    Memory: at most `limit` values per tile; beyond, none. State: the set of values, or None once it is full.

    Raises:
        DefinitionError: limit is not between 1 and 1,000,000.
    """

    limit: int = 1000
    kind: ClassVar[str] = "distinct"
    empty: ClassVar[Any] = 0

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or not 1 <= self.limit <= _MAX_LIMIT:
            raise DefinitionError(
                f"distinct: limit must be between 1 and {_MAX_LIMIT:,}, got {self.limit!r}. "
                "For more different values use approx_distinct()."
            )

    def out_dtype(self, in_dtype: str | None) -> str:
        return INT

    def init(self) -> State:
        return set()

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        if state is None:
            return None
        state.add(value)
        return self._bounded(state)

    def merge(self, a: State, b: State) -> State:
        if a is None or b is None:
            return None
        a |= b
        return self._bounded(a)

    def finish(self, state: State, t_us: int) -> int:
        return self.limit if state is None else len(state)

    def is_empty(self, state: State) -> bool:
        return state is not None and not state

    def encode(self, state: State) -> bytes:
        return super().encode(None if state is None else sorted(state))

    def decode(self, data: bytes) -> State:
        values = super().decode(data)
        return None if values is None else set(values)

    def _bounded(self, state: set[Any]) -> State:
        return None if len(state) >= self.limit else state


@dataclass(frozen=True)
class TopK(Aggregation):
    """The `k` most frequent values with their counts, most frequent first; ties by value, ascending.

    Counts are exact. Memory: one entry per different value of the window (use it where those are few thousand).
    Result: dict value -> count. State: the same for all values.

    Raises:
        DefinitionError: k is not between 1 and 10,000.
    """

    k: int
    kind: ClassVar[str] = "top_k"
    takes: ClassVar[tuple[str, ...]] = (STRING, INT, BOOL, TIMESTAMP, BYTES)

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= 10_000:
            raise DefinitionError(f"top_k: k must be between 1 and 10,000, got {self.k!r}.")

    def out_dtype(self, in_dtype: str | None) -> str:
        return map_of(in_dtype or STRING, INT)

    def init(self) -> State:
        return {}

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        state[value] = state.get(value, 0) + 1
        return state

    def merge(self, a: State, b: State) -> State:
        for value, count in b.items():
            a[value] = a.get(value, 0) + count
        return a

    def finish(self, state: State, t_us: int) -> dict[Any, int] | None:
        if not state:
            return None
        return dict(sorted(state.items(), key=lambda item: (-item[1], item[0]))[: self.k])

    def encode(self, state: State) -> bytes:
        return super().encode(sorted(state.items()))

    def decode(self, data: bytes) -> State:
        return dict(super().decode(data))
