"""JSON read by the compiled reader: what it takes is what Python reads, and what it refuses is another's to judge."""

from __future__ import annotations

import json
import math
import random
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.flows.test_decode import rows_of

from headrace.features.events import Event, EventTime, schema_of
from headrace.flows import jsonlines
from headrace.flows.instants import TimeReading
from headrace.flows.json_columns import SMALL, JsonColumns, json_columns
from headrace.flows.jsonlines import cast_json, decode_json
from headrace.flows.values import Reading

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT = "2026-05-01T12:00:00Z"


class Ride(Event):
    driver: str
    fare: float
    riders: int
    paid: bool
    note: str | None
    tip: float | None
    at: EventTime


FIELDS = schema_of(Ride).fields
NAMES = tuple(field.name for field in FIELDS)
GOOD: dict[str, Any] = {"driver": "7", "fare": 2.5, "riders": 3, "paid": True, "note": None, "tip": 0.5, "at": AT}
GOOD_LINE = json.dumps(GOOD).encode()


def reader(time: TimeReading | None = None) -> JsonColumns:
    found = json_columns(FIELDS, NAMES, time or TimeReading())
    assert found is not None
    return found


def read(lines: list[bytes], time: TimeReading | None = None) -> list[dict[str, Any] | None]:
    """The rows that are read, None for those that are left to others."""
    columns, bad = reader(time).read(lines)
    values = [column.to_pylist() for column in columns]
    assert all(len(column) == len(lines) for column in columns)
    return [
        None if refused else dict(zip(NAMES, row, strict=True))
        for refused, row in zip(bad.tolist(), zip(*values, strict=True), strict=True)
    ]


def expected(line: bytes) -> dict[str, Any]:
    """A line as Python reads it."""
    row = json.loads(line.decode())
    at = datetime.fromisoformat(row["at"])
    fixed = {name: None if row.get(name) is None else float(row[name]) for name in ("fare", "tip")}
    return {**{name: row.get(name) for name in NAMES}, **fixed, "at": at.astimezone(UTC)}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """To the last bit, the sign of zero included, and of one type."""
    return all(
        type(found[name]) is type(value)
        and (
            struct.pack("d", found[name]) == struct.pack("d", value)
            if isinstance(value, float)
            else found[name] == value
        )
        for name, value in wanted.items()
    )


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=12)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
times = st.builds(
    lambda at, hours: at.replace(tzinfo=timezone(timedelta(hours=hours))).isoformat(),
    st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30)),
    st.integers(-23, 23),
)
rides = st.fixed_dictionaries(
    {
        "driver": texts,
        "fare": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
        "riders": st.integers(-(10**18) + 1, 10**18 - 1),
        "paid": st.booleans(),
        "at": times,
    },
    optional={"note": st.none() | texts, "tip": st.none() | st.floats(-1e9, 1e9), "other": anything, "more": anything},
)


@given(st.lists(st.tuples(rides, st.randoms(use_true_random=False), st.sampled_from([None, 1])), max_size=6))
def test_usual_rows_are_read_as_python_reads_them(
    drawn: list[tuple[dict[str, Any], random.Random, int | None]],
) -> None:
    lines = []
    for row, chance, indent in drawn:
        members = list(row.items())
        chance.shuffle(members)
        lines.append(json.dumps(dict(members), ensure_ascii=False, indent=indent).encode())
    for line, found in zip(lines, read(lines), strict=True):
        assert found is not None, line
        assert same(found, expected(line)), line


