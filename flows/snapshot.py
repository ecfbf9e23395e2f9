"""State as bytes: a versioned header, MessagePack for what is small, buffers for arrays, and a checksum.

    8 bytes   b"HEADRACE"
    4 bytes   format version, little-endian
    8 bytes   length of the header as it is stored, little-endian
    8 bytes   length of the header as it is read; 0: it is not compressed
    header    MessagePack: {"meta": ..., "arrays": [[name, dtype, shape, form, length], ...]}
    buffers   the arrays in that order, C order, little-endian, one after the other, each in its form and length
    16 bytes  BLAKE2b of everything before

The form of an array is "" (as it is), "z" (Zstandard) or "sz" (byte 0 of all its values, then byte 1, and so on: bytes
of one weight are alike; then Zstandard). Times, counts and lanes shrink to a quarter so, at 1-4 GB/s; without the
shuffle to a third at 0.5 GB/s.

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
import pyarrow as pa

from headrace.features.errors import HeadraceError

MAGIC = b"HEADRACE"
VERSION = 2
_PREFIX = struct.Struct("<8sIQQ")
_DIGEST = 16
_DTYPES = {"<i8", "<f8", "|u1", "|b1"}


_SMALL = 256  # bytes below which compression is not tried
_Size = Annotated[int, msgspec.Meta(ge=0)]

T = TypeVar("T")


class _Header(msgspec.Struct):
    """What the header says; each array is name, dtype, shape, form, length."""

    meta: dict[str, Any]
    arrays: list[tuple[str, str, list[_Size], str, _Size]]


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
        form, buffer = _stored(np.ascontiguousarray(array, dtype=dtype).reshape(-1))
        table.append([name, dtype, list(array.shape), form, len(buffer)])
        buffers.append(buffer)
    header = msgspec.msgpack.encode({"meta": meta, "arrays": table})
    length = 0
    if len(header) > _SMALL:
        length, header = len(header), pa.compress(header, codec="zstd", asbytes=True)
    body = b"".join([_PREFIX.pack(MAGIC, VERSION, len(header), length), header, *buffers])
    return body + hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _stored(array: npt.NDArray[Any]) -> tuple[str, Any]:
    """Form and buffer of a flat array."""
    raw = array.view(np.uint8)
    if len(raw) < _SMALL:
        return "", raw.data
    form = "z"
    if array.itemsize > 1:
        form, raw = "sz", np.ascontiguousarray(raw.reshape(-1, array.itemsize).T).reshape(-1)
    packed = pa.compress(raw.data, codec="zstd", asbytes=True)
    return (form, packed) if len(packed) < len(raw) else ("", array.view(np.uint8).data)


def _array(name: str, buffer: memoryview, dtype: np.dtype[Any], count: int, form: str) -> npt.NDArray[Any]:
    """A flat array that may be written into, from its buffer in its form."""
    size = count * dtype.itemsize
    try:
        if form == "":
            raw = np.frombuffer(buffer, dtype=np.uint8)
            if len(raw) != size:
                raise ValueError(f"{len(raw)} bytes")
            return raw.copy().view(dtype)
        raw = np.frombuffer(pa.decompress(buffer, decompressed_size=size, codec="zstd"), dtype=np.uint8)
        if form == "sz":
            raw = np.ascontiguousarray(raw.reshape(dtype.itemsize, count).T).reshape(-1)
        elif form != "z":
            raise ValueError(f"form {form!r}")
        return raw.copy().view(dtype) if not raw.flags.writeable else raw.view(dtype)
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise SnapshotError(
            f"Snapshot is damaged: array '{name}' of {count} values cannot be read ({error}). Restore from an earlier "
            "checkpoint."
        ) from error


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
    _, version, stored, length = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise SnapshotError(
            f"Snapshot has format version {version}; this Headrace reads version {VERSION}. Use the Headrace that "
            "wrote it, or start the flow anew from its source."
        )
    if hashlib.blake2b(memoryview(data)[:-_DIGEST], digest_size=_DIGEST).digest() != data[-_DIGEST:]:
        raise SnapshotError(
            "Snapshot is damaged: its checksum does not match its content. Restore from an earlier checkpoint."
        )
    at = _PREFIX.size + stored
    try:
        raw: Any = data[_PREFIX.size : at]
        if length:
            raw = pa.decompress(raw, decompressed_size=length, codec="zstd", asbytes=True)
        header = msgspec.msgpack.decode(raw, type=_Header)
    except (msgspec.MsgspecError, pa.ArrowException, OSError, MemoryError, OverflowError) as error:
        raise SnapshotError(f"Snapshot is damaged: {error}. Restore from an earlier checkpoint.") from error
    arrays = {}
    for name, dtype, shape, form, size in header.arrays:
        if dtype not in _DTYPES:
            raise SnapshotError(f"Snapshot array '{name}' has type {dtype!r}, which no Headrace writes.")
        if at + size > len(data) - _DIGEST:
            raise SnapshotError(
                f"Snapshot is damaged: array '{name}' goes beyond its end. Restore from an earlier checkpoint."
            )
        flat = _array(name, memoryview(data)[at : at + size], np.dtype(dtype), math.prod(shape), form)
        arrays[name] = flat.reshape(shape)
        at += size
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
