"""Durations and instants: exact microseconds in, and nothing whose unit or zone would be a guess."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import DefinitionError
from headrace.features.time import as_datetime, duration_us, format_duration, format_instant, instant_us


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1us", 1),
        ("500ms", 500_000),
        ("0.5s", 500_000),
        ("1h30m", 5_400_000_000),
        ("1h 30m", 5_400_000_000),
        ("1.5h", 5_400_000_000),
        ("2w", 1_209_600_000_000),
        ("1d ago", 86_400_000_000),
        (" 10s ", 10_000_000),
        ("0s", 0),
        (timedelta(minutes=2), 120_000_000),
    ],
)
def test_durations(text: Any, us: int) -> None:
    assert duration_us(text, "last") == us


@given(st.integers(0, 10**18))
def test_durations_survive_being_shown(us: int) -> None:
    assert duration_us(format_duration(us), "x") == us


@pytest.mark.parametrize("value", ["", "h", "1", "1 hour", "1M", "1y", "1min", "ago", "1e3s", "1.h", None, [], "0.1us"])
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(DefinitionError, match=r"^ttl: "):
        duration_us(value, "ttl")


@pytest.mark.parametrize("value", ["-1h", timedelta(hours=-1)])
def test_negative_durations(value: Any) -> None:
    with pytest.raises(DefinitionError, match=r"^ending: got the negative duration"):
        duration_us(value, "ending")


@pytest.mark.parametrize("value", [60, 1.5, True, np.int64(3)])
def test_plain_numbers_are_no_durations(value: Any) -> None:
    with pytest.raises(DefinitionError, match=r"last: .* Write a number and a unit"):
        duration_us(value, "last")


def test_instants() -> None:
    noon = 1_777_636_800_000_000
    zoned = datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert instant_us("2026-05-01T12:00:00Z", "at") == instant_us("2026-05-01 14:00+02:00", "at") == noon
    assert instant_us(zoned, "at") == instant_us(datetime(2026, 5, 1, 12, tzinfo=UTC), "at") == noon
    assert instant_us("2026-05-01T12:00:00.123456999Z", "at") == noon + 123_456
    assert instant_us("1969-12-31T23:59:59.999999Z", "at") == -1
    assert format_instant(noon) == "2026-05-01T12:00:00Z"
    assert format_instant(-1) == "1969-12-31T23:59:59.999999Z"
    assert format_instant(2**62) == "4611686018427387904 µs since 1970"


def test_a_pandas_timestamp_is_an_instant() -> None:
    pandas = pytest.importorskip("pandas")
    assert instant_us(pandas.Timestamp("2026-05-01T12:00Z"), "at") == 1_777_636_800_000_000
    with pytest.raises(DefinitionError, match="naive datetime"):
        instant_us(pandas.Timestamp("2026-05-01T12:00"), "at")


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_instants_survive_being_shown(us: int) -> None:
    assert instant_us(format_instant(us), "at") == instant_us(as_datetime(us), "at") == us


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (datetime(2026, 5, 1), "at: the naive datetime 2026-05-01T00:00:00 has no time zone. Add one"),
        ("2026-05-01", "at: '2026-05-01' has no time zone. Add one"),
        ("noon", "at: 'noon' is no instant. Write ISO 8601 with a zone"),
        (1_777_636_800, "at: 1777636800 (int) is a number, whose unit would be a guess."),
        (np.datetime64("2026-05-01"), "is no instant with a zone. Give an aware datetime"),
        (None, "at: None (NoneType) is no instant with a zone."),
    ],
)
def test_instants_that_would_be_a_guess(value: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        instant_us(value, "at")
    assert message in str(raised.value)
