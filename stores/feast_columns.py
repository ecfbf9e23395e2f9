"""Arrow columns as Feast's entity keys and values, byte for byte as Feast 0.67's local engine writes them.

    table = FeastTable("rides", "driver_stats", keys=(("driver", 4),), features=(("fare", 5), ("tags", 12)))
    encode_keys(table, [batch.column("driver")])        ->  keys of Redis' hashes
    encode_values_column(batch.column("fare"), 5)       ->  messages feast.types.Value; null is the empty message

Types are Feast's ValueType numbers. What Feast makes of a column depends on NumPy, through which it goes:

    NaN of a float or double                    null
    null in a list of floats or doubles         NaN; of integers, of which Feast takes none with nulls: 0
    null in a list of texts, bytes, booleans    empty, false
    null instant, alone or in a list            -2^63, the mark of NaT
    fraction of an instant                      cut away: downwards, in a list towards 1970

Integers beyond 2^53 stay exact beside nulls, where Feast takes them through doubles; lists of instants in nanoseconds
are seconds, where Feast writes their nanoseconds as if they were.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.stores.byte_columns import (
    Bytes,
    Fixed,
    Headed,
    Integers,
    Part,
    array_of,
    binary,
    cut,
    ends,
    joined,
    lengths_of,
    no_head,
    varints,
)
from headrace.stores.errors import StoreError
from headrace.stores.feast_values import varint

if TYPE_CHECKING:
    import pyarrow as pa

NO_TIME = -(2**63)
"""Feast's mark of an instant that is null."""

_BYTES, _STRING, _INT32, _INT64, _DOUBLE, _FLOAT, _BOOL, _TIME, _DECIMAL = 1, 2, 3, 4, 5, 6, 7, 8, 44

# Value type -> what it is made of. The field of the message has the value type's number, but for two kinds of bytes.
_SCALAR = {**{kind: kind for kind in (1, 2, 3, 4, 5, 6, 7, 8, 36, 37, 44)}, 30: _BYTES, 31: _BYTES}
_LIST = {11: 1, 12: 2, 13: 3, 14: 4, 15: 5, 16: 6, 17: 7, 18: 8, 38: 36, 39: 37, 45: 44}
NATIVE = frozenset(_SCALAR) | frozenset(_LIST)
"""Value types that `encode_values_column` knows."""
_KEYS = (_BYTES, _STRING, _INT32, _INT64, _TIME)

_NUMBERS = (_INT32, _INT64, _DOUBLE, _FLOAT, _BOOL, _TIME)
_PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True)
class FeastTable:
    """Where a view's rows go.

    Attributes:
        project: Feast's. view: its name in Redis, `name_v2` where versions are told apart. keys: join key and its
        ValueType number. features: name and ValueType number; None: the column holds messages that are ready (binary).
    """

    project: str
    view: str
    keys: tuple[tuple[str, int], ...]
    features: tuple[tuple[str, int | None], ...]