@given(
    st.lists(st.tuples(rides, st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=6)
)
@example([({**GOOD, "driver": "é"}, 13, b"", 1)])  # half of a character is left
def test_what_is_broken_is_taken_only_as_others_take_it(drawn: list[tuple[dict[str, Any], int, bytes, int]]) -> None:
    lines = []
    for row, at, put, cut in drawn:
        line = json.dumps(row, ensure_ascii=at % 2 == 0).encode()
        at %= len(line)
        lines.append(line[:at] + put + line[at + cut :])
    for line, found in zip(lines, read(lines), strict=True):
        if found is not None:
            casts, whole = jsonlines._struct_by_struct(FIELDS, [line], Reading(base64=True))
            assert not whole, line
            assert not any(cast.unfit for cast in casts.values()), line
            assert same(found, {name: cast.array.to_pylist()[0] for name, cast in casts.items()}), line


NUMBERS = [
    *(
        "0",
        "-0",
        "-0.0",
        "0e5",
        "0e49",
        "-0e-38",
        "1e22",
        "1e23",
        "-1E-22",
        "1.5e+3",
        "9007199254740993",
        "9007199254740992.5",
    ),
    *("0.1", "1e-7", "123456789012345678", "1234567890123456789", "0.30000000000000004", "1.7976931348623157e308"),
    *(
        "5e-324",
        "2.2250738585072011e-308",
        "1e-400",
        "8.5e49",
        "1.00000000000000011102230246251565e0",
        "1e-50",
        "3e-28",
    ),
    *("9007199254740993e1", "4503599627370496.5", "4503599627370497.5", "0." + "0" * 40 + "1", "1" + "0" * 30),
]


@pytest.mark.parametrize("text", NUMBERS)
def test_a_float_is_rounded_once(text: str) -> None:
    [found] = read([GOOD_LINE.replace(b"2.5", text.encode())])
    assert found is not None
    assert struct.pack("d", found["fare"]) == struct.pack("d", float(text))


@given(st.integers(0, 2**64 - 1), st.integers(1, 18), st.integers(-60, 60))
def test_floats_of_any_bits_and_of_any_digits(bits: int, digits: int, power: int) -> None:
    value = struct.unpack("d", bits.to_bytes(8, "little"))[0]
    written = [f"{bits % 10**digits}e{power}", f"0.{bits % 10**digits}e{power}"]
    if math.isfinite(value):
        written += [repr(value), f"{value:.16e}"]
    found = read([GOOD_LINE.replace(b"2.5", text.encode()) for text in written])
    for text, row in zip(written, found, strict=True):
        assert row is not None
        assert struct.pack("d", row["fare"]) == struct.pack("d", float(text)), text


@pytest.mark.parametrize(
    "text",
    [
        "01",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "--1",
        "0x1",
        "1_0",
        "1e999",
        "-1e999",
        "NaN",
        "Infinity",
        '"2.5"',
        "null",
        "tru",
    ],
)
def test_no_number_is_left_to_others(text: str) -> None:
    assert read([GOOD_LINE.replace(b"2.5", text.encode()), GOOD_LINE]) == [None, expected(GOOD_LINE)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0",
        b"{",
        b"[]",
        b"null",
        b"{}",
        GOOD_LINE + b"x",
        GOOD_LINE + b"\0",
        GOOD_LINE[:-1],
        GOOD_LINE[:-1] + b",}",
        GOOD_LINE[:-1] + b',"driver": "8"}',  # twice
        GOOD_LINE.replace(b'"driver"', b'"dr\\u0069ver"'),
        GOOD_LINE.replace(b'"7"', b'"\\u0037"'),
        GOOD_LINE.replace(b'"7"', b'"a\tb"'),
        GOOD_LINE.replace(b'"7"', b'"\xff"'),
        GOOD_LINE.replace(b'"riders": 3', b'"riders": 3.0'),
        GOOD_LINE.replace(b'"riders": 3', b'"riders": 9223372036854775807'),
        GOOD_LINE.replace(b'"paid": true', b'"paid": 1'),
        GOOD_LINE[:-1] + b', "x": [1, 2}}',
        GOOD_LINE[:-1] + b', "x": {"a" 1}}',
        GOOD_LINE[:-1] + b', "x": "\\q"}',
        GOOD_LINE[:-1] + b', "x": "\\ud800"}',
        GOOD_LINE[:-1] + b', "x": ' + b"[" * 70 + b"]" * 70 + b"}",
        b"\xef\xbb\xbf" + GOOD_LINE,
        *(
            GOOD_LINE.replace(AT.encode(), at.encode())
            for at in (
                *(
                    "2026-05-01",
                    "2026-05-01T12:00:00",
                    "2026-02-29T00:00:00Z",
                    "2026-05-01T24:00:00Z",
                    "2026-13-01T00:00:00Z",
                ),
                *(
                    "2026-05-01T12:00:00.Z",
                    "2026-05-01T12:00:00.1234567Z",
                    "2026-05-01T12:00:00+25:00",
                    "99x1-05-01T12:00:00Z",
                ),
                *("0001-01-01T00:00:00Z", "2026-05-01T12:00:60Z", "2026-00-01T00:00:00Z", "2026-05-01T12:00:00Z ", "+"),
            )
        ),
    ],
)
def test_other_spellings_are_left_to_others_and_do_no_harm_beside(line: bytes) -> None:
    assert read([GOOD_LINE, line, GOOD_LINE]) == [expected(GOOD_LINE), None, expected(GOOD_LINE)]


def test_instants_that_are_numbers_or_of_a_zone_of_the_source() -> None:
    counted = read([GOOD_LINE.replace(b'"2026-05-01T12:00:00Z"', b"1777636800000")], TimeReading(unit="ms"))
    assert counted == [{**expected(GOOD_LINE), "at": 1777636800000}]
    assert read([GOOD_LINE], TimeReading(unit="ms")) == [None]


def test_many_lines_of_all_sorts_are_each_read_as_alone() -> None:
    chance = random.Random(3)
    lines = []
    for i in range(SMALL + 200):
        row = {
            **GOOD,
            "driver": f"d{i}",
            "fare": chance.uniform(-1e3, 1e3),
            "note": chance.choice([None, "\n", "é", 5]),
        }
        lines.append(json.dumps(row, ensure_ascii=chance.random() < 0.5).encode())
    how = Reading(base64=True)
    schema = schema_of(Ride)
    batch, dead = decode_json(schema, lines, 0, 0, how)
    alone = [decode_json(schema, [line], 0, i, how) for i, line in enumerate(lines)]
    assert rows_of(batch) == [row for each, _ in alone for row in rows_of(each)]
    assert dead == [letter for _, letters in alone for letter in letters]
    assert 0 < len(dead) < len(lines)
    assert np.array_equal(batch.offset, np.concatenate([each.offset for each, _ in alone]))


def test_usual_lines_make_no_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "_struct_by_struct", lambda *_: pytest.fail("one by one"))
    casts, whole = cast_json(FIELDS, [GOOD_LINE] * (SMALL + 1), Reading(base64=True))
    assert not whole
    assert casts["fare"].array.to_pylist() == [2.5] * (SMALL + 1)
