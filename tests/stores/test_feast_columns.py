"""Arrow columns as Feast's bytes: each type held against Feast's own encoders, on every form of column Arrow has."""

from __future__ import annotations

import decimal
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from headrace.stores.errors import StoreError
from headrace.stores.feast_columns import NATIVE, FeastTable, encode_keys, encode_values_column, encodes
from headrace.stores.feast_values import varint

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

LOW, HIGH = -(2**63), 2**63 - 1
TEXT = st.text(max_size=6) | st.sampled_from(["", "ß", "\x00", "日本", "x" * 127, "x" * 128, "x" * 20_000])
BYTES = st.binary(max_size=6) | st.sampled_from([b"\x00", b"\xff" * 200])
INT64 = st.integers(LOW, HIGH) | st.sampled_from([0, -1, 127, 128, 2**53 + 1, LOW, HIGH])
INT32 = st.integers(-(2**31), 2**31 - 1)
SMALL = st.integers(0, 300)
DOUBLE = st.floats(width=64)
FLOAT = st.floats(width=32)
MICROS = st.integers(-(2**55), 2**55) | st.sampled_from([0, -1, 1, -1_000_001, 999_999])
DECIMAL = st.decimals("-9999999", "9999999", places=9)

Values = tuple[int, pa.DataType, st.SearchStrategy[Any], str]
"""Value type, column, values; and which nulls Feast takes without loss: "null", "element", both or none."""

SCALARS: list[Values] = [
    (1, pa.binary(), BYTES, "null"),
    (1, pa.large_binary(), BYTES, "null"),
    (1, pa.binary_view(), BYTES, "null"),
    (1, pa.binary(3), st.binary(min_size=3, max_size=3), "null"),
    (30, pa.binary(), BYTES, "null"),
    (31, pa.binary(), BYTES, "null"),
    (2, pa.string(), TEXT, "null"),
    (2, pa.large_string(), TEXT, "null"),
    (2, pa.string_view(), TEXT, "null"),
    (2, pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["", "a", "bb"]), "null"),
    (3, pa.int32(), INT32, "null"),
    (3, pa.int8(), st.integers(-128, 127), "null"),
    (3, pa.int64(), INT32, "null"),
    (4, pa.int64(), INT64, ""),
    (4, pa.int64(), st.integers(-(2**53), 2**53), "null"),
    (4, pa.int64(), SMALL, "null"),
    (4, pa.uint32(), st.integers(0, 2**32 - 1), "null"),
    (4, pa.uint64(), st.integers(0, HIGH), ""),
    (5, pa.float64(), DOUBLE, "null"),
    (5, pa.int64(), INT64, ""),
    (6, pa.float32(), FLOAT, "null"),
    (6, pa.float64(), DOUBLE, "null"),
    (6, pa.float16(), st.floats(width=16), "null"),
    (6, pa.int32(), INT32, "null"),
    (7, pa.bool_(), st.booleans(), "null"),
    (8, pa.timestamp("s"), st.integers(-(2**50), 2**50), "null"),
    (8, pa.timestamp("ms"), st.integers(-(2**55), 2**55), "null"),
    (8, pa.timestamp("us"), MICROS, "null"),
    (8, pa.timestamp("us", "UTC"), MICROS, "null"),
    (8, pa.timestamp("us", "America/New_York"), MICROS, "null"),
    (8, pa.timestamp("ns"), INT64.filter(lambda each: each != LOW), "null"),
    (8, pa.date32(), st.integers(-(2**20), 2**20), "null"),
    (8, pa.date64(), st.integers(-(2**20), 2**20).map(lambda day: day * 86_400_000), "null"),
    (8, pa.int64(), INT64, ""),
    (36, pa.string(), st.uuids().map(str), "null"),
    (37, pa.string(), st.uuids().map(str), "null"),
    (44, pa.string(), DECIMAL.map(str), "null"),
    (44, pa.decimal128(30, 9), DECIMAL, "null"),
    (44, pa.decimal256(60, 9), DECIMAL, "null"),
    (44, pa.decimal128(9, -2), st.integers(-9999, 9999).map(lambda n: decimal.Decimal(n).scaleb(2)), "null"),
]
LISTS: list[Values] = [
    (11, pa.binary(), BYTES, "null element"),
    (12, pa.string(), TEXT, "null element"),
    (12, pa.large_string(), TEXT, "null element"),
    (13, pa.int32(), INT32, "null"),
    (14, pa.int64(), INT64, "null"),
    (14, pa.int64(), SMALL, "null"),
    (15, pa.float64(), DOUBLE, "null element"),
    (16, pa.float32(), FLOAT, "null element"),
    (16, pa.float64(), DOUBLE, "null element"),
    (17, pa.bool_(), st.booleans(), "null element"),
    (18, pa.timestamp("us"), st.integers(-(10**15), 10**15), "null element"),
    (18, pa.timestamp("ms", "UTC"), st.integers(-(10**12), 10**12), "null element"),
    (18, pa.timestamp("s"), st.integers(-(10**9), 10**9), "null element"),
    (18, pa.int64(), INT64, "null"),
    (38, pa.string(), st.uuids().map(str), "null element"),
    (39, pa.string(), st.uuids().map(str), "null element"),
    (45, pa.string(), DECIMAL.map(str), "null element"),
]
Form = Callable[[pa.DataType], pa.DataType]
FORMS: list[Form] = [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2)]