def encodes(kind: pa.DataType, value_type: int) -> bool:
    """Whether `encode_values_column` makes values of this type from columns of that Arrow type.

    What it does not is for Feast's own functions: texts made of numbers, sets, maps, JSON.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return encodes(kind.value_type, value_type)
    if pa.types.is_null(kind):
        return value_type in NATIVE
    if value_type in _LIST:
        return _is_list(kind) and (pa.types.is_null(kind.value_type) or _made_of(kind.value_type, _LIST[value_type]))
    return value_type in _SCALAR and _made_of(kind, _SCALAR[value_type])


def encode_values_column(column: pa.ChunkedArray | pa.Array, value_type: int) -> pa.BinaryArray:
    """The messages of n values as a binary array without nulls.

    Raises:
        StoreError: a column that `encodes` does not name, or an integer that the type does not hold.
    """
    return array_of(value_bytes(column, value_type))


def encode_keys(table: FeastTable, columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.BinaryArray:
    """The keys of n rows in Redis as a binary array, from columns in the order of `table.keys`.

    Raises:
        StoreError: a key is null, or of a type that Feast takes no keys of.
    """
    found = key_bytes(table, columns)
    return array_of(found)


def key_bytes(table: FeastTable, columns: Sequence[pa.ChunkedArray | pa.Array]) -> Fixed | Headed:
    """`encode_keys` as a column of bytes."""
    order = sorted(range(len(table.keys)), key=lambda at: table.keys[at][0])
    names = [table.keys[at][0].encode() for at in order]
    prefix = struct.pack("<I", len(names)) + b"".join(struct.pack("<II", 2, len(name)) + name for name in names)
    parts: list[Part] = [prefix]
    for at in order:
        parts += _key_part(*table.keys[at], _simple(columns[at]))
    n = len(columns[0]) if columns else 0
    whole = joined([*parts, table.project.encode()], n)
    lengths = lengths_of(whole)
    if len(lengths) and (lengths == lengths[0]).all():
        flat = np.frombuffer(whole.buffers()[2], dtype=np.uint8, count=int(lengths[0]) * n)
        return Fixed(flat.reshape(n, int(lengths[0])))
    return Headed(whole, lengths, no_head)


def value_bytes(column: pa.ChunkedArray | pa.Array, value_type: int, *, nan_is_null: bool = True) -> Fixed | Headed:
    """`encode_values_column` as a column of bytes.

    Args:
        nan_is_null: as Feast has it; Headrace's own rows say NaN.
    """
    if not encodes(column.type, value_type):
        raise StoreError(
            f"A column of type {column.type} has no values of Feast's type number {value_type} that are encoded here. "
            "Hand in messages that Feast's own functions made (type None)."
        )
    column = _simple(column)
    n = len(column)
    if column.null_count == n:
        mark = b"" if value_type != _TIME else b"\x40" + varint(NO_TIME)
        return Fixed(np.tile(np.frombuffer(mark, dtype=np.uint8), (n, 1)))
    if value_type in _LIST:
        return _lists(column, value_type)
    field = _SCALAR[value_type]
    if field in (_DOUBLE, _FLOAT):
        return _floats(column, field, nan_is_null)
    if field in (_INT32, _INT64, _BOOL, _TIME):
        return _numbers(column, field)
    body = _binary(column)
    tag = varint(field << 3 | 2)
    return Headed(body, _lengths(column), _cached(lambda length: b"" if length < 0 else tag + varint(length)))


def micros(column: pa.ChunkedArray | pa.Array) -> Integers:
    """A column of instants in microseconds; finer fractions are cut away downwards.

    Raises:
        StoreError: it holds nulls or is no column of instants.
    """
    import pyarrow as pa

    column = _simple(column)
    kind = column.type
    if column.null_count:
        raise StoreError(f"{column.null_count} of {len(column)} rows have no event timestamp. Leave them out.")
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise StoreError(f"It is of type {kind}, expected the event timestamps: timestamp or date.")
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s") if pa.types.is_date32(kind) else pa.timestamp("ms"))
    found: Integers = column.view(pa.int64()).to_numpy()
    per_second = _PER_SECOND[column.type.unit]
    return found * (1_000_000 // per_second) if per_second <= 1_000_000 else found // 1000


# Arrow


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    names = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def _made_of(kind: pa.DataType, field: int) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _made_of(kind.value_type, field)
    names = {
        _BYTES: ("binary", "large_binary", "fixed_size_binary", "binary_view"),
        _INT32: ("integer",),
        _INT64: ("integer",),
        _DOUBLE: ("integer", "floating"),
        _FLOAT: ("integer", "floating"),
        _BOOL: ("boolean",),
        _TIME: ("timestamp", "date", "integer"),
        _DECIMAL: ("string", "large_string", "string_view", "decimal"),
    }.get(field, ("string", "large_string", "string_view"))
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def _simple(column: Any) -> Any:
    """A column as one array without dictionaries, views and 64 bit offsets."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if isinstance(column, pa.ChunkedArray):  # more bytes than one array of its type holds
            raise StoreError("A column holds more than 2 GB in one portion. Write it in smaller batches.")
    kind, is_ = column.type, pa.types
    if is_.is_dictionary(kind):
        return _simple(column.dictionary_decode())
    if is_.is_large_string(kind) or is_.is_string_view(kind):
        return column.cast(pa.string())
    if is_.is_large_binary(kind) or is_.is_binary_view(kind) or is_.is_fixed_size_binary(kind):
        return column.cast(pa.binary())
    if _is_list(kind) and not is_.is_list(kind):
        return column.cast(pa.list_(kind.value_field))
    return column


