"""The algebra of the lanes: init is neutral, merge is associative and commutative, both agree with exact arithmetic.

The module is loaded as plain Python here, without its decorator: what is compiled is this source, and
test_reference.py compares the compiled form with the algebra of `headrace.features` on whole streams.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.flows import compiled
from headrace.flows.lanes import COUNT, DECAY, FIRST, LAST, MAX_F, MAX_I, MIN_F, MIN_I, MOMENTS, SUM_F, SUM_I, WIDTH


def uncompiled() -> Any:
    """The module `lanes` with every function as it is written."""
    spec = importlib.util.find_spec("headrace.flows.lanes")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "step", lambda function: function)
        spec.loader.exec_module(module)
    return module


lanes = uncompiled()

CODES = tuple(WIDTH)
AT = dict(zip(CODES, np.cumsum([0, *WIDTH.values()]).tolist(), strict=False))
LANES = sum(WIDTH.values())
OPS = np.array([(code, 0, 0, AT[code]) for code in CODES], dtype=np.int64)
HALF_LIFE = np.full(len(OPS), 1000.0)
INT64 = 2**63

# Sums that cancel: whatever the order, the small terms must come out.
CANCELLING = (1e16, 1.0, -1e16, 0.1, 1e100, -1e100, 3e-8, -1.0)
EXTREME = (0, 1, -1, INT64 - 1, -INT64, 2**62, -(2**62), 2**53 + 1)


class Happened(NamedTuple):
    te: int
    position: int
    amount: float
    units: int


events = st.lists(
    st.builds(
        Happened,
        st.integers(-5000, 5000),
        st.integers(0, 10**6),
        st.sampled_from(CANCELLING) | st.floats(-1e6, 1e6),
        st.sampled_from(EXTREME) | st.integers(-100, 100),
    ),
    max_size=12,
    unique_by=lambda e: (e.te, e.position),
)


class State:
    """One row of lanes, with the ops as methods."""

    def __init__(self) -> None:
        self.f = np.zeros((1, LANES))
        self.i: npt.NDArray[np.int64] = self.f.view(np.int64)
        lanes.init_ops(OPS, 0, len(OPS), self.f, self.i, 0, 0)

    def update(self, happened: Happened) -> State:
        f, i = np.array([[happened.amount]]), np.array([[happened.units]], dtype=np.int64)
        # An op reads float or integer input, in the same memory: give each what it reads.
        for first, code in enumerate(CODES):
            whole = code in (SUM_I, MIN_I, MAX_I, FIRST, LAST)
            values = i.view(np.float64) if whole else f
            with np.errstate(all="ignore"):  # compiled arithmetic does not warn either
                lanes.update_ops(
                    OPS, HALF_LIFE, first, first + 1, self.f, self.i, 0, 0, values, values.view(np.int64),
                    np.ones((1, 1), dtype=np.uint8), 0, happened.te, happened.position,
                )  # fmt: skip
        return self

    def merge(self, other: State) -> State:
        with np.errstate(all="ignore"):
            lanes.merge_ops(OPS, HALF_LIFE, 0, len(OPS), self.f, self.i, 0, 0, other.f, other.i, 0, 0)
        return self

    def exact(self) -> list[int]:
        """Lanes that hold no rounding: the bits of everything but sums of floats."""
        codes = (COUNT, MIN_F, MAX_F, MIN_I, MAX_I, FIRST, LAST)
        bits = [self.i[0, AT[code] + k] for code in codes for k in range(WIDTH[code])]
        return [int(b) for b in (*bits, self.i[0, AT[SUM_I]], self.i[0, AT[MOMENTS]], self.i[0, AT[DECAY]])]

    def float(self, code: int, lane: int = 0) -> float:
        return float(self.f[0, AT[code] + lane])


def state_of(some: Sequence[Happened]) -> State:
    state = State()
    for each in some:
        state.update(each)
    return state


def close(got: float, expected: float | Fraction, slack: float) -> bool:
    return math.isfinite(got) and abs(Fraction(got) - Fraction(expected)) <= abs(Fraction(expected)) / 10**9 + Fraction(
        slack
    )


def check(state: State, some: Sequence[Happened]) -> None:
    """The lanes say what exact arithmetic says of `some`."""
    n = len(some)
    exact = state.exact()
    assert exact[0] == n
    if not n:
        assert exact == State().exact()
        return
    amounts, units = [e.amount for e in some], [e.units for e in some]
    reach = n * max(map(abs, amounts))
    first, last = min(some, key=lambda e: e[:2]), max(some, key=lambda e: e[:2])
    assert (state.float(MIN_F), state.float(MAX_F)) == (min(amounts), max(amounts))
    assert exact[3:5] == [min(units), max(units)]
    assert exact[5:8] == [*first[:2], first.units]
    assert exact[8:11] == [*last[:2], last.units]
    total = sum(map(Fraction, amounts), Fraction(0))
    assert close(state.float(SUM_F) + state.float(SUM_F, 1), total, reach * 2.0**-100)
    assert exact[11] == (sum(units) + INT64) % (2 * INT64) - INT64  # wraps
    assert abs(state.float(SUM_I, 1) - sum(units)) <= n * 2.0**12  # and `approx` tells that it has
    assert exact[12] == n
    mean = total / n
    m2 = sum((Fraction(a) - mean) ** 2 for a in amounts)
    # Welford's steps round the distance to the mean: its error is measured by the spread, not by the magnitude.
    spread = max(amounts) - min(amounts)
    got = Fraction(state.float(MOMENTS, 1)) + Fraction(state.float(MOMENTS, 2))
    assert abs(got - mean) <= Fraction(n * spread * 2.0**-50 + reach * 2.0**-100)
    assert close(state.float(MOMENTS, 3), m2, (reach * 2.0**-90) ** 2)
    assert exact[13] == last.te
    weights: list[float] = [2.0 ** (-(last.te - e.te) / 1000.0) for e in some]
    slack = 1e-12 * sum(w * abs(a) for w, a in zip(weights, amounts, strict=True))
    assert abs(state.float(DECAY, 1) - math.fsum(w * a for w, a in zip(weights, amounts, strict=True))) <= slack
    assert state.float(DECAY, 2) == pytest.approx(math.fsum(weights), rel=1e-12)


@given(events)
def test_updates_agree_with_exact_arithmetic(some: list[Happened]) -> None:
    check(state_of(some), some)


@given(events)
def test_the_empty_state_is_neutral(some: list[Happened]) -> None:
    state = state_of(some)
    bits = state.i.copy()
    assert (state.merge(State()).i == bits).all()
    other = State().merge(state)
    assert other.exact() == state.exact()
    check(other, some)


@given(events, st.randoms(use_true_random=False))
def test_an_update_is_a_merge_of_one(some: list[Happened], random: Any) -> None:
    merged = State()
    for each in some:
        merged.merge(state_of([each]))
    assert merged.exact() == state_of(some).exact()
    check(merged, some)
    shuffled = random.sample(some, len(some))
    assert state_of(shuffled).exact() == merged.exact()
    check(state_of(shuffled), some)


@given(events, st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_merge_is_associative_and_commutative(some: list[Happened], parts: list[int]) -> None:
    a, b, c = ([e for e, part in zip(some, parts, strict=False) if part == p] for p in range(3))
    ways = [
        state_of(a).merge(state_of(b)).merge(state_of(c)),
        state_of(a).merge(state_of(b).merge(state_of(c))),
        state_of(c).merge(state_of(a)).merge(state_of(b)),
        state_of(b).merge(state_of(c).merge(state_of(a))),
    ]
    for way in ways:
        assert way.exact() == ways[0].exact()
        check(way, some)


@given(events, events)
def test_merge_leaves_the_other_state_alone(one: list[Happened], two: list[Happened]) -> None:
    other = state_of(two)
    before = other.i.copy()
    state_of(one).merge(other)
    assert (other.i == before).all()


@pytest.mark.parametrize("order", [(1e16, 1.0, -1e16), (1.0, 1e16, -1e16), (1e16, -1e16, 1.0)])
def test_a_sum_keeps_what_cancellation_would_lose(order: tuple[float, ...]) -> None:
    state = state_of([Happened(t, 0, x, 0) for t, x in enumerate(order)])
    assert state.float(SUM_F) + state.float(SUM_F, 1) == 1.0


@pytest.mark.parametrize("far", [0.0, 1e9, 1e15])
def test_a_variance_does_not_depend_on_where_the_values_lie(far: float) -> None:
    some = [Happened(t, 0, far + x, 0) for t, x in enumerate([4.0, 7.0, 13.0, 16.0] * 3)]
    for state in (state_of(some), state_of(some[:5]).merge(state_of(some[5:]))):
        assert state.float(MOMENTS, 3) == pytest.approx(270.0, rel=1e-12)


@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_infinite_value_stays_in_sums_and_leaves_no_variance(infinity: float, place: int) -> None:
    amounts = [1.0, 2.0]
    amounts.insert(place, infinity)
    some = [Happened(t, 0, x, 0) for t, x in enumerate(amounts)]
    for state in (state_of(some), state_of(some[:1]).merge(state_of(some[1:]))):
        assert state.float(SUM_F) == infinity
        assert state.float(SUM_F, 1) == 0.0
        assert math.isnan(state.float(MOMENTS, 3))


@given(
    st.floats(-1e280, 1e280),
    st.floats(-1.0, 1.0),
    st.integers(1, 2**40),
)
def test_a_quotient_is_rounded_once(hi: float, part: float, n: int) -> None:
    lo = part * math.ulp(hi) / 2
    exact = (Fraction(hi) + Fraction(lo)) / n
    got = lanes.divide(hi, lo, float(n))
    assert abs(Fraction(got) - exact) <= Fraction(math.ulp(float(exact))) * Fraction(501, 1000)
