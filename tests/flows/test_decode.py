"""Decoding: what fits, what does not, and that every path and every cut gives the same answer."""

import base64
import dataclasses
import json
import math
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.events import Event, EventSchema, EventTime, schema_of
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.decode import decode_rows, decode_table
from headrace.flows.jsonlines import decode_json
from headrace.flows.values import Reading

AT = "2026-05-01T12:00:00Z"
AT_US = 1_777_636_800_000_000


class Ride(Event):
    driver_id: str
    fare: float
    riders: int | None
    paid: bool | None
    raw: bytes | None
    booked: datetime | None
    note: str | None
    at: EventTime


RIDE = schema_of(Ride)
GOOD = {"driver_id": "7", "fare": 2.5, "at": AT}


def rows_of(batch: EventBatch) -> list[dict[str, Any]]:
    columns = {
        n: [v if ok else None for v, ok in zip(batch.values(n).tolist(), batch.valid(n).tolist(), strict=True)]
        for n in batch
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def one(field: str, value: Any, how: Reading | None = None) -> Any:
    """The value that a row path makes of `value`, or the detail of its dead letter."""
    batch, dead = decode_rows(RIDE, [{**GOOD, field: value}], how=how)
    assert len(batch) + len(dead) == 1
    return rows_of(batch)[0][field] if len(batch) else dead[0].detail


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("riders", 3, 3),
        ("riders", 3.0, 3),
        ("riders", np.int32(3), 3),
        ("riders", Decimal(3), 3),
        ("riders", 2**63 - 1, 2**63 - 1),
        ("riders", -(2**63), -(2**63)),
        ("riders", None, None),
        ("riders", math.nan, None),
        ("riders", pd.NA, None),
        ("riders", 2**63, "field 'riders': 9223372036854775808 is beyond int64"),
        ("riders", 1.5, "field 'riders': 1.5 (float) is no int"),
        ("riders", math.inf, "field 'riders': inf (float) is no int"),
        ("riders", True, "field 'riders': True (bool) is no int"),
        ("riders", "3", "field 'riders': '3' (str) is no int"),
        ("riders", Decimal("NaN"), "field 'riders': Decimal('NaN') (Decimal) is no int"),
        ("fare", 2, 2.0),
        ("fare", Decimal("2.5"), 2.5),
        ("fare", np.float32(2.5), 2.5),
        ("fare", math.nan, None),
        ("fare", math.inf, math.inf),
        ("fare", None, "field 'fare': null, but not declared `| None`"),
        ("fare", "2.5", "field 'fare': '2.5' (str) is no float"),
        ("fare", True, "field 'fare': True (bool) is no float"),
        ("fare", 10**400, "is beyond float64"),
        ("fare", [1.0], "field 'fare': [1.0] (list) is no float"),
        ("paid", True, True),
        ("paid", np.bool_(False), False),
        ("paid", 1, "field 'paid': 1 (int) is no bool"),
        ("note", "", ""),
        ("note", math.nan, None),
        ("note", "æ\x00", "æ\x00"),
        ("note", "\ud800", "field 'note': '\\ud800' is no UTF-8 text"),
        ("note", b"x", "field 'note': b'x' (bytes) is no str"),
        ("note", 5, "field 'note': 5 (int) is no str"),
        ("raw", b"\xff", b"\xff"),
        ("raw", bytearray(b"x"), b"x"),
        ("raw", "x", "field 'raw': 'x' (str) is no bytes"),
        ("booked", AT, AT_US),
        ("booked", None, None),
        ("booked", pd.NaT, None),
        ("at", None, "field 'at': null, but not declared `| None`"),
        ("at", pd.NaT, "field 'at': null, but not declared `| None`"),
    ],
)
def test_one_value(field: str, value: Any, expected: Any) -> None:
    got = one(field, value)
    if isinstance(expected, str) and isinstance(got, str) and got.startswith("field"):
        assert expected in got
    else:
        assert got == expected
        assert type(got) is type(expected)