def _binary(column: Any) -> pa.BinaryArray:
    """Texts and bytes as bytes, null as empty."""
    import pyarrow as pa

    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type):
        column = column.view(pa.binary())
    return column.fill_null(b"") if column.null_count else column


def _lengths(column: Any) -> Integers:
    import pyarrow as pa

    return lengths_of(column.cast(pa.string()) if pa.types.is_decimal(column.type) else column)


def _valid(column: Any) -> Any:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _integers(column: Any, field: int) -> Integers:
    """Integers of 64 bits, null as 0, instants in seconds with null as their mark.

    Raises:
        StoreError: a number that the type does not hold.
    """
    import pyarrow as pa

    kind = column.type
    missing = None
    if column.null_count:
        missing = ~_valid(column) if field == _TIME else None
    if pa.types.is_timestamp(kind):
        found = _filled(column.view(pa.int64())) // _PER_SECOND[kind.unit]
    elif pa.types.is_date32(kind):
        found = _filled(column.view(pa.int32())).astype(np.int64) * 86_400
    elif pa.types.is_date64(kind):
        found = _filled(column.view(pa.int64())) // 1000
    elif pa.types.is_boolean(kind):
        found = _filled(column.cast(pa.uint8()))
    else:
        try:
            found = _filled(column.cast(pa.int32() if field == _INT32 else pa.int64()))
        except pa.ArrowInvalid as error:
            bits = 32 if field == _INT32 else 64
            raise StoreError(
                f"A number does not fit into {bits} bits: {error}. Give the feature a wider type."
            ) from None
    out: Integers = found.astype(np.int64, copy=False)
    if missing is not None:
        out = np.where(missing, NO_TIME, out)
    return out


def _filled(column: Any) -> Any:
    return (column.fill_null(0) if column.null_count else column).to_numpy(zero_copy_only=False)


def _reals(column: Any, field: int) -> Any:
    """Doubles or floats, null as NaN."""
    import pyarrow as pa

    doubles = column if pa.types.is_float32(column.type) and field == _FLOAT else column.cast(pa.float64(), safe=False)
    found = (doubles.fill_null(float("nan")) if doubles.null_count else doubles).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # beyond a float's range is infinite, as protobuf has it
        return np.ascontiguousarray(found, dtype="<f8" if field == _DOUBLE else "<f4")


# Messages


def _floats(column: Any, field: int, nan_is_null: bool) -> Fixed | Headed:
    found = _reals(column, field)
    size = found.dtype.itemsize
    matrix = np.empty((len(found), 1 + size), dtype=np.uint8)
    matrix[:, 0] = field << 3 | (1 if field == _DOUBLE else 5)
    matrix[:, 1:] = found.view(np.uint8).reshape(len(found), size)
    none = np.isnan(found) if nan_is_null else ~_valid(column)
    if not none.any():
        return Fixed(matrix)
    lengths = np.where(none, 0, 1 + size)
    return Headed(binary(matrix[~none].reshape(-1), ends(lengths)), lengths, no_head)


def _numbers(column: Any, field: int) -> Fixed | Headed:
    matrix, lengths = varints(_integers(column, field))
    tagged = np.empty((len(matrix), 1 + matrix.shape[1]), dtype=np.uint8)
    tagged[:, 0] = field << 3
    tagged[:, 1:] = matrix
    lengths += 1
    if column.null_count and field != _TIME:
        lengths[~_valid(column)] = 0
    return cut(tagged, lengths)


