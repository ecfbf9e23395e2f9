"""Sketches: within their stated error, independent of order, and near the libraries that do the same."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.aggregations import Aggregation
from headrace.features.sketches import ApproxDistinct, Quantile


def folded(agg: Aggregation, values: list[Any]) -> Any:
    state = agg.init()
    for i, value in enumerate(values):
        state = agg.update(state, value, i, (0, i))
    return state


@given(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=60),
    st.floats(0, 1),
    st.sampled_from([0.0001, 0.01, 0.1, 0.5]),
)
def test_quantile_is_within_its_relative_error_of_the_nearest_rank(values: list[float], q: float, error: float) -> None:
    agg = Quantile(q, error)
    got = agg.finish(folded(agg, values), 0)
    exact = sorted(values)[max(1, math.ceil(q * len(values) - 1e-9)) - 1]
    if math.isinf(exact):
        assert got == exact
    else:
        assert abs(got - exact) <= error * abs(exact) * (1 + 1e-9) + 3.4e-308


def test_quantile_buckets_sort_as_values_do() -> None:
    agg = Quantile(0.5)
    values = [-math.inf, -1e300, -2.0, -1e-300, -0.0, 0.0, 5e-324, 1e-300, 1.0, 1.1, 1.7e308, math.inf]
    keys = [agg.bucket(v) for v in values]
    assert keys == sorted(keys)
    assert agg.bucket(0.0) == agg.bucket(-0.0) == agg.bucket(5e-324) == 0


def test_quantile_agrees_with_the_library_of_the_paper_s_authors() -> None:
    ddsketch = pytest.importorskip("ddsketch")
    rng = random.Random(1)
    values = [rng.lognormvariate(0, 3) * rng.choice([-1, 1, 1]) for _ in range(5000)] + [0.0] * 50
    for q in (0.0, 0.01, 0.33, 0.5, 0.9, 0.99, 1.0):
        agg = Quantile(q)
        theirs = ddsketch.DDSketch(0.01)
        for value in values:
            theirs.add(value)
        got = agg.finish(folded(agg, values), 0)
        # Both are within 1 % of the same value; bounds of buckets may differ by one.
        assert math.isclose(got, theirs.get_quantile_value(q), rel_tol=0.0203)


def test_distinct_is_exact_up_to_k_values() -> None:
    agg = ApproxDistinct(6)
    for n in (0, 1, 10, 64):
        assert agg.finish(folded(agg, [f"user{i % max(n, 1)}" for i in range(3 * n)]), 0) == n


def test_distinct_stays_within_its_standard_error() -> None:
    agg = ApproxDistinct(8)
    errors = []
    for run in range(40):
        state = folded(agg, [f"{run}:{i}" for i in range(5000)])
        errors.append(agg.finish(state, 0) / 5000 - 1)
    assert max(map(abs, errors)) < 4 * agg.error
    assert statistics.pstdev(errors) < 1.3 * agg.error
    assert abs(statistics.fmean(errors)) < agg.error


def test_distinct_does_not_depend_on_order_or_on_tiles() -> None:
    agg = ApproxDistinct(5)
    rng = random.Random(2)
    values = [rng.randrange(2000) for _ in range(4000)]
    expected = agg.finish(folded(agg, values), 0)
    for _ in range(20):
        rng.shuffle(values)
        cuts = sorted(rng.sample(range(len(values)), 7))
        whole = agg.init()
        for start, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
            tile = agg.decode(agg.encode(folded(agg, values[start:end])))
            whole = agg.merge(tile, whole) if rng.random() < 0.5 else agg.merge(whole, tile)
        assert agg.finish(whole, 0) == expected


def test_reading_a_sketch_does_not_change_what_it_says_later() -> None:
    agg = ApproxDistinct(5)
    read, unread = agg.init(), agg.init()
    for i in range(500):
        read, unread = agg.update(read, i, 0, (0, i)), agg.update(unread, i, 0, (0, i))
        if i % 7 == 0:
            agg.finish(read, 0)
            agg.encode(read)
    assert agg.finish(read, 0) == agg.finish(unread, 0)


def test_every_value_counts_once() -> None:
    agg = ApproxDistinct()
    values = ["", "_", "a", "\ud800", "é"]
    assert agg.finish(folded(agg, values * 2), 0) == 5
    assert agg.finish(folded(agg, [b"", b"\x00", b"\xff"] * 2), 0) == 3
    assert agg.finish(folded(agg, [0.0, -0.0, 1.5, math.inf] * 2), 0) == 3
    assert agg.finish(folded(agg, [2**63 - 1, -(2**63), 0, True] * 2), 0) == 4


def test_memory_of_distinct_is_bounded() -> None:
    agg = ApproxDistinct(5)
    assert len(agg.encode(folded(agg, list(range(10_000))))) <= 8 * 32 + 24


def test_sketches_mean_the_same_everywhere() -> None:
    # Recorded once: a stored sketch must be read alike on every machine and by every later version.
    agg = ApproxDistinct(5)
    assert agg.finish(folded(agg, [f"user{i}" for i in range(1000)]), 0) == 976
    assert agg.finish(folded(agg, [i / 4 for i in range(1000)]), 0) == 954
    assert agg.finish(agg.decode(bytes.fromhex(RECORDED)), 0) == 3
    assert agg.encode(folded(agg, ["a", 7, 1.5])).hex() == RECORDED
    assert [Quantile(0.5).bucket(v) - 2**32 for v in (1.0, 2.0, 1e-6, 123456.789)] == [0, 35, -690, 587]


RECORDED = "02030300001acc930300000000000000114115368e63790fde8e4f40ee6fbe49e0f48bea9983c37c"
