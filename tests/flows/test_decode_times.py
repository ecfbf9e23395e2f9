"""Instants of every spelling, judged in columns as they are one by one: zones, turned clocks, units, bounds."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.time import MAX_INSTANT_US, MIN_INSTANT_US
from headrace.flows.fit import Cast, Unfit
from headrace.flows.instants import TimeReading, cast_instants, instant_of
from headrace.flows.zones import LocalClock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEW_YORK = LocalClock("America/New_York")
ZONED = TimeReading(NEW_YORK)
STRICT = TimeReading()


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def column(cast: Cast) -> list[int | None]:
    instants: list[int | None] = cast.array.cast(pa.int64()).to_pylist()
    return instants


def by_value(values: list[Any], reading: TimeReading) -> tuple[list[int | None], dict[int, str]]:
    out: list[int | None] = []
    unfit: dict[int, str] = {}
    for i, value in enumerate(values):
        try:
            out.append(None if value is None else instant_of(value, reading))
        except Unfit as refusal:
            out.append(None)
            unfit[i] = str(refusal)
    return out, unfit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01 01:00+01:00", 0),
        ("1970-01-01T00:00:01.5-00:00", 1_500_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("  1970-01-01T00:00:00+0000 ", 0),
        ("0001-01-01T00:00:00Z", MIN_INSTANT_US),
        ("9999-12-31T23:59:59.999999Z", MAX_INSTANT_US),
        ("0001-01-01T00:00:00+14:00", "is outside the years 1 to 9999"),
        ("9999-12-31T23:59:59-12:00", "is outside the years 1 to 9999"),
        ("0000-01-01T00:00:00Z", "is no ISO 8601 time"),
        ("2026-02-30T00:00:00Z", "is no ISO 8601 time"),
        ("2026-01-01T00:00:60Z", "is no ISO 8601 time"),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00 has no time zone; write it in UTC or with its offset, or name"),
        ("2026-01-01", "has no time zone"),
        ("yesterday", "'yesterday' is no ISO 8601 time such as '2026-05-01T12:00:00Z'"),
        ("", "is no ISO 8601 time"),
        ("1700000000", "unit would be a guess"),
    ],
)
def test_text(text: str, expected: int | str) -> None:
    # Beside a row of the common form and one of another, so that the fast and the slow way both meet it.
    for company in ([], ["2026-01-01T00:00:00Z"], ["20260101T000000Z"]):
        cast = cast_instants(pa.array([text, *company]), STRICT)
        if isinstance(expected, int):
            assert (column(cast)[0], cast.unfit) == (expected, {})
        else:
            assert expected in cast.unfit[0]
        assert column(cast)[1:] == [us("2026-01-01T00:00:00Z")] * len(company)


SPELLING = (
    r"[0-9]{4}-[0-1][0-9]-[0-3][0-9]T[0-2][0-9]:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-2][0-9](:?[0-9]{2})?)?"
)
TURNS = ["2013-11-03T01:30:00", "2013-03-10T02:30:00", "2013-11-03T01:30:00-05:00"]
texts = st.one_of(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))])).map(str),
    st.datetimes().map(datetime.isoformat),
    st.from_regex(SPELLING, fullmatch=True),
    st.sampled_from([*TURNS, "x", None, " 2013-01-01T00:00Z"]),
    st.integers(-(10**12), 10**12).map(str),
)


@given(
    st.lists(texts, max_size=8), st.sampled_from([STRICT, ZONED, TimeReading(unit="ms"), TimeReading(NEW_YORK, "s")])
)
def test_a_column_of_text_is_read_as_its_rows_are(values: list[str | None], reading: TimeReading) -> None:
    cast = cast_instants(pa.array(values, type=pa.string()), reading)
    expected, unfit = by_value(values, reading)
    assert column(cast) == expected
    assert cast.unfit.keys() == unfit.keys()


@given(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**9), 10**9), max_size=8),
    st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_integers_need_a_unit_and_never_overflow(values: list[int | None], unit: str) -> None:
    cast = cast_instants(pa.array(values, type=pa.int64()), TimeReading(unit=unit))
    expected, unfit = by_value(values, TimeReading(unit=unit))
    assert column(cast) == expected
    assert cast.unfit.keys() == unfit.keys()
    zoned = cast_instants(pa.array(values, type=pa.int64()).cast(pa.timestamp(unit, "UTC")), STRICT)
    assert (column(zoned), zoned.unfit.keys()) == (expected, unfit.keys())
    nameless = cast_instants(pa.array(values, type=pa.int64()), STRICT)
    assert nameless.unfit.keys() == {i for i, v in enumerate(values) if v is not None}


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1_700_000_000, "s", 1_700_000_000_000_000),
        (1_700_000_000.0, "s", 1_700_000_000_000_000),
        (-1, "ns", -1),
        (1.5, "s", "1.5 is not a whole number of s"),
        (float("inf"), "s", "inf is not finite"),
        (10**30, "us", "is outside the years 1 to 9999"),
        (True, "s", "True (bool) is no instant"),
        (1, None, "1 is a number whose unit would be a guess; name it on the source (unit='s', 'ms', 'us' or 'ns')"),
        (np.int64(5), "us", 5),
        (b"x", None, "(bytes) is no instant"),
        (timedelta(1), None, "(timedelta) is no instant"),
    ],
)
def test_numbers(value: Any, unit: str | None, expected: int | str) -> None:
    if isinstance(expected, int):
        assert instant_of(value, TimeReading(unit=unit)) == expected
    else:
        with pytest.raises(Unfit) as refusal:
            instant_of(value, TimeReading(unit=unit))
        assert expected in str(refusal.value)


def test_floats_with_gaps_are_whole_ticks() -> None:
    cast = cast_instants(pa.array([1.0, None, float("nan"), 1.5]), TimeReading(unit="s"))
    assert column(cast) == [1_000_000, None, None, None]
    assert list(cast.unfit) == [3]


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 1),
        pd.Timestamp("2026-01-01"),
        np.datetime64("2026-01-01T00:00:00"),
        date(2026, 1, 1),
        "2026-01-01 00:00",
    ],
)
def test_a_time_without_a_zone_is_refused_unless_the_source_names_one(value: Any) -> None:
    with pytest.raises(Unfit, match=r"has no time zone; .* name the zone it is in on the source"):
        instant_of(value, STRICT)
    assert instant_of(value, ZONED) == us("2026-01-01T05:00:00+00:00")


@pytest.mark.parametrize(
    "value", [pd.Timestamp("2026-01-01", tz="UTC"), datetime(2026, 1, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))]
)
def test_a_time_with_a_zone_is_read_as_it_is(value: Any) -> None:
    assert instant_of(value, ZONED) == us("2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    "array",
    [
        pa.array([datetime(2026, 7, 1), None], type=pa.timestamp("s")),
        pa.array([datetime(2026, 7, 1), None], type=pa.timestamp("ns")),
        pa.array([date(2026, 7, 1), None], type=pa.date32()),
        pa.array([date(2026, 7, 1), None], type=pa.date64()),
        pa.array(["2026-07-01T00:00:00", None]),
        pa.array(["2026-07-01T00:00:00", None]).dictionary_encode(),
    ],
)
def test_columns_without_a_zone(array: pa.Array) -> None:
    assert list(cast_instants(array, STRICT).unfit) == [0]
    assert column(cast_instants(array, ZONED)) == [us("2026-07-01T04:00:00+00:00"), None]


def test_types_that_are_no_instants() -> None:
    for array in (
        pa.array([True, None]),
        pa.array([b"x", None]),
        pa.array([[1], None]),
        pa.array([timedelta(1), None]),
    ):
        assert list(cast_instants(array, ZONED).unfit) == [0]
    assert column(cast_instants(pa.nulls(2), STRICT)) == [None, None]


def test_a_column_beyond_what_python_can_show_is_refused_row_by_row() -> None:
    years = pa.array([10**12, 0, -(10**12)], type=pa.int64()).cast(pa.timestamp("s", "UTC"))
    cast = cast_instants(years, STRICT)
    assert column(cast) == [None, 0, None]
    assert all("is outside the years 1 to 9999" in why for why in cast.unfit.values())


# Clocks of New York in 2013: turned forward on 10 March 02:00 -> 03:00, back on 3 November 02:00 -> 01:00.


def test_the_hour_that_occurs_twice_is_refused_or_read_by_rule() -> None:
    local = "2013-11-03T01:30:00"
    with pytest.raises(Unfit, match="2013-11-03T01:30:00 occurs twice in America/New_York"):
        instant_of(local, ZONED)
    earlier, later = (TimeReading(LocalClock("America/New_York", ambiguous=a)) for a in ("earlier", "later"))
    assert instant_of(local, earlier) == us("2013-11-03T01:30:00-04:00")
    assert instant_of(local, later) == us("2013-11-03T01:30:00-05:00")
    assert instant_of("2013-11-03T01:30:00-05:00", ZONED) == us("2013-11-03T01:30:00-05:00")


def test_the_hour_that_does_not_occur_is_refused_or_shifted() -> None:
    with pytest.raises(Unfit, match="2013-03-10T02:30:00 does not occur in America/New_York"):
        instant_of("2013-03-10T02:30:00", ZONED)
    shift = TimeReading(LocalClock("America/New_York", nonexistent="shift"))
    assert instant_of("2013-03-10T02:30:00", shift) == us("2013-03-10T03:30:00-04:00")


def test_the_edges_of_both_turns() -> None:
    cast = cast_instants(
        pa.array(
            [
                "2013-03-10T01:59:59.999999",
                "2013-03-10T02:00:00",
                "2013-03-10T02:59:59.999999",
                "2013-03-10T03:00:00",
                "2013-11-03T00:59:59.999999",
                "2013-11-03T01:00:00",
                "2013-11-03T01:59:59.999999",
                "2013-11-03T02:00:00",
            ]
        ),
        ZONED,
    )
    assert list(cast.unfit) == [1, 2, 5, 6]
    assert [column(cast)[i] for i in (0, 3, 4, 7)] == [
        us("2013-03-10T01:59:59.999999-05:00"),
        us("2013-03-10T03:00:00-04:00"),
        us("2013-11-03T00:59:59.999999-04:00"),
        us("2013-11-03T02:00:00-05:00"),
    ]


ZONES = [
    "America/New_York",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Africa/Monrovia",
    "Europe/Dublin",
    "UTC",
]


@given(
    st.sampled_from(ZONES),
    st.lists(st.integers(-(3 * 10**9), 3 * 10**9) | st.integers(0, 48 * 365).map(lambda h: 1_356_998_400 + 1_800 * h)),
)
def test_a_column_of_local_times_is_what_zoneinfo_says(zone: str, seconds: list[int]) -> None:
    clock = LocalClock(zone, "earlier", "shift")
    got, unfit = clock.instants(np.array(seconds, dtype=np.int64) * 1_000_000)
    expected = [(datetime(1970, 1, 1) + timedelta(seconds=s)).replace(tzinfo=ZoneInfo(zone)) for s in seconds]
    assert unfit == {}
    assert got.tolist() == [(local - EPOCH) // timedelta(microseconds=1) for local in expected]
    strict, refused = LocalClock(zone).instants(np.array(seconds, dtype=np.int64) * 1_000_000)
    assert refused.keys() == {
        i for i, local in enumerate(expected) if local.utcoffset() != local.replace(fold=1).utcoffset()
    }
    assert all(strict[i] == got[i] for i in range(len(seconds)) if i not in refused)


def test_local_times_at_the_calendars_ends_are_refused() -> None:
    got, unfit = NEW_YORK.instants(np.array([MIN_INSTANT_US, 0, MAX_INSTANT_US, 2**62]))
    assert list(unfit) == [0, 2, 3]
    assert got[1] == us("1970-01-01T05:00:00+00:00")
