"""`by=`: one aggregation per value of a column, as a map of the top buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from headrace.features.aggregations import Aggregation, Position, State
from headrace.features.dtypes import BOOL, INT, STRING, map_of
from headrace.features.errors import DefinitionError

BUCKETS = (STRING, INT, BOOL)
"""Types a column may have to be used in `by=`."""


@dataclass(frozen=True)
class ByBucket(Aggregation):
    """`inner` per bucket; the result is a map of the `top` buckets with most inputs, ties by bucket ascending.

    `update` gets `(bucket, value)` for each row where both are present: a row whose bucket or value is null is in no
    bucket. All buckets are kept while their events are in the window, so the choice of the top ones is exact; memory
    grows with the number of buckets. State: dict bucket -> [inputs, inner state].

    Raises:
        DefinitionError: top is not between 1 and 10,000.
    """

    inner: Aggregation
    top: int = 20
    bucket_dtype: str = STRING
    kind: ClassVar[str] = "by"

    def __post_init__(self) -> None:
        if isinstance(self.top, bool) or not isinstance(self.top, int) or not 1 <= self.top <= 10_000:
            raise DefinitionError(f"by=: top must be between 1 and 10,000, got {self.top!r}.")

    def accepts(self, in_dtype: str | None) -> bool:
        return self.inner.accepts(in_dtype)

    def out_dtype(self, in_dtype: str | None) -> str:
        return map_of(self.bucket_dtype, self.inner.out_dtype(in_dtype))

    def init(self) -> State:
        return {}

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        bucket, inner_value = value
        entry = state.get(bucket)
        if entry is None:
            entry = state[bucket] = [0, self.inner.init()]
        entry[0] += 1
        entry[1] = self.inner.update(entry[1], inner_value, te_us, position)
        return state

    def merge(self, a: State, b: State) -> State:
        for bucket, (inputs, inner_state) in b.items():
            # Merging into a fresh state copies what b owns: b must not change later through a.
            entry = a.get(bucket) or [0, self.inner.init()]
            a[bucket] = [entry[0] + inputs, self.inner.merge(entry[1], inner_state)]
        return a

    def finish(self, state: State, t_us: int) -> dict[Any, Any] | None:
        if not state:
            return None
        top = sorted(state.items(), key=lambda item: (-item[1][0], item[0]))[: self.top]
        return {bucket: self.inner.finish(entry[1], t_us) for bucket, entry in top}

    def encode(self, state: State) -> bytes:
        rows = [[bucket, entry[0], self.inner.encode(entry[1])] for bucket, entry in sorted(state.items())]
        return super().encode(rows)

    def decode(self, data: bytes) -> State:
        return {bucket: [inputs, self.inner.decode(inner)] for bucket, inputs, inner in super().decode(data)}

    def __str__(self) -> str:
        return f"{self.inner} by bucket, top {self.top}"
