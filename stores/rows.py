"""Rows as bytes, for online stores: a table of rows in, one key and one value per row out, and back.

    value = 8 bytes event_timestamp (big-endian, signed)  +  MessagePack [newest_event, feature, feature, ...]

Features stand by position; the store keeps the layout once per view and refuses any other. MessagePack keeps integers
of 64 bits, doubles with their infinities, text, bytes and null apart and exact. A map is a list of pairs, since its
order means something and its keys need not be text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.features.dtypes import TIMESTAMP, split_list, split_map
from headrace.stores.keys import encode_key, key_values
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, RowLayout, arrow_type, check_related, conform
from headrace.stores.lookups import FoundRow, picking
from headrace.stores.online import StoredRow

if TYPE_CHECKING:
    import pyarrow as pa

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list).decode
_time = struct.Struct(">q")

Convert = Callable[[Any], Any]


class RowCodec:
    """Encoder and decoder of one view's rows; obtained by `row_codec`, holds no state between calls.

    Args:
        layout: as the rows are stored.
        order: the features of a row in the order in which it is read; by default as stored.
    """

    def __init__(self, layout: RowLayout, order: tuple[str, ...] = ()) -> None:
        self.layout = layout
        self._names = layout.feature_names
        self._order = order if order != self._names else ()
        self._readers: dict[tuple[str, ...], Callable[[bytes | memoryview], FoundRow]] = {}
        self._decoders = [
            (at, convert) for at, (_, dtype) in enumerate(layout.features) if (convert := _decoder(dtype)) is not None
        ]

    def encode(self, rows: pa.Table) -> Iterator[tuple[bytes, int, bytes]]:
        """Key, event_timestamp (microseconds) and value of each row, in order.

        Raises:
            SchemaMismatchError: the rows are not of the layout.
        """
        rows = conform(self.layout, rows)
        keys = [plain_column(rows.column(name), dtype) for name, dtype in self.layout.keys]
        times = plain_column(rows.column(EVENT_TIMESTAMP), TIMESTAMP)
        newest = plain_column(rows.column(NEWEST_EVENT), TIMESTAMP)
        features = [plain_column(rows.column(name), dtype) for name, dtype in self.layout.features]
        values = map(_encode, zip(newest, *features, strict=True))
        pack = _time.pack
        for key, at, value in zip(zip(*keys, strict=True), times, values, strict=True):
            yield encode_key(key), at, pack(at) + value

    def decode(self, value: bytes | memoryview) -> StoredRow:
        """The row of a value made by `encode` under the same layout."""
        (at,) = _time.unpack_from(value)
        newest, *features = _decode(value[8:])
        for position, convert in self._decoders:
            if features[position] is not None:
                features[position] = convert(features[position])
        values = dict(zip(self._names, features, strict=True))
        return StoredRow({name: values[name] for name in self._order} if self._order else values, at, newest)

    def reader(self, features: tuple[str, ...]) -> Callable[[bytes | memoryview], FoundRow]:
        """The function that decodes some features of a row, in this order; made once per choice."""
        found = self._readers.get(features)
        if found is None:
            if len(self._readers) > 1000:
                self._readers.clear()
            found = self._readers[features] = self._reader(features)
        return found

    def _reader(self, features: tuple[str, ...]) -> Callable[[bytes | memoryview], FoundRow]:
        names = (NEWEST_EVENT, *self._names)
        pick, unpack = picking(names, features), _time.unpack_from
        decoders = [(names.index(name), dict(self.layout.features)[name]) for name in features]
        convert = [(at, function) for at, dtype in decoders if (function := _decoder(dtype)) is not None]

        def read(value: bytes | memoryview) -> FoundRow:
            row = _decode(value[8:])
            for at, function in convert:
                if row[at] is not None:
                    row[at] = function(row[at])
            return pick(row), unpack(value)[0], row[0]

        return read

    def key(self, key: Mapping[str, Any]) -> bytes:
        """Canonical bytes of an entity's key. Raises DataError when it is not of the key columns' types."""
        return encode_key(key_values(self.layout.view, self.layout.keys, key))


def event_timestamp_of(value: bytes | memoryview) -> int:
    """The event_timestamp of an encoded row, microseconds, without decoding the rest."""
    at: int = _time.unpack_from(value)[0]
    return at


@lru_cache(maxsize=256)
def row_codec(layout: RowLayout, stored: RowLayout | None = None) -> RowCodec:
    """The codec of rows asked for under `layout`, where they were stored under `stored` (the same but for the order of
    features)."""
    return RowCodec(stored or layout, layout.feature_names)


def recoder(stored: RowLayout, asked: RowLayout) -> Callable[[bytes | memoryview], bytes]:
    """From a row encoded under `stored` to the same row under `asked`, a later definition of the view.

    A feature that is new, or computed in another way, is null; one that is gone is left out.

    Raises:
        SchemaMismatchError: keys or the time column differ, so the rows are of other entities or instants.
    """
    check_related(stored, asked)
    meant = {
        name: (at, dtype, how)
        for at, ((name, dtype), how) in enumerate(zip(stored.features, stored.meaning, strict=True), 1)
    }
    places = []
    for (name, dtype), how in zip(asked.features, asked.meaning, strict=True):
        at, *same = meant.get(name, (0, "", ""))
        places.append(at if same == [dtype, how] else 0)

    def recode(value: bytes | memoryview) -> bytes:
        row = _decode(value[8:])
        return bytes(value[:8]) + _encode([row[0], *(row[at] if at else None for at in places)])

    return recode


def plain_column(column: pa.ChunkedArray, dtype: str) -> list[Any]:
    """The values of an Arrow column as plain Python: instants as integer microseconds (also inside lists and maps),
    maps as lists of pairs, null as None."""
    if TIMESTAMP in dtype:
        column = column.cast(arrow_type(dtype.replace(TIMESTAMP, "int64")))
    values: list[Any] = column.to_pylist()
    return values


def plain_value(value: Any, dtype: str) -> Any:
    """A value of `plain_column` as features/ knows it: maps as dicts, at any depth; None stays None."""
    convert = None if value is None else _decoder(dtype)
    return value if convert is None else convert(value)


def table_value(value: Any, dtype: str) -> Any:
    """A value as features/ knows it in the form that makes an Arrow column: maps as pairs, at any depth; None stays
    None."""
    convert = None if value is None else _encoder(dtype)
    return value if convert is None else convert(value)


def table_of(layout: RowLayout, keys: Sequence[Mapping[str, Any]], rows: Sequence[StoredRow]) -> pa.Table:
    """A table of rows from keys and rows, the inverse of reading; for tests and for moving rows between stores.

    Values are as in `StoredRow`: instants as integer microseconds, maps as dicts.
    """
    import pyarrow as pa

    checked = [key_values(layout.view, layout.keys, key) for key in keys]
    columns: dict[str, list[Any]] = {
        name: [values[position] for values in checked] for position, name in enumerate(layout.key_names)
    }
    columns[EVENT_TIMESTAMP] = [row.event_timestamp_us for row in rows]
    columns[NEWEST_EVENT] = [row.newest_event_us for row in rows]
    for name in layout.feature_names:
        columns[name] = [row.values[name] for row in rows]
    arrays = []
    for name, dtype in layout.columns:
        values = [table_value(value, dtype) for value in columns[name]]
        array = pa.array(values, arrow_type(dtype.replace(TIMESTAMP, "int64")))
        arrays.append(array.cast(arrow_type(dtype)) if TIMESTAMP in dtype else array)
    return conform(layout, pa.table(arrays, names=[name for name, _ in layout.columns]))


def _decoder(dtype: str) -> Convert | None:
    """From MessagePack's or Arrow's form to Python's; None where they are the same."""
    pair = split_map(dtype)
    if pair is not None:
        inner = _decoder(pair[1])
        if inner is None:
            return lambda pairs: {key: value for key, value in pairs}  # noqa: C416 (dict() refuses lists of lists)
        return lambda pairs: {key: None if value is None else inner(value) for key, value in pairs}
    element = split_list(dtype)
    return None if element is None else _each(_decoder(element))


def _encoder(dtype: str) -> Convert | None:
    """From Python's form to Arrow's; None where they are the same."""
    pair = split_map(dtype)
    if pair is not None:
        inner = _encoder(pair[1])
        if inner is None:
            return lambda mapping: list(mapping.items())
        return lambda mapping: [(key, None if value is None else inner(value)) for key, value in mapping.items()]
    element = split_list(dtype)
    return None if element is None else _each(_encoder(element))


def _each(inner: Convert | None) -> Convert | None:
    """`inner` on every element of a list that is not null."""
    return inner and (lambda values: [None if value is None else inner(value) for value in values])
