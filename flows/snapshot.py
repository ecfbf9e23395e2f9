"""State as bytes: a versioned header, MessagePack for what is small, raw buffers for arrays, and a checksum.

    8 bytes   b"HEADRACE"
    4 bytes   format version, little-endian
    8 bytes   length of the header, little-endian
    header    MessagePack: {"meta": ..., "arrays": [[name, dtype, shape], ...]}
    buffers   the arrays in that order, C order, little-endian, one after the other
    16 bytes  BLAKE2b of everything before

Nothing in it is code, and reading it runs none (contract C16).
"""

import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.features.errors import HeadraceError

MAGIC = b"HEADRACE"
VERSION = 1
_PREFIX = struct.Struct("<8sIQ")
_DIGEST = 16
_DTYPES = {"<i8", "<f8", "|u1", "|b1"}


T = TypeVar("T")


class _Header(msgspec.Struct):
    """What the header says; each array is name, dtype, shape."""

    meta: dict[str, Any]
    arrays: list[tuple[str, str, list[Annotated[int, msgspec.Meta(ge=0)]]]]


class SnapshotError(HeadraceError, ValueError):
    """A snapshot cannot be used: damaged, of another format, or of another definition."""


def pack(meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A snapshot of `meta` (MessagePack types) and `arrays` (int64, float64, uint8 or bool)."""
    table = []
    buffers = []
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<").str
        if dtype not in _DTYPES:
            raise TypeError(
                f"Snapshot array '{name}' is {array.dtype}; a snapshot holds int64, float64, uint8 and bool."
            )
        table.append([name, dtype, list(array.shape)])
        buffers.append(np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8).data)
    header = msgspec.msgpack.encode({"meta": meta, "arrays": table})
    body = b"".join([_PREFIX.pack(MAGIC, VERSION, len(header)), header, *buffers])
    return body + hashlib.blake2b(body, digest_size=_DIGEST).digest()


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Meta and arrays of a snapshot; the arrays are copies that may be written into.

    Raises:
        SnapshotError: not a snapshot, another version, cut short, or changed since it was written.
    """
    if len(data) < _PREFIX.size + _DIGEST or not data.startswith(MAGIC):
        raise SnapshotError(
            f"Not a Headrace snapshot: {len(data)} bytes that do not begin with {MAGIC!r}. Was the file cut short, or "
            "is it another file? Restore from an earlier checkpoint."
        )
    _, version, length = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise SnapshotError(
            f"Snapshot has format version {version}; this Headrace reads version {VERSION}. Use the Headrace that "
            "wrote it, or start the flow anew from its source."
        )
    if hashlib.blake2b(memoryview(data)[:-_DIGEST], digest_size=_DIGEST).digest() != data[-_DIGEST:]:
        raise SnapshotError(
            "Snapshot is damaged: its checksum does not match its content. Restore from an earlier checkpoint."
        )
    try:
        header = msgspec.msgpack.decode(data[_PREFIX.size : _PREFIX.size + length], type=_Header)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"Snapshot is damaged: {error}. Restore from an earlier checkpoint.") from error
    arrays = {}
    at = _PREFIX.size + length
    for name, dtype, shape in header.arrays:
        if dtype not in _DTYPES:
            raise SnapshotError(f"Snapshot array '{name}' has type {dtype!r}, which no Headrace writes.")
        count = math.prod(shape)
        end = at + count * np.dtype(dtype).itemsize
        if end > len(data) - _DIGEST:
            raise SnapshotError(
                f"Snapshot is damaged: array '{name}' of {count} values goes beyond its end. Restore from an earlier "
                "checkpoint."
            )
        arrays[name] = np.frombuffer(data, dtype=dtype, count=count, offset=at).reshape(shape).copy()
        at = end
    return header.meta, arrays


def seal_of(data: bytes) -> bytes:
    """The checksum at the end of a snapshot, which tells it from any other."""
    return data[-_DIGEST:]


def read_meta(meta: Mapping[str, Any], form: type[T], what: str) -> T:
    """The meta of a snapshot as a `form`, a msgspec Struct.

    Raises:
        SnapshotError: it is the snapshot of something else than `what`.
    """
    try:
        return msgspec.convert(meta, form)
    except msgspec.ValidationError as error:
        raise SnapshotError(f"Snapshot is not of {what}: {error}. Restore from an earlier checkpoint.") from error
