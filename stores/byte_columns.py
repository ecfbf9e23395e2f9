"""Columns of bytes, made and put together by NumPy and Arrow: n byte strings without a Python object for each.

    Fixed     n strings of one width, a matrix of bytes
    Headed    n strings of any length, each after a head that depends on its length alone

`joined` puts constants and columns side by side, row by row. Neighbours of one width become one matrix on the way, so a
row of numbers is a template with holes that are filled column by column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

_FEW = 1 << 14
"""Up to so long strings are counted by length instead of sorted."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """n byte strings of one width: `data` is (n, width)."""

    data: Bytes


@dataclass(frozen=True, slots=True)
class Headed:
    """n byte strings, each `head(length)` and then a body of that length.

    Attributes:
        body: (n,) binary array without nulls. lengths: (n,) of the bodies; -1 where there is nothing at all, of which
        `head` is told as well. head: from length to what stands before the body.
    """

    body: pa.BinaryArray
    lengths: Integers
    head: Callable[[int], bytes]


Part: TypeAlias = bytes | Fixed | Headed


def no_head(_: int) -> bytes:
    """The head of strings that have none."""
    return b""


def binary(data: Bytes, offsets: npt.NDArray[Any]) -> pa.BinaryArray:
    """Strings that lie one after another: `data` flat, `offsets` (n + 1,)."""
    import pyarrow as pa

    ends = pa.py_buffer(offsets.astype(np.int32))
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, [None, ends, pa.py_buffer(data)])


def ends(lengths: Integers) -> Integers:
    """Offsets of strings of these lengths, (n + 1,)."""
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def plain(body: pa.BinaryArray) -> Headed:
    """A binary array without nulls as a column."""
    return Headed(body, lengths_of(body), no_head)


def lengths_of(body: pa.BinaryArray) -> Integers:
    """The lengths of n strings; -1 for null."""
    import pyarrow.compute as pc

    lengths = pc.binary_length(body)
    if lengths.null_count:
        lengths = lengths.fill_null(-1)
    out: Integers = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    return out


def cut(matrix: Bytes, lengths: Integers) -> Fixed | Headed:
    """The first `lengths[i]` bytes of each row of a matrix."""
    n, width = matrix.shape
    shortest, longest = (int(lengths.min()), int(lengths.max())) if n else (width, width)
    if shortest == longest:
        return Fixed(matrix[:, :longest])
    kept = matrix[np.arange(width) < lengths[:, None]]
    return Headed(binary(kept, ends(lengths)), lengths, no_head)


def varints(numbers: npt.NDArray[Any]) -> tuple[Bytes, Integers]:
    """n integers of 64 bits as protobuf varints: a matrix, and how many bytes of each row count."""
    rest = numbers.astype(np.int64, copy=False).view(np.uint64)
    most = int(rest.max()) if len(rest) else 0
    width = max(1, -(-most.bit_length() // 7))
    matrix = np.empty((len(rest), width), dtype=np.uint8)
    lengths = np.ones(len(rest), dtype=np.int64)
    for k in range(width):
        part = rest >> np.uint64(7 * k) if k else rest
        if k:
            lengths += part != 0
        matrix[:, k] = (part & np.uint64(0x7F)) | np.uint64(0x80)
    matrix[np.arange(len(rest)), lengths - 1] &= 0x7F
    return matrix, lengths


def texts(numbers: Integers) -> Headed:
    """n integers in decimal digits."""
    import pyarrow as pa

    return plain(pa.array(numbers).cast(pa.string()).cast(pa.binary()))


def joined(parts: Sequence[Part], n: int) -> pa.BinaryArray:
    """n rows, each made of its pieces in order; a piece of bytes is the same in every row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not n:
        return pa.array([], pa.binary())
    arrays: list[pa.BinaryArray] = []
    block: list[bytes | Fixed] = []
    for part in parts:
        whole = _same_length(part) if isinstance(part, Headed) else (part,)
        if whole is not None:
            block += whole
            continue
        assert isinstance(part, Headed)
        before = b""
        if any(isinstance(each, Fixed) for each in block):
            arrays.append(_block(block, n))
        else:
            before = b"".join(each for each in block if isinstance(each, bytes))
        block = []
        arrays += _with_heads(before, part)
    if block or not arrays:
        arrays.append(_block(block, n))
    return arrays[0] if len(arrays) == 1 else pc.binary_join_element_wise(*arrays, b"")


def array_of(column: Fixed | Headed) -> pa.BinaryArray:
    """A column as a binary array."""
    if isinstance(column, Headed) and column.head is no_head:
        return column.body
    return joined([column], len(column.data if isinstance(column, Fixed) else column.lengths))


def _same_length(part: Headed) -> tuple[bytes | Fixed, ...] | None:
    """What a column is when all its strings are of one length."""
    lengths = part.lengths
    if not len(lengths) or int(lengths[0]) != int(lengths[-1]) or not (lengths == lengths[0]).all():
        return None
    length = int(lengths[0])
    if length <= 0:
        return (part.head(length),)
    data, body = part.body.buffers()[2], part.body
    first = int(np.frombuffer(body.buffers()[1], dtype=np.int32, count=body.offset + 1)[-1])
    flat = np.frombuffer(data, dtype=np.uint8, count=length * len(body), offset=first)
    return part.head(length), Fixed(flat.reshape(len(body), length))


def _block(block: Sequence[bytes | Fixed], n: int) -> pa.BinaryArray:
    """Constants and columns of one width as one matrix."""
    if len(block) == 1 and isinstance(block[0], Fixed):
        matrix = np.ascontiguousarray(block[0].data)
        width = matrix.shape[1]
    else:
        template = b"".join(each if isinstance(each, bytes) else bytes(each.data.shape[1]) for each in block)
        width, at = len(template), 0
        matrix = np.empty((n, width), dtype=np.uint8)
        matrix[:] = np.frombuffer(template, dtype=np.uint8)
        for each in block:
            size = len(each) if isinstance(each, bytes) else each.data.shape[1]
            if isinstance(each, Fixed):
                _fill(matrix, at, each.data)
            at += size
    return binary(matrix.reshape(-1), np.arange(0, n * width + 1, width) if width else np.zeros(n + 1))


def _fill(matrix: Bytes, at: int, data: Bytes) -> None:
    """Put a column into its place of each row; eight bytes at once where they are numbers."""
    n, size = data.shape
    if size == 8 and data.flags.c_contiguous and n:
        place = np.ndarray((n,), dtype="V8", buffer=matrix.data, offset=at, strides=(matrix.shape[1],))
        place[:] = data.view("V8").ravel()
    else:
        matrix[:, at : at + size] = data


def _with_heads(before: bytes, part: Headed) -> list[pa.BinaryArray]:
    """The heads of n strings, of different lengths, with a constant before each; and the strings."""
    import pyarrow as pa

    lengths = part.lengths
    if part.head is no_head and not before:
        return [part.body]
    if int(lengths.max()) < _FEW:
        found = np.flatnonzero(np.bincount(lengths + 1))
        place = np.zeros(int(found[-1]) + 1, dtype=np.int64)
        place[found] = np.arange(len(found))
        which = place[lengths + 1]
        found = found - 1
    else:
        found, which = np.unique(lengths, return_inverse=True)
    table = pa.array([before + part.head(length) for length in found.tolist()], pa.binary())
    return [table.take(pa.array(which)), part.body]