@given(
    st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2) | st.binary(max_size=2)),
    st.data(),
)
def test_a_column_is_judged_value_by_value_however_it_is_cut(values: list[Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(["riders", "fare", "paid", "note", "raw", "driver_id"]))
    rows = [{**GOOD, field: v} for v in values]
    alone = [decode_rows(RIDE, [row], 0, i) for i, row in enumerate(rows)]
    batch, dead = decode_rows(RIDE, rows)
    assert dead == [letter for _, letters in alone for letter in letters]
    assert rows_of(batch) == [row for one_batch, _ in alone for row in rows_of(one_batch)]
    assert sorted([*batch.offset.tolist(), *(letter.offset for letter in dead)]) == list(range(len(rows)))


arrow_values: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "float64": (pa.float64(), st.floats() | st.integers(-5, 5).map(float)),
    "float32": (pa.float32(), st.floats(width=32)),
    "bool": (pa.bool_(), st.booleans()),
    "large_string": (pa.large_string(), st.text(max_size=2)),
    "string_view": (pa.string_view(), st.text(max_size=2)),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b"])),
    "binary": (pa.binary(), st.binary(max_size=2)),
    "large_binary": (pa.large_binary(), st.binary(max_size=2)),
    "decimal": (pa.decimal128(10, 2), st.decimals(-1000, 1000, places=2)),
    "null": (pa.null(), st.none()),
    "timestamp": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "list": (pa.list_(pa.int64()), st.lists(st.integers(0, 3), max_size=2)),
}


@given(st.sampled_from(sorted(arrow_values)), st.sampled_from(["riders", "fare", "paid", "note", "raw"]), st.data())
def test_an_arrow_column_of_any_type_is_judged_as_its_python_values_are(
    kind: str, field: str, data: st.DataObject
) -> None:
    arrow_type, elements = arrow_values[kind]
    array = pa.array(data.draw(st.lists(st.none() | elements, max_size=8)), type=arrow_type, from_pandas=False)
    n = len(array)
    table = pa.table(
        {"driver_id": ["7"] * n, "at": [AT] * n, **({} if field == "fare" else {"fare": [1.0] * n}), field: array}
    )
    rows = [{**GOOD, "fare": 1.0, field: v} for v in array.to_pylist()]
    batch, dead = decode_table(RIDE, table)
    expected, refused = decode_rows(RIDE, rows)
    assert rows_of(batch) == rows_of(expected)
    assert [(d.offset, d.reason, d.event_time_us) for d in dead] == [
        (d.offset, d.reason, d.event_time_us) for d in refused
    ]


json_values = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3)


@given(
    st.lists(st.fixed_dictionaries({}, optional={
        "driver_id": st.text(max_size=2) | json_values,
        "fare": st.floats() | json_values,
        "riders": st.integers(0, 9) | json_values,
        "paid": json_values,
        "note": json_values,
        "at": st.sampled_from([AT, "2026-05-01T12:00:00", None, 5]),
        "other": json_values,
    })),
)  # fmt: skip
def test_json_is_judged_line_by_line_whichever_parser_reads_the_block(rows: list[dict[str, Any]]) -> None:
    how = Reading(base64=True)
    lines = [json.dumps(row).encode("utf-8", "surrogateescape") for row in rows]
    batch, dead = decode_json(RIDE, lines, how=how)
    alone = [decode_json(RIDE, [line], 0, i, how) for i, line in enumerate(lines)]
    assert dead == [letter for _, letters in alone for letter in letters]
    assert rows_of(batch) == [row for one_batch, _ in alone for row in rows_of(one_batch)]
    expected, refused = decode_rows(RIDE, rows, how=how)
    assert rows_of(batch) == rows_of(expected)
    assert [(d.offset, d.detail) for d in dead] == [(d.offset, d.detail) for d in refused]


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b'{"driver_id": "7", "fare": 1, "at"', "the line is no JSON: Input data was truncated"),
        (b"[1, 2]", "the row is [1, 2] (list), expected a mapping"),
        (b"null", "the row is None"),
        (b'"text"', "the row is 'text' (str)"),
        (b'{"driver_id": "7", "fare": 1e400, "at": "2026-05-01T12:00:00Z"}', "the line is no JSON: "),
        (b'{"driver_id": "\xff", "fare": 1, "at": "2026-05-01T12:00:00Z"}', "the line is no JSON: "),
        (b'{"driver_id": "7", "at": "2026-05-01T12:00:00Z"}', "field 'fare': the row does not have it"),
        (b'{"driver_id": "7", "fare": null, "at": "2026-05-01T12:00:00Z"}', "field 'fare': null"),
        (b'{"driver_id": "7", "fare": 1, "at": "2026-05-01T12:00:00Z"} {}', "the line is no JSON: "),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "the line is no JSON: maximum recursion depth"),
        (b"[" * 200_000, "the line is no JSON: maximum recursion depth"),
    ],
)
def test_a_broken_line_costs_itself_alone(line: bytes, detail: str) -> None:
    good = json.dumps(GOOD).encode()
    batch, dead = decode_json(RIDE, [good, line, good], 3, 10)
    assert batch.offset.tolist() == [10, 12]
    (letter,) = dead
    assert detail in letter.detail
    assert (letter.reason, letter.partition, letter.offset) == ("malformed", 3, 11)
    payload = json.loads(letter.payload)
    if b"\xff" in line:
        assert base64.b64decode(payload["base64"]) == line
    else:
        assert payload == (line.decode() if "no JSON" in letter.detail else json.loads(line))


