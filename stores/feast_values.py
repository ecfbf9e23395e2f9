"""Values as Feast's protobuf message `feast.types.Value`, written and read without Feast or protobuf.

    dtype          field of the message                 wire
    bytes          1  bytes_val                         0x0a length bytes
    string         2  string_val                        0x12 length utf-8
    int64          4  int64_val                         0x20 varint
    float64        5  double_val                        0x29 8 bytes
    bool           7  bool_val                          0x38 0 or 1
    timestamp      8  unix_timestamp_val, seconds       0x40 varint
    list<...>      11-18 *_list_val                     a message with the elements in field 1
    map<string,..> 20 map_val                           a message of entries: 1 key, 2 Value
    map<...>       47 scalar_map_val                    a message of entries: 1 MapKey, 2 Value
    null           none                                 nothing

What Feast's types cannot hold is written as Feast itself writes it: an instant in whole seconds, a null in a list as
zero or as empty. Columns of n rows are encoded by NumPy where the wire has a form for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BOOL, BYTES, FLOAT, INT, STRING, TIMESTAMP, split_list, split_map
from headrace.stores.errors import CorruptError
from headrace.stores.rows import plain_column

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Array = npt.NDArray[Any]

_double, _float, _tagged_double = struct.Struct("<d"), struct.Struct("<f"), struct.Struct("<Bd")
_FIELD = {BYTES: 1, STRING: 2, INT: 4, FLOAT: 5, BOOL: 7, TIMESTAMP: 8}
_LIST = {BYTES: 11, STRING: 12, INT: 14, FLOAT: 15, BOOL: 17, TIMESTAMP: 18}
_KEY = {INT: 2, FLOAT: 4, BOOL: 5, TIMESTAMP: 6, BYTES: 7}
_MAP, _SCALAR_MAP = 20, 47
_SECOND = 1_000_000
_NO_TIME = -(2**63)
"""Feast's mark of a null in a list of timestamps."""
FEW = 64
"""Of so many values NumPy's calls cost more than what they save."""
_ZERO: dict[str, Any] = {BYTES: b"", STRING: "", INT: 0, FLOAT: 0.0, BOOL: False, TIMESTAMP: _NO_TIME * _SECOND}


# Wire


_LAST = [bytes([low]) if not high else bytes([low | 0x80, high]) for high in range(128) for low in range(128)]
"""14 bits as the end of a varint."""
_MORE = [bytes([low | 0x80, high | 0x80]) for high in range(128) for low in range(128)]
"""14 bits of a varint that goes on."""


def varint(number: int) -> bytes:
    """A protobuf varint; negative numbers take ten bytes.

    >>> varint(300), len(varint(-1))
    (b'\\xac\\x02', 10)
    """
    number &= 0xFFFFFFFFFFFFFFFF
    if number < 0x4000:
        return _LAST[number]
    out = b""
    while number > 0x3FFF:
        out += _MORE[number & 0x3FFF]
        number >>= 14
    return out + _LAST[number]


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The signed 64 bit varint at `at`, and where it ends."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    number, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        if byte < 0x80:
            number |= byte << shift
            break
        number |= (byte & 0x7F) << shift
        shift += 7
    if number >> 63:
        number = (number & 0xFFFFFFFFFFFFFFFF) - (1 << 64)
    return number, at


def _tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def _message(field: int, data: bytes) -> bytes:
    return _tag(field, 2) + varint(len(data)) + data


def fields_of(data: bytes) -> list[tuple[int, int, Any]]:
    """Number, wire type and content of each field of a message: an int, or bytes of 4, 8 or any length."""
    found: list[tuple[int, int, Any]] = []
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        wire = tag & 7
        content: int | bytes
        if wire == 0:
            content, at = read_varint(data, at)
        elif wire == 2:
            length, at = read_varint(data, at)
            content, at = data[at : at + length], at + length
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
            content, at = data[at : at + length], at + length
        else:
            raise CorruptError(f"A value in Redis is no message of Feast's: wire type {wire} in {data[:40]!r}.")
        found.append((tag >> 3, wire, content))
    return found


# One value


def encode_value(value: Any, dtype: str) -> bytes:
    """A value as a message; instants as integer microseconds, maps as pairs or dict, null as None.

    >>> encode_value(300, "int64"), encode_value(0.0, "float64"), encode_value(None, "string")
    (b' \\xac\\x02', b')\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00', b'')
    """
    if value is None:
        return b""
    pair = split_map(dtype)
    if pair is not None:
        return _encode_map(value, *pair)
    element = split_list(dtype)
    return _scalar(_FIELD[dtype], value, dtype) if element is None else _encode_list(value, element)


