"""Every aggregation is a small algebra: merge is associative and commutative, init is neutral, parts make the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.features import CustomAggregation
from headrace.features.aggregations import Aggregation, Count, Max, Mean, Min, Std, Sum, Var
from headrace.features.buckets import ByBucket
from headrace.features.custom import Custom
from headrace.features.decay import DecayedMean, DecayedSum
from headrace.features.frequencies import Distinct, TopK
from headrace.features.ordered import First, FirstN, Last, LastN
from headrace.features.sketches import ApproxDistinct, Quantile

Input = tuple[Any, int, tuple[int, int]]  # value, event time, position


@dataclass(frozen=True)
class Spread(CustomAggregation):
    """Greatest less least."""

    output: ClassVar[type] = float
    scale: float = 1.0

    def init(self) -> list[float]:
        return []

    def update(self, state: list[float], value: float) -> list[float]:
        return [min(state[0], value), max(state[1], value)] if state else [value, value]

    def merge(self, a: list[float], b: list[float]) -> list[float]:
        if not a or not b:
            return a or list(b)
        return [min(a[0], b[0]), max(a[1], b[1])]

    def finish(self, state: list[float]) -> float:
        return (state[1] - state[0]) * self.scale


FLOATS = st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: x + 0.0) | st.sampled_from([0.0, 1e15, 1e15 + 1, 1e-300])
INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
WORDS = st.sampled_from(["a", "b", "c", "d", "é", ""])
NUMERIC = [Sum(), Mean(), Min(), Max(), Var(), Std(), DecayedSum(50_000_000), DecayedMean(50_000_000)]
SKETCHES = [Quantile(0.5), Quantile(1.0), Quantile(0.05, 0.1), ApproxDistinct(5), ApproxDistinct()]
LISTS = [First(), Last(), FirstN(3), LastN(3), FirstN(1), Distinct(), Distinct(2)]
CASES: list[tuple[Aggregation, st.SearchStrategy[Any]]] = [
    (Count(), st.just(True)),
    *((agg, FLOATS) for agg in [*NUMERIC, *SKETCHES, *LISTS, Custom(Spread())]),
    *((agg, INTS) for agg in [*NUMERIC, Quantile(0.5), ApproxDistinct(5), TopK(2)]),
    *((agg, WORDS) for agg in [Last(), LastN(3), Distinct(2), Min(), TopK(2), TopK(10), ApproxDistinct(5)]),
    *((agg, st.booleans()) for agg in [Sum(), Mean(), TopK(1), Distinct()]),
    (ByBucket(Count(), 2), st.tuples(WORDS, st.just(True))),
    (ByBucket(Mean(), 2), st.tuples(WORDS, FLOATS)),
    (ByBucket(LastN(2), 20), st.tuples(WORDS, FLOATS)),
    (ByBucket(Quantile(0.5), 3, "int64"), st.tuples(st.integers(0, 3), FLOATS)),
]
IDS = [f"{agg}-{i}" for i, (agg, _) in enumerate(CASES)]
NOW = 1_000_000_000


@st.composite
def inputs(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> list[Input]:
    """Values at event times with ties, in any order; positions are unique as in a source."""
    times = draw(st.lists(st.integers(0, 20), max_size=25))
    return [(draw(values), 1_000_000 * te, (i % 3, i)) for i, te in enumerate(times)]


def fold(agg: Aggregation, events: list[Input]) -> Any:
    state = agg.init()
    for value, te, position in events:
        state = agg.update(state, value, te, position)
    return state


def close(a: Any, b: Any, scale: float) -> bool:
    """Equal; floats to 1e-9 relative, or to 1e-12 of the largest input where terms cancel (contract C3)."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=scale)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(close(a[k], b[k], scale) for k in a)
    return type(a) is type(b) and bool(a == b)


def scale_of(agg: Aggregation, events: list[Input]) -> float:
    values = [e[0][1] if isinstance(agg, ByBucket) else e[0] for e in events]
    largest = max((abs(float(v)) for v in values if not isinstance(v, str)), default=0.0)
    return 1e-14 * max(largest, 1e-300)


# Many cases share each law, so that fewer examples of each will do.
few = settings(max_examples=min(40, settings.default.max_examples if settings.default else 40))


