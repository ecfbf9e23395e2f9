"""Rows read many at a time are those that are read one by one, whatever form their bytes have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.dtypes import BOOL, FLOAT, INT
from headrace.stores import feast_reader
from headrace.stores.feast_reader import FeastReader
from headrace.stores.feast_rows import FeastRows
from headrace.stores.feast_values import decode_value, encode_value, read_timestamp, timestamp
from headrace.stores.layout import RowLayout
from headrace.stores.lookups import FoundRow

FEATURES = (("a", FLOAT), ("n", INT), ("b", FLOAT), ("yes", BOOL), ("m", INT))
NAMES = tuple(name for name, _ in FEATURES)
READERS = {
    names: FeastReader(FeastRows(RowLayout("v", (("k", INT),), FEATURES, "i", ("",) * len(FEATURES)), "p"), names)
    for names in (NAMES, ("a", "b"), ("n",), ("yes", "a"), ())
}
USUAL_US = st.integers(1_700_000_000_000_000, 1_900_000_000_000_000)
ANY_US = st.one_of(USUAL_US, st.integers(-(10**15), 10**17), st.sampled_from([0, 1, 1_700_000_000_000_000]))
VALUES: dict[str, st.SearchStrategy[float | int | bool]] = {
    FLOAT: st.floats(allow_nan=False),
    INT: st.one_of(st.integers(0, 300), st.integers(-(2**63), 2**63 - 1)),
    BOOL: st.booleans(),
}


def row(reader: FeastReader, times: st.SearchStrategy[int], holes: bool) -> st.SearchStrategy[list[bytes | None]]:
    """The fields of a row as Redis answers; `holes`: some may be absent or null."""

    def field(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes | None]:
        return st.one_of(values, st.sampled_from([None, b""])) if holes else values

    kinds, wanted = dict(FEATURES), reader_names(reader)
    fields = [times.map(timestamp), *(field(encoded(FLOAT)) for name in wanted if kinds[name] == FLOAT)]
    fields.append(field(times.map(lambda us: encode_value(us, INT))))
    for dtype in (INT, BOOL):
        fields += [field(encoded(dtype)) for name in wanted if kinds[name] == dtype]
    return st.tuples(*fields).map(list)


def encoded(dtype: str) -> st.SearchStrategy[bytes]:
    return VALUES[dtype].map(lambda value: encode_value(value, dtype))


def reader_names(reader: FeastReader) -> tuple[str, ...]:
    return next(names for names, each in READERS.items() if each is reader)


@given(st.data())
def test_many_rows_are_read_as_one_by_one(data: st.DataObject) -> None:
    reader = READERS[data.draw(st.sampled_from(list(READERS)))]
    rows: list[Sequence[bytes | None]] = []
    for times, holes in ((USUAL_US, False), (USUAL_US, True), (ANY_US, True)):
        if data.draw(st.booleans()):
            rows += data.draw(st.lists(row(reader, times, holes), min_size=1, max_size=6)) * 12
    absent = [None] * len(reader.fields)
    for at in data.draw(st.lists(st.integers(0, len(rows)), max_size=3)):
        rows.insert(at, absent)
    found = [reader.read(each) for each in rows]
    assert reader.read_all(rows) == found
    for each, got in zip(rows, found, strict=True):
        assert got == plainly(reader, each)


def plainly(reader: FeastReader, fields: Sequence[bytes | None]) -> FoundRow | None:
    """The row, each of its fields decoded by itself."""
    time, kinds = fields[0], dict(FEATURES)
    if time is None:
        return None
    wanted = reader_names(reader)
    floats = [name for name in wanted if kinds[name] == FLOAT]
    names = [*floats, "", *(name for dtype in (INT, BOOL) for name in wanted if kinds[name] == dtype)]
    values = {
        name: None if data is None else decode_value(data, kinds.get(name, INT))
        for name, data in zip(names, fields[1:], strict=True)
    }
    as_of = read_timestamp(time)
    newest = values[""]
    return tuple(values[name] for name in wanted), as_of, as_of if newest is None else newest


def test_usual_rows_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would compare a thing with itself."""
    reader = READERS["a", "b"]
    doubles = [encode_value(1.5, FLOAT), encode_value(-2.0, FLOAT)]
    times = [1_700_000_000_000_000, 1_700_000_000_250_000, 1_899_999_999_999_999] * 20
    rows = [[timestamp(us), *doubles, encode_value(us + 7, INT)] for us in times]
    monkeypatch.setattr(FeastReader, "read", lambda *_: pytest.fail("one by one"))
    assert reader.read_all(rows) == [((1.5, -2.0), us, us + 7) for us in times]


@pytest.mark.parametrize("odd", [b"", b"\x08\x01", b"\x08" + b"\x80" * 4 + b"\x01\x18\x01", b"\x10" * 16, b"\x08" * 20])
def test_instants_of_unusual_form_are_left_to_the_slow_way(odd: bytes) -> None:
    usual = timestamp(1_700_000_000_000_001)
    assert feast_reader._instants([usual] * 30) is not None
    assert feast_reader._instants([*[usual] * 30, odd]) is None
