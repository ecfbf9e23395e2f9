"""Aggregations against exact arithmetic, the standard library and known answers."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import DefinitionError
from headrace.features.aggregations import Aggregation, Count, Max, Mean, Min, Std, Sum, Var
from headrace.features.buckets import ByBucket
from headrace.features.decay import DecayedMean, DecayedSum
from headrace.features.frequencies import Distinct, TopK
from headrace.features.ordered import First, FirstN, Last, LastN
from headrace.features.sketches import Quantile

MINUTE = 60_000_000


def result(agg: Aggregation, values: list[Any], t_us: int | None = None) -> Any:
    """The value of inputs a minute apart, in source order."""
    state = agg.init()
    for i, value in enumerate(values):
        state = agg.update(state, value, i * MINUTE, (0, i))
    return agg.finish(state, len(values) * MINUTE if t_us is None else t_us)


def parts(agg: Aggregation, values: list[Any], size: int) -> Any:
    """The same by tiles of `size` inputs, merged from the newest to the oldest."""
    whole = agg.init()
    for start in reversed(range(0, len(values), size)):
        state = agg.init()
        for i, value in enumerate(values[start : start + size], start):
            state = agg.update(state, value, i * MINUTE, (0, i))
        whole = agg.merge(whole, state)
    return agg.finish(whole, len(values) * MINUTE)


def test_known_answer_of_a_window_whose_peak_has_left() -> None:
    # 100 at minute 1 has left the last hour at minute 185; 1, 2, 3 at minutes 181 to 183 are in it.
    inside = [1.0, 2.0, 3.0]
    assert [result(a, inside) for a in (Sum(), Count(), Mean(), Max(), Min(), Std())] == [6.0, 3, 2.0, 3.0, 1.0, 1.0]


def test_types_of_results() -> None:
    assert (result(Sum(), [1, 2]), type(result(Sum(), [1, 2]))) == (3, int)
    assert (result(Sum(), [True, False, True]), result(Mean(), [True, False])) == (2, 0.5)
    assert result(Min(), ["b", "a"]) == "a"
    assert Sum().out_dtype("bool") == "int64"
    assert Sum().out_dtype("float64") == "float64"
    assert LastN(2).out_dtype("timestamp") == "list<timestamp>"
    assert TopK(2).out_dtype("string") == "map<string,int64>"
    assert ByBucket(Mean(), 3, "string").out_dtype("int64") == "map<string,float64>"


def test_sum_of_integers_is_exact_and_null_beyond_64_bits() -> None:
    top = 2**63 - 1
    assert result(Sum(), [top, 1, -1]) == top
    assert result(Sum(), [top, 1]) is None
    assert result(Sum(), [-(2**63), -1]) is None


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30), st.integers(1, 30))
def test_sum_and_mean_are_correct_to_an_ulp_whatever_cancels(values: list[float], size: int) -> None:
    exact = sum(map(Fraction, values), Fraction(0))
    for got in (result(Sum(), values), parts(Sum(), values, size)):
        assert math.isclose(got, float(exact), rel_tol=1e-15, abs_tol=1e-25 * max(map(abs, values)))
    for got in (result(Mean(), values), parts(Mean(), values, size)):
        assert math.isclose(got, float(exact / len(values)), rel_tol=1e-15, abs_tol=1e-25 * max(map(abs, values)))


@given(
    st.sampled_from([0.0, 1.0, -1e9, 1e15, 1e16]),
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=30),
    st.integers(1, 30),
)
def test_variance_keeps_its_digits_far_from_zero(centre: float, steps: list[int], size: int) -> None:
    values = [centre + 2 * step for step in steps]
    exact = statistics.variance(map(Fraction, values))
    for got in (result(Var(), values), parts(Var(), values, size)):
        assert math.isclose(got, float(exact), rel_tol=1e-12)
    assert math.isclose(result(Std(), values), math.sqrt(exact), rel_tol=1e-12)


@given(st.lists(st.floats(-1e100, 1e100), min_size=2, max_size=20), st.integers(1, 20))
def test_variance_of_any_floats(values: list[float], size: int) -> None:
    exact = float(statistics.variance(map(Fraction, values)))
    for got in (result(Var(), values), parts(Var(), values, size)):
        # Two values an ulp apart are all there is; below that a variance of doubles has no digits to compare.
        assert math.isclose(got, exact, rel_tol=1e-9, abs_tol=(1e-17 * max(map(abs, values))) ** 2)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=20))
def test_variance_and_mean_of_large_integers(values: list[int]) -> None:
    assert math.isclose(result(Var(), values), float(statistics.variance(map(Fraction, values))), rel_tol=1e-12)
    assert math.isclose(result(Mean(), values), float(Fraction(sum(values), len(values))), rel_tol=1e-12)


def test_variance_needs_two_values() -> None:
    assert result(Var(), [3.0]) is None
    assert result(Std(), []) is None
    assert result(Var(), [3.0, 3.0]) == 0.0


def test_infinities_are_values_and_their_difference_is_null() -> None:
    assert result(Sum(), [math.inf, 1.0]) == math.inf
    assert result(Mean(), [-math.inf, 1.0]) == -math.inf
    assert result(Sum(), [math.inf, 1.0, -math.inf]) is None
    assert result(Max(), [math.inf, 1.0]) == math.inf
    assert result(Quantile(1.0), [1.0, math.inf]) == math.inf
    assert result(Quantile(0.0), [1.0, -math.inf]) == -math.inf


def test_ties_in_time_are_broken_by_position() -> None:
    first, last = First(), Last()
    events = [("b", (1, 0)), ("a", (0, 7)), ("c", (1, 1))]
    for order in (events, events[::-1]):
        a, b = first.init(), last.init()
        for value, position in order:
            a, b = first.update(a, value, 5, position), last.update(b, value, 5, position)
        assert (first.finish(a, 9), last.finish(b, 9)) == ("a", "c")


def test_first_n_and_last_n_are_in_time_order() -> None:
    assert result(FirstN(2), [5, 6, 7]) == [5, 6]
    assert result(LastN(2), [5, 6, 7]) == [6, 7]
    assert parts(LastN(3), list(range(10)), 2) == [7, 8, 9]
    assert result(LastN(5), [1]) == [1]


@given(st.lists(st.sampled_from("abcde")), st.integers(1, 6), st.integers(1, 5))
def test_distinct_and_top_k_against_counting(values: list[str], limit: int, size: int) -> None:
    counts = Counter(values)
    assert parts(Distinct(limit), values, size) == min(limit, len(counts))
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]
    got = parts(TopK(limit), values, size)
    assert (list(got.items()) if got else []) == best


def test_by_keeps_the_buckets_with_most_inputs() -> None:
    rows = [("JFK", 1.0), ("LGA", 5.0), ("JFK", 3.0), ("EWR", 2.0)]
    assert result(ByBucket(Mean(), 2), rows) == {"JFK": 2.0, "EWR": 2.0}
    assert list(parts(ByBucket(Mean(), 3), rows, 1).items()) == [("JFK", 2.0), ("EWR", 2.0), ("LGA", 5.0)]
    assert result(ByBucket(Count(), 2), []) is None


def test_decayed_sum_halves_with_every_half_life() -> None:
    agg = DecayedSum(MINUTE)
    assert result(agg, [8.0], t_us=0) == 8.0
    assert result(agg, [8.0], t_us=3 * MINUTE) == 1.0
    assert result(agg, [8.0, 4.0], t_us=MINUTE) == 8.0
    assert parts(agg, [8.0, 4.0, 2.0], 1) == result(agg, [8.0, 4.0, 2.0])
    assert result(agg, [1.0], t_us=10**6 * MINUTE) == 0.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(1, 30), st.integers(1, 10**9))
def test_decay_against_its_definition(values: list[float], size: int, half_life: int) -> None:
    now = len(values) * MINUTE
    newest = (len(values) - 1) * MINUTE
    weights = [2.0 ** -((now - i * MINUTE) / half_life) for i in range(len(values))]
    total = math.fsum(w * v for w, v in zip(weights, values, strict=True))
    # 1e-300: below the normal floats digits get lost.
    tolerance = 1e-12 * math.fsum(w * abs(v) for w, v in zip(weights, values, strict=True)) + 1e-300
    for agg_value in (result(DecayedSum(half_life), values), parts(DecayedSum(half_life), values, size)):
        assert math.isclose(agg_value, total, rel_tol=1e-9, abs_tol=tolerance)
    # The mean weighs from the newest event on, where no weight has faded to zero.
    weights = [2.0 ** -((newest - i * MINUTE) / half_life) for i in range(len(values))]
    mean = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)
    tolerance = 1e-12 * max(map(abs, values)) + 1e-300
    for agg_value in (result(DecayedMean(half_life), values), parts(DecayedMean(half_life), values, size)):
        assert math.isclose(agg_value, mean, rel_tol=1e-9, abs_tol=tolerance)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distinct(0), "distinct: limit must be between 1 and 1,000,000, got 0."),
        (lambda: TopK(0), "top_k: k must be between 1 and 10,000, got 0."),
        (lambda: FirstN(True), "first_n: n must be between 1 and 10,000, got True."),
        (lambda: Quantile(95), "quantile: q must be between 0 and 1, got 95. The median is 0.5, p95 is 0.95."),
        (
            lambda: Quantile(0.5, 1),
            "quantile: error must be between 0.0001 and 0.5, got 1. It is relative: 0.01 is 1 %.",
        ),
        (lambda: ByBucket(Count(), 0), "by=: top must be between 1 and 10,000, got 0."),
    ],
)
def test_parameters_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        make()
    assert str(raised.value).startswith(message)