def _lists(column: Any, value_type: int) -> Headed:
    import pyarrow as pa
    import pyarrow.compute as pc

    field = _LIST[value_type]
    counts = _filled(pc.list_value_length(column)).astype(np.int64)
    values = _simple(column.flatten())
    if pa.types.is_null(values.type):
        values = values.cast(pa.int64() if field in _NUMBERS else pa.binary())
    packed = field in _NUMBERS
    if field in (_DOUBLE, _FLOAT):
        reals = _reals(values, field)
        data, inner = reals.view(np.uint8), np.arange(len(reals) + 1) * reals.dtype.itemsize
    elif packed:
        data, inner = _flat(cut(*varints(_towards_1970(values) if field == _TIME else _integers(values, field))))
    else:
        texts = _binary(values)
        head = _cached(lambda length: b"\n" + varint(length))
        data, inner = _flat(Headed(texts, lengths_of(texts), head))
    offsets = inner[ends(counts)]
    lengths = np.diff(offsets)
    tag = varint(value_type << 3 | 2)

    def message(length: int) -> bytes:
        if length < 0:
            return b""
        start = b"\n" + varint(length) if packed and length else b""
        return tag + varint(len(start) + length) + start

    if column.null_count:
        lengths = np.where(_valid(column), lengths, -1)
    return Headed(binary(data, offsets), lengths, _cached(message))


def _towards_1970(values: Any) -> Integers:
    """Instants of a list in seconds: Feast takes them through datetimes, which cut fractions away towards zero."""
    import pyarrow as pa

    seconds = _integers(values, _TIME)
    if not pa.types.is_timestamp(values.type) or values.type.unit == "s":
        return seconds
    some = _filled(values.view(pa.int64())) % _PER_SECOND[values.type.unit] != 0
    return np.where(some & (seconds < 0) & (seconds != NO_TIME), seconds + 1, seconds)


def _flat(column: Fixed | Headed) -> tuple[Bytes, Integers]:
    """The bytes of n strings one after another, and where each begins and the last ends."""
    found = array_of(column)
    _, offsets, data = found.buffers()
    where = np.frombuffer(offsets, dtype=np.int32, count=found.offset + len(found) + 1)[found.offset :].astype(np.int64)
    return np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8), where


def _cached(head: Callable[[int], bytes]) -> Callable[[int], bytes]:
    found: dict[int, bytes] = {}

    def known(length: int) -> bytes:
        made = found.get(length)
        if made is None:
            made = found[length] = head(length)
        return made

    return known


# Keys


def _key_part(name: str, value_type: int, column: Any) -> tuple[Part, ...]:
    """Type, length and bytes of one join key's values.

    Raises:
        StoreError: a null, a type that Feast takes no keys of, a column of another type.
    """
    if value_type not in _KEYS:
        raise StoreError(
            f"Join key '{name}' is of Feast's value type number {value_type}. Feast has keys of strings, bytes, "
            "integers and timestamps only."
        )
    if column.null_count:
        raise StoreError(
            f"Join key '{name}' is null in {column.null_count} of {len(column)} rows: no entity is called so. Leave "
            "them out."
        )
    if not _made_of(column.type, value_type):
        raise StoreError(
            f"Join key '{name}' is a column of type {column.type}, which has no values of Feast's type number "
            f"{value_type}. Cast it."
        )
    if value_type in (_BYTES, _STRING):
        body = _binary(column)
        kind = struct.pack("<I", value_type)
        return (Headed(body, lengths_of(body), lambda length: kind + struct.pack("<I", length)),)
    numbers = _integers(column, value_type)
    size = 4 if value_type == _INT32 else 8
    whole = np.ascontiguousarray(numbers, dtype=f"<i{size}")
    return struct.pack("<II", value_type, size), Fixed(whole.view(np.uint8).reshape(len(whole), size))
