"""Windows: their integers, labels, default hops and error bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import DefinitionError, Hopping, LastN, Lifetime, Session, Sliding, Tumbling
from headrace.features.time import DAY, HOUR, MINUTE, SECOND, WEEK
from headrace.features.windows import HOPS, Window, default_hop_us


@pytest.mark.parametrize(
    ("width", "hop"),
    [
        (10 * SECOND, SECOND // 10),
        (MINUTE, SECOND),
        (30 * MINUTE, 30 * SECOND),
        (HOUR, MINUTE),
        (3 * HOUR, 2 * MINUTE),
        (DAY, 15 * MINUTE),
        (WEEK, 2 * HOUR),
        (30 * DAY, 12 * HOUR),
        (90 * DAY, DAY),
        (60_000, 1000),
        (59_999, 1),
        (HOUR + 1, 1),
    ],
)
def test_default_hops(width: int, hop: int) -> None:
    assert default_hop_us(width) == hop


@given(st.integers(1, 10**16))
def test_the_default_hop_is_the_largest_that_fits(width: int) -> None:
    hop = default_hop_us(width)
    assert width % hop == 0
    fitting = [h for h in HOPS if h * 60 <= width and width % h == 0]
    assert hop == max(fitting, default=1)


def test_integers_of_windows() -> None:
    assert (Sliding("1h").width_us, Sliding("1h").hop_us, Sliding("1h").ending_us) == (HOUR, MINUTE, 0)
    assert (Sliding("1h", exact=True).hop_us, Sliding("1h", exact=True).exact) == (1, True)
    assert Sliding("1h", hop="1us") == Sliding("1h", exact=True)
    assert (Hopping("1h", hop="15m").hop_us, Tumbling("1d").hop_us) == (15 * MINUTE, DAY)
    assert (Session("30m", ending="1d").gap_us, Session("30m", ending="1d ago").ending_us) == (30 * MINUTE, DAY)
    assert (LastN(3).n, Lifetime(ending="1h").ending_us) == (3, HOUR)


def test_error_bounds() -> None:
    windows: list[Window] = [Sliding("1h"), Sliding("1h", hop="5m"), Sliding("1h", exact=True), Hopping("1h", hop="5m")]
    assert [w.error_bound_us for w in windows] == [MINUTE, 5 * MINUTE, 0, 0]
    assert {w.error_bound_us for w in (Tumbling("1d"), Session("1m"), LastN(1), Lifetime())} == {0}


EVERY = [
    (Sliding("1h30m"), "1h30m", "Sliding('1h30m', hop='1m')"),
    (Sliding("1h", hop="5m", ending="1d"), "1h_ending_1d", "Sliding('1h', hop='5m', ending='1d')"),
    (Sliding("1h", exact=True), "1h", "Sliding('1h', exact=True)"),
    (Hopping("1h", hop="15m"), "hopping_1h_15m", "Hopping('1h', hop='15m')"),
    (Tumbling("1d"), "tumbling_1d", "Tumbling('1d')"),
    (Tumbling("1d", current=True), "tumbling_1d_current", "Tumbling('1d', current=True)"),
    (Session("30m"), "session_30m", "Session('30m')"),
    (LastN(10, ending="1h"), "last_10_ending_1h", "LastN(10, ending='1h')"),
    (Lifetime(), "lifetime", "Lifetime()"),
    (Lifetime(ending="2d"), "lifetime_ending_2d", "Lifetime(ending='2d')"),
]


@pytest.mark.parametrize(("window", "label", "text"), EVERY)
def test_windows_print_as_the_code_that_makes_them(window: Window, label: str, text: str) -> None:
    assert (window.label, repr(window)) == (label, text)
    names: dict[str, Any] = {c.__name__: c for c in (Sliding, Hopping, Tumbling, Session, LastN, Lifetime)}
    again = eval(text, names)
    assert again == window
    assert hash(again) == hash(window)


def test_windows_are_values() -> None:
    assert len({window for window, _, _ in EVERY}) == len(EVERY)
    with pytest.raises(AttributeError):
        Sliding("1h").width_us = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Sliding("1h", hop="7m"),
            "not a multiple of its hop 7m. Choose a hop that divides it, such as '5m' or",
        ),
        (lambda: Sliding("1h", hop="2h"), "Sliding window of 1h: it is not a multiple of its hop 2h."),
        (lambda: Sliding("7us", hop="2us"), "such as '7us'."),
        (lambda: Sliding("1h", hop="1m", exact=True), "got both hop='1m' and exact=True. An exact window has no hop"),
        (lambda: Sliding("0s"), "last: a window of zero length holds no event."),
        (lambda: Hopping("1h", hop="0s"), "hop: a window of zero length"),
        (lambda: Hopping("1h", hop="25m"), "Hopping window of 1h: it is not a multiple of its hop 25m."),
        (lambda: Session("0m"), "gap: a window of zero length holds no event."),
        (lambda: LastN(0), "LastN: n must be a whole number of at least 1, got 0. Write LastN(10)."),
        (lambda: LastN("10"), "LastN: n must be a whole number of at least 1, got '10'."),  # type: ignore[arg-type]
        (lambda: Tumbling("1d", ending="-1d"), "ending: got the negative duration '-1d'."),
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        make()
    assert message in str(raised.value)
