"""Entity keys: checked against the types of a view's key columns, and encoded as canonical bytes.

The bytes are a MessagePack array of the key values in the entity's order, so the integer 1, the text "1" and True are
three different keys, `("ab", "c")` is not `("a", "bc")`, and equal keys always have equal bytes.
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.features.dtypes import BYTES, INT, STRING
from headrace.features.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

KeyColumns = tuple[tuple[str, str], ...]
"""Name and type of each key column, in the entity's order."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list).decode


def encode_key(values: tuple[Any, ...]) -> bytes:
    """Canonical bytes of plain key values, in the entity's order.

    >>> encode_key((1,)) == encode_key(("1",)), encode_key((1,)) == encode_key((True,))
    (False, False)
    """
    return _encode(values)


MIX = 0x9E3779B1
"""By what the number of a key's first columns is multiplied before that of the next is added."""


KEY_NUMBERS = 2**32
"""How many there are; entities are spread over them evenly."""


def key_number(values: tuple[Any, ...]) -> int:
    """32 bits of a key, the same on every machine and in every version: by it entities are sampled and spread.

    CRC-32 of each value's canonical bytes, combined column by column.

    >>> key_number(("driver-7", 3)) == key_number(("driver-7", 3)), key_number((7,)) == key_number(("7",))
    (True, False)
    """
    number = 0
    for value in values:
        number = (number * MIX + zlib.crc32(encode_key((value,)))) & 0xFFFFFFFF
    return number


def key_numbers(columns: Sequence[pa.Array]) -> npt.NDArray[np.uint64]:
    """(n,) `key_number` of each row, from its key columns in the entity's order; of a row with a null any number.

    Instants are numbered as their integers.
    """
    import numpy as np
    import pyarrow as pa

    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for array in columns:
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        words = coded.dictionary
        if pa.types.is_timestamp(words.type):
            words = words.cast(pa.int64())
        hashes = np.fromiter(
            (zlib.crc32(encode_key((word,))) for word in words.to_pylist()), dtype=np.uint64, count=len(words)
        )
        if len(hashes):
            codes = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
            mixed = (mixed * np.uint64(MIX) + hashes[codes]) & np.uint64(KEY_NUMBERS - 1)
    return mixed


def decode_key(data: bytes) -> tuple[Any, ...]:
    """The plain key values that `encode_key` was given.

    >>> decode_key(encode_key(("driver-7", 3)))
    ('driver-7', 3)
    """
    return tuple(_decode(data))


def key_values(view: str, columns: KeyColumns, key: Mapping[str, Any]) -> tuple[Any, ...]:
    """Plain values of `key` in the entity's order; NumPy integers and text become Python's.

    Raises:
        DataError: a key column is missing, unknown or of another type; null.

    >>> key_values("trips", (("driver_id", "int64"),), {"driver_id": 7})
    (7,)
    >>> key_values("trips", (("driver_id", "int64"),), {"driver_id": "7"})
    Traceback (most recent call last):
    ...
    headrace.features.errors.DataError: View 'trips': key 'driver_id' is '7' (str), expected int64. Give driver_id=7.
    """
    if len(key) != len(columns) or any(name not in key for name, _ in columns):
        expected = ", ".join(f"{name} ({dtype})" for name, dtype in columns)
        raise DataError(f"View '{view}': got the key columns {sorted(key)}, expected exactly {expected}.")
    return tuple(plain_key(view, name, dtype, key[name]) for name, dtype in columns)


def plain_key(view: str, name: str, dtype: str, value: Any) -> Any:
    """One key value as a plain Python value of type `dtype`. Raises DataError for any other type."""
    if dtype == STRING:
        if isinstance(value, str):
            return str(value)
    elif dtype == INT:
        if not isinstance(value, bool) and hasattr(value, "__index__"):
            number = operator.index(value)
            if -(2**63) <= number < 2**63:
                return number
            raise DataError(f"View '{view}': key '{name}' is {number}, which does not fit 64 bits.")
    elif dtype == BYTES and isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise DataError(
        f"View '{view}': key '{name}' is {value!r} ({type(value).__name__}), expected {dtype}."
        f"{_hint(name, dtype, value)}"
    )


def _hint(name: str, dtype: str, value: Any) -> str:
    if dtype == STRING and not isinstance(value, (float, bytes)):
        return f" Give {name}={str(value)!r}."
    if dtype == INT and isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return f" Give {name}={int(value)}."
    if dtype == INT and isinstance(value, float) and value.is_integer():
        return f" Give {name}={int(value)}."
    return ""