@pytest.mark.parametrize(("agg", "values"), CASES, ids=IDS)
class TestLaws:
    def check(self, agg: Aggregation, events: list[Input], build: Callable[[], Any]) -> None:
        expected = agg.finish(fold(agg, events), NOW)
        got = agg.finish(build(), NOW)
        assert close(got, expected, scale_of(agg, events)), (got, expected)

    @few
    @given(data=st.data())
    def test_split_and_merge_equal_the_whole(self, agg: Aggregation, values: Any, data: st.DataObject) -> None:
        events = data.draw(inputs(values))
        cut = data.draw(st.integers(0, len(events)))
        self.check(agg, events, lambda: agg.merge(fold(agg, events[:cut]), fold(agg, events[cut:])))

    @few
    @given(data=st.data())
    def test_merge_is_commutative(self, agg: Aggregation, values: Any, data: st.DataObject) -> None:
        events = data.draw(inputs(values))
        cut = data.draw(st.integers(0, len(events)))
        self.check(agg, events, lambda: agg.merge(fold(agg, events[cut:]), fold(agg, events[:cut])))

    @few
    @given(data=st.data())
    def test_merge_is_associative(self, agg: Aggregation, values: Any, data: st.DataObject) -> None:
        a, b, c = (data.draw(inputs(values)) for _ in range(3))
        b = [(v, t, (p, o + 100)) for v, t, (p, o) in b]
        c = [(v, t, (p, o + 200)) for v, t, (p, o) in c]
        left = agg.merge(agg.merge(fold(agg, a), fold(agg, b)), fold(agg, c))
        right = agg.merge(fold(agg, a), agg.merge(fold(agg, b), fold(agg, c)))
        assert close(agg.finish(left, NOW), agg.finish(right, NOW), scale_of(agg, a + b + c))

    @few
    @given(data=st.data())
    def test_order_of_updates_does_not_matter(self, agg: Aggregation, values: Any, data: st.DataObject) -> None:
        events = data.draw(inputs(values))
        shuffled = data.draw(st.permutations(events))
        self.check(agg, events, lambda: fold(agg, shuffled))

    @few
    @given(data=st.data())
    def test_init_is_neutral(self, agg: Aggregation, values: Any, data: st.DataObject) -> None:
        events = data.draw(inputs(values))
        self.check(agg, events, lambda: agg.merge(agg.init(), fold(agg, events)))
        self.check(agg, events, lambda: agg.merge(fold(agg, events), agg.init()))

    @few
    @given(data=st.data())
    def test_merge_leaves_its_second_argument_alone_for_good(
        self, agg: Aggregation, values: Any, data: st.DataObject
    ) -> None:
        a, b, more = (data.draw(inputs(values)) for _ in range(3))
        second = fold(agg, b)
        before = agg.encode(second)
        merged = agg.merge(fold(agg, a), second)
        for value, te, position in more:
            merged = agg.update(merged, value, te, position)
        agg.merge(merged, fold(agg, more))
        assert agg.encode(second) == before

    @few
    @given(data=st.data())
    def test_state_survives_encoding(self, agg: Aggregation, values: Any, data: st.DataObject) -> None:
        events = data.draw(inputs(values))
        cut = data.draw(st.integers(0, len(events)))

        def restored() -> Any:
            state = agg.decode(agg.encode(fold(agg, events[:cut])))
            for value, te, position in events[cut:]:
                state = agg.update(state, value, te, position)
            return agg.merge(state, agg.decode(agg.encode(agg.init())))

        self.check(agg, events, restored)

    def test_nothing_is_empty(self, agg: Aggregation, values: Any) -> None:
        assert agg.is_empty(agg.init())
        assert agg.finish(agg.init(), NOW) == agg.empty
        assert agg.is_empty(agg.merge(agg.init(), agg.init()))
        assert agg.is_empty(agg.decode(agg.encode(agg.init())))

    @few
    @given(data=st.data())
    def test_something_is_not_empty(self, agg: Aggregation, values: Any, data: st.DataObject) -> None:
        assert not agg.is_empty(fold(agg, [(data.draw(values), 1, (0, 0))]))