def _scalar(field: int, value: Any, dtype: str) -> bytes:
    """A scalar as a field of a message, written also when it is zero."""
    if dtype == FLOAT:
        return _tag(field, 1) + _double.pack(value)
    if dtype in (STRING, BYTES):
        return _message(field, value.encode() if dtype == STRING else value)
    return _tag(field, 0) + varint(value // _SECOND if dtype == TIMESTAMP else int(value))


def _encode_list(values: Any, element: str) -> bytes:
    whole = [_ZERO[element] if value is None else value for value in values]
    if element in (STRING, BYTES):
        data = b"".join(_scalar(1, value, element) for value in whole)
    elif not whole:
        data = b""
    elif element == FLOAT:
        data = _message(1, struct.pack(f"<{len(whole)}d", *whole))
    else:
        numbers = [value // _SECOND for value in whole] if element == TIMESTAMP else whole
        data = _message(1, b"".join(map(varint, numbers)))
    return _message(_LIST[element], data)


def _encode_map(pairs: Any, key: str, value: str) -> bytes:
    entries = []
    for name, each in pairs.items() if isinstance(pairs, dict) else pairs:
        # In a map of texts an empty key is left out, as any default of proto3.
        shown = _message(1, name.encode()) if key == STRING else _message(1, _scalar(_KEY[key], name, key))
        entries.append(_message(1, shown + _message(2, encode_value(each, value))))
    return _message(_MAP if key == STRING else _SCALAR_MAP, b"".join(entries))


def decode_value(data: bytes, dtype: str) -> Any:
    """The value of a message, as `StoredRow` has it: instants in microseconds, maps as dicts, null as None.

    Numbers of Feast's narrower types become those of `dtype`.
    """
    if not data:
        return None
    tag = data[0]
    if tag == 0x29 and dtype == FLOAT:
        return _double.unpack_from(data, 1)[0]
    if tag == 0x20 and dtype == INT:
        return read_varint(data, 1)[0]
    if tag == 0x12 and dtype == STRING:
        return data[read_varint(data, 1)[1] :].decode()
    ((field, wire, content), *_) = fields_of(data)
    if field in (_MAP, _SCALAR_MAP, 34):
        return _decode_map(content, *(split_map(dtype) or ("", "")))
    element = split_list(dtype)
    if element is not None:
        return _decode_list(content, element)
    return None if field == 19 else _plain(content, wire, dtype)


def _plain(content: Any, wire: int, dtype: str) -> Any:
    if wire == 1:
        content = _double.unpack(content)[0]
    elif wire == 5:
        content = _float.unpack(content)[0]
    if dtype == STRING:
        return content.decode()
    if dtype == TIMESTAMP:
        return None if content == _NO_TIME else content * _SECOND
    if dtype == FLOAT:
        return float(content)
    return bool(content) if dtype == BOOL else content


def _decode_list(content: bytes, element: str) -> list[Any]:
    found: list[Any] = []
    for _, wire, data in fields_of(content):
        if element in (STRING, BYTES) or wire != 2:
            found.append(_plain(data, wire, element))
        elif element == FLOAT:
            found += struct.unpack(f"<{len(data) // 8}d", data)
        else:
            at = 0
            while at < len(data):
                number, at = read_varint(data, at)
                found.append(_plain(number, 0, element))
    return found


def _decode_map(content: bytes, key: str, value: str) -> dict[Any, Any]:
    found = {}
    for _, _, entry in fields_of(content):
        parts = {field: data for field, _, data in fields_of(entry)}
        name: Any = parts.get(1, b"")
        if key == STRING:
            name = name.decode()
        else:
            ((_, wire, inner),) = fields_of(name)
            name = _plain(inner, wire, key)
        found[name] = decode_value(parts.get(2, b""), value)
    return found


# Columns


def encode_values(column: pa.ChunkedArray, dtype: str) -> list[bytes]:
    """The messages of n values; `encode_value` on an Arrow column."""
    made = _COLUMNS.get(dtype)
    if made is None:
        return [encode_value(value, dtype) for value in plain_column(column, dtype)]
    out = made(column)
    if column.null_count:
        for at, valid in enumerate(column.is_valid().to_pylist()):
            if not valid:
                out[at] = b""
    return out


def encode_integers(numbers: npt.NDArray[np.int64], tag: int) -> list[bytes]:
    """One-byte tag and varint of each of n numbers."""
    import numpy as np

    n = len(numbers)
    if n < FEW:
        head = bytes([tag])
        return [head + varint(number) for number in numbers.tolist()]
    low, high = int(numbers.min()), int(numbers.max())
    widest, least = len(varint(high)), len(varint(low))
    if low < 0:
        widest = 10
    buffer = np.empty((n, 1 + widest), dtype=np.uint8)
    buffer[:, 0] = tag
    rest = numbers.view(np.uint64)
    shifted = [rest >> np.uint64(7 * k) for k in range(widest)]
    for k, part in enumerate(shifted):
        more = np.uint64(0x80) if k < widest - 1 else np.uint64(0)
        buffer[:, 1 + k] = (part & np.uint64(0x7F)) | more
    whole: list[bytes] = buffer.view(f"V{1 + widest}").ravel().tolist()
    if low >= 0 and least == widest:
        return whole
    # The continuation bit of a shorter number's last byte is off, and what follows is cut away.
    lengths = np.ones(n, dtype=np.int64)
    for part in shifted[1:]:
        lengths += part != 0
    buffer[np.arange(n), lengths] &= 0x7F
    whole = buffer.view(f"V{1 + widest}").ravel().tolist()
    return [data[:end] for data, end in zip(whole, (lengths + 1).tolist(), strict=True)]


def timestamps(instants: npt.NDArray[np.int64]) -> list[bytes]:
    """n instants in microseconds as google.protobuf.Timestamp: 1 seconds, 2 nanoseconds; zeros are left out."""
    import numpy as np

    if len(instants) < FEW:
        return [timestamp(us) for us in instants.tolist()]
    if (instants == instants[0]).all():
        return [timestamp(int(instants[0]))] * len(instants)
    seconds, rest = np.divmod(instants, _SECOND)
    heads, tails = encode_integers(seconds, 0x08), encode_integers(rest * 1000, 0x10)
    out = [head + tail for head, tail in zip(heads, tails, strict=True)]
    for at in np.flatnonzero((seconds == 0) | (rest == 0)).tolist():
        out[at] = timestamp(int(instants[at]))
    return out


def timestamp(us: int) -> bytes:
    """
    >>> timestamp(1_500_000), timestamp(0)
    (b'\\x08\\x01\\x10\\x80\\xca\\xb5\\xee\\x01', b'')
    """
    seconds, rest = divmod(us, _SECOND)
    return (b"\x08" + varint(seconds) if seconds else b"") + (b"\x10" + varint(rest * 1000) if rest else b"")


def read_timestamp(data: bytes) -> int:
    """Microseconds of a google.protobuf.Timestamp."""
    us, at = 0, 0
    if data[:1] == b"\x08":
        seconds, at = read_varint(data, 1)
        us = seconds * _SECOND
    if data[at : at + 1] == b"\x10":
        us += read_varint(data, at + 1)[0] // 1000
    return us


def _floats(column: pa.ChunkedArray) -> list[bytes]:
    import numpy as np

    if len(column) < FEW:
        pack = _tagged_double.pack
        return [b"" if number is None else pack(0x29, number) for number in column.to_pylist()]
    numbers = np.ascontiguousarray(_whole(column, 0.0).to_numpy(), dtype="<f8")
    buffer = np.empty((len(numbers), 9), dtype=np.uint8)
    buffer[:, 0] = 0x29
    buffer[:, 1:] = numbers.view(np.uint8).reshape(len(numbers), 8)
    out: list[bytes] = buffer.view("V9").ravel().tolist()
    return out


def _integers(column: pa.ChunkedArray) -> list[bytes]:
    return encode_integers(_whole(column, 0).to_numpy(), 0x20)


def _instants(column: pa.ChunkedArray) -> list[bytes]:
    return encode_integers(instants(column) // _SECOND, 0x40)


def instants(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A column of timestamps as (n,) int64 microseconds; null as 0."""
    out: npt.NDArray[np.int64] = _whole(seen_as(column, "int64"), 0).to_numpy()
    return out


def seen_as(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """A column as another type with the same bytes."""
    import pyarrow as pa

    return pa.chunked_array([chunk.view(kind) for chunk in column.chunks], kind)


def _whole(column: pa.ChunkedArray, zero: Any) -> pa.ChunkedArray:
    return column.fill_null(zero) if column.null_count else column


def _booleans(column: pa.ChunkedArray) -> list[bytes]:
    return [b"8\x01" if value else b"8\x00" for value in column.to_pylist()]


def _texts(tag: bytes) -> Callable[[pa.ChunkedArray], list[bytes]]:
    def encode(column: pa.ChunkedArray) -> list[bytes]:
        heads = [tag + bytes([length]) for length in range(128)]
        return [
            b"" if data is None else (heads[len(data)] if len(data) < 128 else tag + varint(len(data))) + data
            for data in seen_as(column, "binary").to_pylist()
        ]

    return encode


_COLUMNS: dict[str, Callable[[pa.ChunkedArray], list[bytes]]] = {
    FLOAT: _floats,
    INT: _integers,
    TIMESTAMP: _instants,
    BOOL: _booleans,
    STRING: _texts(b"\x12"),
    BYTES: _texts(b"\x0a"),
}
