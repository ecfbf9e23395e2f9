import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.errors import DataError
from headrace.flows.batch import ARROW_TYPES, BatchColumn, EventBatch

values = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(),
    "bool": st.booleans(),
    "timestamp": st.integers(0, 10**15),
    "string": st.text(max_size=3),
    "bytes": st.binary(max_size=3),
}


def shown(batch: EventBatch, name: str) -> list[object]:
    return [v if ok else None for v, ok in zip(batch.values(name).tolist(), batch.valid(name).tolist(), strict=True)]


def in_arrow(array: pa.Array) -> list[object]:
    plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    return (plain.cast(pa.int64()) if pa.types.is_timestamp(plain.type) else plain).to_pylist()


@given(st.data(), st.sampled_from(sorted(values)), st.sampled_from(["arrow", "dictionary", "numpy"]))
def test_both_forms_of_a_column_agree_through_take_and_concat(data: st.DataObject, dtype: str, form: str) -> None:
    given_values = data.draw(st.lists(st.none() | values[dtype], max_size=12))
    n = len(given_values)
    if form == "numpy":
        valid = np.array([v is not None for v in given_values], dtype=np.bool_)
        zero = {"string": None, "bytes": None}.get(dtype, 0)
        kind = {"string": object, "bytes": object, "timestamp": np.int64}.get(dtype, dtype)
        filled = np.empty(n, dtype=kind)
        filled[:] = [zero if v is None else v for v in given_values]
        column = BatchColumn(dtype, values=filled, valid=valid)
    else:
        array = pa.array(
            given_values, type=pa.int64() if dtype == "timestamp" else ARROW_TYPES[dtype], from_pandas=False
        )
        array = array.cast(ARROW_TYPES[dtype])
        column = BatchColumn(
            dtype, arrow=array.dictionary_encode() if form == "dictionary" and dtype == "string" else array
        )
    batch = EventBatch.of({"x": column}, np.arange(n))
    expected = [None if v is None or v != v else v for v in given_values]

    assert data.draw(st.sampled_from([shown(batch, "x"), in_arrow(batch.arrow("x"))])) == expected
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=5)) if n else []
    picked = batch.take(np.array(rows, dtype=np.int64))
    assert (shown(picked, "x"), in_arrow(picked.arrow("x"))) == ([expected[i] for i in rows],) * 2
    assert picked.time.tolist() == rows
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=np.bool_)
    assert shown(batch.take(mask), "x") == [v for v, keep in zip(expected, mask, strict=True) if keep]
    cut = data.draw(st.integers(0, n))
    halves = [batch.take(slice(0, cut)), batch.take(slice(cut, n))]
    if data.draw(st.booleans()):
        halves[0].values("x")
    joined = EventBatch.concat(halves)
    assert (shown(joined, "x"), in_arrow(joined.arrow("x"))) == (expected, expected)
    assert joined.offset.tolist() == list(range(n))


def test_position_orders_by_partition_then_offset() -> None:
    batch = EventBatch.of({}, [0, 0, 0], np.array([1, 0, 1]), np.array([4, 9, 5]))
    assert np.argsort(batch.position).tolist() == [1, 0, 2]
    assert batch.position.dtype == np.int64


def test_effective_is_the_time_unless_given() -> None:
    batch = EventBatch.of({}, [5, 6])
    assert batch.effective is batch.time
    later = batch.counting_from(np.array([7, 6]))
    assert later.take(slice(0, 1)).effective.tolist() == [7]
    assert EventBatch.concat([batch, later]).effective.tolist() == [5, 6, 7, 6]


def test_missing_numbers_are_zero_and_missing_objects_none() -> None:
    columns = {
        "f": BatchColumn("float64", arrow=pa.array([None, float("nan"), 2.0])),
        "g": BatchColumn("float64", values=np.array([np.nan, np.nan, 2.0])),
        "s": BatchColumn("string", arrow=pa.array([None, None, "x"])),
    }
    batch = EventBatch.of(columns, [0, 1, 2])
    assert batch.values("f").tolist() == batch.values("g").tolist() == [0.0, 0.0, 2.0]
    assert batch.valid("f").tolist() == batch.valid("g").tolist() == [False, False, True]
    assert batch.values("s").tolist() == [None, None, "x"]


def test_a_mistake_in_the_parts_is_an_error() -> None:
    with pytest.raises(DataError, match="Column 'x' of a batch has 2 rows and its time column has 1"):
        EventBatch.of({"x": BatchColumn("int64", values=np.array([1, 2]))}, [0])
    with pytest.raises(DataError, match=r"no column 'y'\. It has: x"):
        EventBatch.of({"x": BatchColumn("int64", values=np.array([1]))}, [0]).values("y")
    with pytest.raises(DataError, match="No batches to join"):
        EventBatch.concat([])
    assert len(EventBatch.empty({"x": "string"})) == 0