def test_objects_of_many_kinds_are_rows() -> None:
    @dataclasses.dataclass
    class Data:
        driver_id: str
        fare: float
        at: datetime

    class Struct(msgspec.Struct):
        driver_id: str
        fare: float
        at: datetime
        note: str | msgspec.UnsetType | None = msgspec.UNSET

    when = datetime(2026, 5, 1, 12, tzinfo=UTC)
    rows = [Data("7", 2.5, when), Struct("7", 2.5, when), Ride(driver_id="7", fare=2.5, at=when), GOOD, pd.Series(GOOD)]
    batch, dead = decode_rows(RIDE, rows)
    assert dead == []
    assert rows_of(batch) == [rows_of(batch)[0]] * 5
    assert batch.time.tolist() == [AT_US] * 5


def test_what_is_no_row_and_what_raises_become_dead_letters() -> None:
    class Mean:
        @property
        def driver_id(self) -> str:
            raise RuntimeError("no")

        def __repr__(self) -> str:
            raise RuntimeError("no")

    batch, dead = decode_rows(RIDE, [None, 5, "x", [1], (1, 2), Mean(), {**GOOD, "note": Mean()}, GOOD])
    assert batch.offset.tolist() == [7]
    assert [d.offset for d in dead] == list(range(7))
    assert dead[1].detail == "the row is 5 (int), expected a mapping or an object with the event's fields"
    assert "Mean that cannot be shown" in dead[6].detail
    assert all(json.loads(d.payload) is not ... for d in dead)


def test_a_dead_letter_keeps_the_row_and_its_place() -> None:
    _, dead = decode_rows(RIDE, [{**GOOD, "fare": "x", "extra": math.nan}], 2, 40, Reading(source="rides"))
    assert dead == [
        DeadLetter(
            "malformed",
            "field 'fare': 'x' (str) is no float",
            "rides",
            2,
            40,
            AT_US,
            '{"driver_id": "7", "fare": "x", "at": "2026-05-01T12:00:00Z", "extra": "NaN"}',
        )
    ]
    assert str(dead[0]).startswith("rides partition 2 offset 40 at 2026-05-01T12:00:00Z: malformed: field 'fare'")


def test_columns_of_another_name() -> None:
    how = Reading(columns={"fare": "amount"})
    table = pa.table({"driver_id": ["7"], "amount": [2.5], "at": [AT]})
    assert rows_of(decode_table(RIDE, table, how=how)[0])[0]["fare"] == 2.5
    assert (
        rows_of(decode_json(RIDE, [b'{"driver_id":"7","amount":2.5,"at":"%s"}' % AT.encode()], how=how)[0])[0]["fare"]
        == 2.5
    )


def test_strings_stay_in_arrow_and_keep_their_dictionary() -> None:
    table = pa.table({"driver_id": pa.array(["7", "8"]).dictionary_encode(), "fare": [1.0, 2.0], "at": [AT, AT]})
    batch, _ = decode_table(RIDE, table)
    assert pa.types.is_dictionary(batch.arrow("driver_id").type)
    assert batch.values("driver_id").tolist() == ["7", "8"]


def test_rows_of_several_partitions_keep_their_places() -> None:
    lines = [json.dumps(row).encode() for row in (GOOD, {}, GOOD)]
    batch, dead = decode_json(RIDE, lines, np.array([3, 4, 5], dtype=np.int32), np.array([30, 40, 50]))
    assert (batch.partition.tolist(), batch.offset.tolist()) == ([3, 5], [30, 50])
    assert [(d.partition, d.offset) for d in dead] == [(4, 40)]


def test_a_row_is_left_as_it_was() -> None:
    row: defaultdict[str, Any] = defaultdict(str, GOOD)
    batch, dead = decode_rows(RIDE, [row])
    assert (len(batch), dead, dict(row)) == (1, [], GOOD)


def test_no_rows() -> None:
    schema: EventSchema = RIDE
    for batch, dead in (decode_rows(schema, []), decode_json(schema, []), decode_table(schema, pa.table({"fare": []}))):
        assert (len(batch), dead) == (0, [])
        assert list(batch) == list(schema.names)
