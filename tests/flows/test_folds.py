"""Folds against a list that is folded anew each time, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import CustomAggregation
from headrace.features.aggregations import Aggregation, Count, Sum
from headrace.features.custom import Custom
from headrace.features.frequencies import TopK
from headrace.features.ordered import FirstN
from headrace.flows import folds
from headrace.flows.folds import Folds


@dataclass(frozen=True)
class Gathered(CustomAggregation):
    """All values, in lists that are changed in place; None for none."""

    output = "list<int64>"

    def init(self) -> Any:
        return None

    def update(self, state: Any, value: Any) -> Any:
        if state is None:
            return [value]
        state.append(value)
        return state

    def merge(self, a: Any, b: Any) -> Any:
        return b if a is None else a if b is None else a + b

    def finish(self, state: Any) -> Any:
        return sorted(state)


AGGREGATIONS: tuple[Aggregation, ...] = (Custom(Gathered()), FirstN(3), TopK(2), Sum())

keys = st.integers(0, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), keys, st.integers(0, 5)),
        st.tuples(st.just("update"), keys, st.integers(0, 5)),
        st.tuples(st.just("drop"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("oldest"), st.just(0), st.just(0)),
        st.tuples(st.just("look"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class Both:
    """Folds beside a plain dict of key -> events."""

    def __init__(self, agg: Aggregation) -> None:
        self.agg = agg
        self.folds = Folds(agg)
        self.plain: dict[int, list[tuple[int, int]]] = {}
        self.count = 0

    def update(self, key: int, value: int) -> None:
        self.count += 1
        self.folds.update(key, value, key, self.count)
        self.plain.setdefault(key, []).append((value, self.count))

    def drop(self, key: int) -> None:
        self.folds.drop_before(key)
        self.plain = {k: events for k, events in self.plain.items() if k >= key}

    def oldest(self) -> None:
        if self.plain:
            self.folds.drop_oldest()
            del self.plain[min(self.plain)]

    def finish(self, state: Any) -> Any:
        return None if self.agg.is_empty(state) else self.agg.finish(state, 0)

    def check(self) -> None:
        expected = self.agg.init()
        for key, events in sorted(self.plain.items()):
            for value, position in events:
                expected = self.agg.update(expected, value, key, position)
        assert self.finish(self.folds.total()) == self.finish(expected)
        assert len(self.folds) == len(self.plain)
        assert [key for key, _ in self.folds.items()] == sorted(self.plain)


@pytest.mark.parametrize("agg", AGGREGATIONS, ids=str)
@pytest.mark.parametrize("small", [True, False])
@given(steps=steps)
def test_folds_are_those_of_a_list(agg: Aggregation, small: bool, steps: list[tuple[str, int, int]]) -> None:
    both = Both(agg)
    least = 0
    with pytest.MonkeyPatch.context() as patch:
        if small:  # so that a few entries turn, split and turn back
            patch.setattr(folds, "FRONT", 3)
            patch.setattr(folds, "CHUNK", 2)
        for what, key, value in steps:
            if what == "update":
                both.update(least + key, value)
            elif what == "drop":
                least += key
                both.drop(least)
            elif what == "oldest":
                both.oldest()
            else:
                both.check()
        both.check()


class Counted(Count):
    """A count of the merges."""

    merges = 0

    def merge(self, a: int, b: int) -> int:
        Counted.merges += 1
        return super().merge(a, b)


@pytest.mark.parametrize("width", [1, 10, 60, 1_000, 10_000])
@pytest.mark.parametrize("disorder", [0, 7])
def test_an_entry_costs_a_few_merges_however_many_there_are(width: int, disorder: int) -> None:
    some = Folds(Counted())
    Counted.merges = 0
    n = 3 * width + 300
    for i in range(n):
        at = i - (i * 31 % (disorder + 1))
        if at >= i - width + 1:
            some.update(at, True, at, i)
        some.drop_before(i - width + 1)
        assert some.total() <= width + disorder
    assert Counted.merges / n < 12


def test_late_entries_among_the_oldest_do_not_make_the_front_long() -> None:
    some = Folds(Counted())
    for key in range(0, 2_000_000, 1000):
        some.update(key, True, 0, 0)
    some.drop_before(1000)
    Counted.merges = 0
    for key in range(1500, 41_500, 40):  # all among the 64 oldest
        some.update(key, True, 0, 0)
    assert len(some._front) - some._first <= 2 * folds.FRONT
    assert Counted.merges / 1000 < 4 * folds.FRONT
    assert some.total() == 1999 + 1000


def test_a_lifetime_keeps_its_state_once() -> None:
    agg = FirstN(2)
    some = Folds(agg)
    for i in range(5):
        some.update(0, i, i, i)
        assert agg.finish(some.total(), 0) == list(range(min(i + 1, 2)))
    assert some._total is some._rest is folds._STALE