def shown(values: Values) -> str:
    return f"{ValueType(values[0]).name}-{values[1]}"


def in_pieces(data: st.DataObject, column: pa.Array) -> pa.Array | pa.ChunkedArray:
    """The column as it is, cut out of a longer one, or in several chunks."""
    how = data.draw(st.sampled_from(["whole", "sliced", "chunks"]))
    n = len(column)
    if how == "sliced":
        return pa.concat_arrays([column, column, column]).slice(n, n)
    if how == "chunks":
        at = data.draw(st.integers(0, n))
        return pa.chunked_array([column.slice(0, at), column.slice(at), column.slice(0, 0)], column.type)
    return column


def made(values: list[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array; instants are given as numbers of the type's own unit."""
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        return pa.array(values, pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else _viewed(values, kind)
    return pa.array(values, pa.int32()).view(kind) if pa.types.is_date32(kind) else pa.array(values, kind)


def _viewed(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int64()).view(kind)


def by_feast(column: pa.Array | pa.ChunkedArray, value_type: int) -> list[bytes]:
    """What Feast's local engine writes: the column as NumPy, each value as a message."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's of casts that Feast makes
        found = python_values_to_proto_values(whole.to_numpy(zero_copy_only=False), ValueType(value_type))
    return [each.SerializeToString() for each in found]


@pytest.mark.parametrize("values", SCALARS, ids=shown)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_scalars_are_written_as_feast_writes_them(values: Values, data: st.DataObject) -> None:
    value_type, kind, element, nulls = values
    given_ = data.draw(st.lists(st.none() | element if "null" in nulls else element, max_size=12))
    column = in_pieces(data, made(given_, kind))
    assert encodes(kind, value_type)
    if value_type in (1, 30, 31) and not any(given_):
        return  # Feast takes bytes that are all empty for nulls: see test_what_feast_loses_is_kept
    assert encode_values_column(column, value_type).to_pylist() == by_feast(column, value_type)


@pytest.mark.parametrize("values", LISTS, ids=shown)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_lists_are_written_as_feast_writes_them(values: Values, data: st.DataObject) -> None:
    value_type, kind, element, nulls = values
    form = data.draw(st.sampled_from(FORMS))
    filler = data.draw(element)
    if "element" in nulls:
        element = st.none() | element
    some = st.lists(element, min_size=2, max_size=2) if form is FORMS[2] else st.lists(element, max_size=4)
    rows = data.draw(st.lists(st.none() | some, max_size=8))
    if form is FORMS[2]:
        # of no row Arrow makes no fixed lists out of ordinary ones
        rows = rows or [None]
    whole = pa.ListArray.from_arrays(
        pa.array([0, *_counted(rows)], pa.int32()),
        made([each for row in rows for each in row or []], kind),
        mask=pa.array([row is None for row in rows], pa.bool_()),
    )
    column = in_pieces(data, _as(form, kind, rows, whole, filler))
    assert encodes(column.type, value_type)
    assert encode_values_column(column, value_type).to_pylist() == by_feast(column, value_type)


def _counted(rows: list[Any]) -> list[int]:
    total, out = 0, []
    for row in rows:
        total += len(row or [])
        out.append(total)
    return out


def _as(form: Form, kind: pa.DataType, rows: list[Any], whole: pa.Array, filler: Any) -> pa.Array:
    if form is not FORMS[2]:
        return whole.cast(form(kind))
    flat = made([each for row in rows for each in row or [filler, filler]], kind)
    return pa.FixedSizeListArray.from_arrays(flat, 2, mask=pa.array([row is None for row in rows], pa.bool_()))


KEYS: dict[int, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    1: (pa.binary(), BYTES),
    2: (pa.string(), TEXT),
    3: (pa.int32(), INT32),
    4: (pa.int64(), INT64),
    8: (pa.timestamp("us", "UTC"), MICROS),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_keys_are_written_as_feast_writes_them(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(["k", "a", "key_two", "ä"]), min_size=1, max_size=3, unique=True))
    kinds = [data.draw(st.sampled_from(sorted(KEYS))) for _ in names]
    n = data.draw(st.integers(0, 6))
    columns = [made(data.draw(st.lists(KEYS[kind][1], min_size=n, max_size=n)), KEYS[kind][0]) for kind in kinds]
    table = FeastTable("a-project", "view", tuple(zip(names, kinds, strict=True)), ())
    messages = [
        python_values_to_proto_values(column.to_numpy(zero_copy_only=False), ValueType(kind))
        for column, kind in zip(columns, kinds, strict=True)
    ]
    theirs = []
    for each in zip(*messages, strict=True):
        if all(message.WhichOneof("val") for message in each):
            theirs.append(serialize_entity_key(EntityKey(join_keys=names, entity_values=each)) + b"a-project")
    found = encode_keys(table, [in_pieces(data, column) for column in columns]).to_pylist()
    if len(theirs) == n:  # of bytes that are all empty Feast makes nulls, and of nulls no keys
        assert found == theirs
    else:
        assert 1 in kinds


def test_feasts_entity_of_views_without_one_is_a_key() -> None:
    table = FeastTable("p", "v", (("__dummy_id", 2),), ())
    (message,) = python_values_to_proto_values([""], ValueType.STRING)
    theirs = serialize_entity_key(EntityKey(join_keys=["__dummy_id"], entity_values=[message])) + b"p"
    assert encode_keys(table, [pa.array(["", ""])]).to_pylist() == [theirs, theirs]


def test_what_feast_loses_is_kept() -> None:
    wide = pa.array([2**53 + 1, None])
    assert encode_values_column(wide, 4).to_pylist() == [b"\x20" + varint(2**53 + 1), b""] != by_feast(wide, 4)
    empty = pa.array([b"", None])
    assert encode_values_column(empty, 1).to_pylist() == [b"\n\x00", b""] != by_feast(empty, 1)
    holes = pa.array([[1, None], []], pa.list_(pa.int64()))
    assert encode_values_column(holes, 14).to_pylist() == [b"\x72\x04\x0a\x02\x01\x00", b"\x72\x00"]
    with pytest.raises(TypeError):
        by_feast(holes, 14)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    fine = pa.array([[at], None], pa.list_(pa.timestamp("ns", "UTC")))
    assert encode_values_column(fine, 18) == encode_values_column(fine.cast(pa.list_(pa.timestamp("us", "UTC"))), 18)
    days = pa.array([[date(2026, 1, 2)], None], pa.list_(pa.date32()))
    assert encode_values_column(days, 18) == encode_values_column(fine, 18)


@pytest.mark.parametrize("value_type", sorted(NATIVE))
def test_columns_of_nulls_alone_and_of_none(value_type: int) -> None:
    scalar = value_type == 8
    null = b"\x40" + varint(-(2**63)) if scalar else b""
    assert encode_values_column(pa.nulls(3), value_type).to_pylist() == [null] * 3
    assert encode_values_column(pa.nulls(0), value_type).to_pylist() == []
    assert encode_values_column(pa.chunked_array([], pa.null()), value_type).to_pylist() == []


@pytest.mark.parametrize("value_type", [kind for kind in sorted(NATIVE) if "LIST" in ValueType(kind).name])
def test_lists_of_nothing(value_type: int) -> None:
    column = pa.array([[], None], pa.list_(pa.null()))
    tag = varint(value_type << 3 | 2)
    assert encode_values_column(column, value_type).to_pylist() == [tag + b"\x00", b""]


def test_errors_say_what_to_do() -> None:
    with pytest.raises(StoreError, match=r"type string .* number 4 .*Feast's own functions"):
        encode_values_column(pa.array(["1"]), 4)
    with pytest.raises(StoreError, match=r"does not fit into 32 bits.*wider type"):
        encode_values_column(pa.array([2**31]), 3)
    table = FeastTable("p", "v", (("driver", 4),), ())
    with pytest.raises(StoreError, match=r"'driver' is null in 1 of 2 rows.*Leave them out"):
        encode_keys(table, [pa.array([1, None])])
    with pytest.raises(StoreError, match=r"'driver' is a column of type string.*Cast it"):
        encode_keys(table, [pa.array(["1"])])
    with pytest.raises(StoreError, match=r"'driver' is of Feast's value type number 5"):
        encode_keys(FeastTable("p", "v", (("driver", 5),), ()), [pa.array([1.0])])


@pytest.mark.parametrize(
    ("kind", "value_type"),
    [(pa.int64(), 2), (pa.list_(pa.int64()), 4), (pa.map_(pa.string(), pa.int64()), 20), (pa.string(), 32)],
    ids=str,
)
def test_what_is_for_feasts_own_functions(kind: pa.DataType, value_type: int) -> None:
    assert not encodes(kind, value_type)
