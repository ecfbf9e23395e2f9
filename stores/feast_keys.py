"""Entity keys as Feast writes them, serialization version 3: canonical bytes that every Feast SDK makes the same.

    u32 number of join keys
    per join key, sorted by name:   u32 2 | u32 length | name
    per value, in the same order:   u32 type | u32 length | bytes      (int64: 8 bytes)

All integers are little-endian. In Redis the project's name follows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BYTES, INT, STRING
from headrace.stores.feast_values import seen_as
from headrace.stores.keys import KeyColumns
from headrace.stores.rows import plain_column

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES = {BYTES: 1, STRING: 2, INT: 4}
_number = struct.Struct("<q")
_head = struct.Struct("<II")
_count = struct.Struct("<I")


class FeastKeys:
    """Encoder and decoder of the keys of one entity.

    Args:
        columns: name and type of each key, in the entity's order.
        project: Feast's project.
    """

    def __init__(self, columns: KeyColumns, project: str) -> None:
        self.columns = columns
        self._order = sorted(range(len(columns)), key=lambda at: columns[at][0])
        self._dtypes = [columns[at][1] for at in self._order]
        names = [columns[at][0].encode() for at in self._order]
        self.prefix = _count.pack(len(names)) + b"".join(_head.pack(2, len(name)) + name for name in names)
        self.suffix = project.encode()

    def encode(self, values: Sequence[Any]) -> bytes:
        """The key of plain values given in the entity's order."""
        parts = [_part(dtype, _plain(dtype, values[at])) for at, dtype in zip(self._order, self._dtypes, strict=True)]
        return self.prefix + b"".join(parts) + self.suffix

    def encode_many(self, keys: Sequence[tuple[Any, ...]]) -> list[bytes]:
        """The keys of n entities, each given as plain values in the entity's order."""
        prefix, pack, suffix = self.prefix, _head.pack, self.suffix
        if self._dtypes == [INT]:
            start, number = prefix + pack(_TYPES[INT], 8), _number.pack
            return [start + number(value) + suffix for (value,) in keys]
        if self._dtypes != [STRING]:
            return [self.encode(values) for values in keys]
        return [prefix + pack(2, len(data)) + data + suffix for data in [text.encode() for (text,) in keys]]

    def encode_columns(self, columns: Sequence[pa.ChunkedArray]) -> list[bytes]:
        """The keys of n rows, from Arrow columns in the entity's order."""
        parts = [_parts(dtype, columns[at]) for at, dtype in zip(self._order, self._dtypes, strict=True)]
        prefix, suffix = self.prefix, self.suffix
        if len(parts) == 1:
            return [prefix + part + suffix for part in parts[0]]
        return [prefix + b"".join(each) + suffix for each in zip(*parts, strict=True)]

    def decode(self, key: bytes) -> tuple[Any, ...] | None:
        """The plain values, in the entity's order; None for a key of other join keys, types or project."""
        if not key.startswith(self.prefix):
            return None
        at, found = len(self.prefix), []
        for dtype in self._dtypes:
            if at + 8 > len(key):
                return None
            kind, length = _head.unpack_from(key, at)
            data = key[at + 8 : at + 8 + length]
            if kind != _TYPES[dtype] or len(data) != length:
                return None
            found.append(_value(dtype, data))
            at += 8 + length
        if key[at:] != self.suffix:
            return None
        return tuple(found[self._order.index(position)] for position in range(len(self.columns)))


def _plain(dtype: str, value: Any) -> bytes:
    if dtype == STRING:
        return bytes(value.encode())
    return _number.pack(value) if dtype == INT else bytes(value)


def _value(dtype: str, data: bytes) -> Any:
    if dtype == STRING:
        return data.decode()
    return _number.unpack(data)[0] if dtype == INT else data


def _part(dtype: str, data: bytes) -> bytes:
    return _head.pack(_TYPES[dtype], len(data)) + data


def _parts(dtype: str, column: pa.ChunkedArray) -> list[bytes]:
    if dtype == INT:
        head, pack = _head.pack(_TYPES[INT], 8), _number.pack
        return [head + pack(value) for value in plain_column(column, dtype)]
    kind, pack_head = _TYPES[dtype], _head.pack
    return [pack_head(kind, len(data)) + data for data in seen_as(column, "binary").to_pylist()]
