"""Rows of a view as the commands that put them into Feast's hashes, ready to be sent, in one piece of memory.

A portion of rows is a slice of it: nothing is made again for a smaller one.

    rows    *24 $4 HSET $41 <key> $8 _ts:view $12 <time> $4 <field> $9 <value> ...
    keys    $41 <key>
    ends    *3 $9 PEXPIREAT $41 <key> $13 <instant>         where rows have an end
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.stores.byte_columns import (
    Fixed,
    Headed,
    Integers,
    Part,
    cut,
    joined,
    plain,
    texts,
    varints,
)
from headrace.stores.feast_values import read_timestamp

if TYPE_CHECKING:
    import pyarrow as pa

_SECOND = 1_000_000
_POWERS = 128 ** np.arange(5, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Pieces:
    """n byte strings one after another: `data`, and where each begins and the last ends, (n + 1,)."""

    data: memoryview
    offsets: Sequence[int]

    def of(self, start: int, stop: int) -> memoryview:
        """Strings `start` to `stop`, without the last."""
        return self.data[self.offsets[start] : self.offsets[stop]]


@dataclass(frozen=True, slots=True)
class Commands:
    """n rows on their way.

    Attributes:
        rows: their HSETs. keys: as arguments. times_us: event timestamps, microseconds. ends: what is said of the keys'
        ends afterwards, None for nothing. ends_ms: the instants of it, None where they are not given for each.
    """

    rows: Pieces
    keys: Pieces
    times_us: Integers
    ends: Pieces | None
    ends_ms: Sequence[int] | None

    def __len__(self) -> int:
        return len(self.rows.offsets) - 1


def commands(
    keys: Fixed | Headed,
    times_us: Integers,
    fields: Sequence[tuple[bytes, Fixed | Headed]],
    time_field: bytes,
    *,
    ends_ms: Integers | None = None,
    said: tuple[bytes, ...] = (),
) -> Commands:
    """The commands of n rows.

    Args:
        keys: of the hashes. times_us: event timestamps. fields: name in the hash, and messages. time_field: the field
            of the event timestamp. ends_ms: when each key ends. said: instead, a command and what it says after the
            key, the same for all: (b"EXPIRE", b"3600") or (b"PERSIST",).
    """
    n = len(times_us)
    key_arguments = joined(_argument(keys), n)
    key = keys if isinstance(keys, Fixed) else None
    key_parts: list[Part] = _argument(key) if key is not None else [plain(key_arguments)]
    times = timestamps(times_us)
    parts: list[Part] = [b"*%d\r\n$4\r\nHSET\r\n" % (4 + 2 * len(fields)), *key_parts]
    for name, column in ((time_field, times), *fields):
        parts += [b"$%d\r\n%b\r\n" % (len(name), name), *_argument(column)]
    ends = None
    if ends_ms is not None:
        ends = joined([b"*3\r\n$9\r\nPEXPIREAT\r\n", *key_parts, *_argument(texts(ends_ms))], n)
    elif said:
        name, *rest = said
        after = b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in rest)
        ends = joined([b"*%d\r\n$%d\r\n%b\r\n" % (1 + len(said), len(name), name), *key_parts, after], n)
    return Commands(
        rows=_pieces(joined(parts, n)),
        keys=_pieces(key_arguments),
        times_us=times_us,
        ends=None if ends is None else _pieces(ends),
        ends_ms=None if ends_ms is None else ends_ms.tolist(),
    )


def timestamps(instants: Integers) -> Fixed | Headed:
    """n instants in microseconds as google.protobuf.Timestamp: 1 seconds, 2 nanoseconds; zeros are left out."""
    seconds, rest = np.divmod(instants, _SECOND)
    first, second = _unless_zero(seconds, 0x08), _unless_zero(rest * 1000, 0x10)
    if isinstance(first, Fixed) and isinstance(second, Fixed):
        return Fixed(np.hstack([first.data, second.data]))
    return plain(joined([first, second], len(instants)))


def read_timestamps(found: Sequence[bytes]) -> Integers:
    """Microseconds of n messages google.protobuf.Timestamp, (n,)."""
    matrix = np.frombuffer(b"".join([each.ljust(12, b"\0") for each in found]), dtype=np.uint8)
    if len(matrix) == 12 * len(found):
        matrix = matrix.reshape(len(found), 12)
        # Seconds of five bytes, as from 1978 to 3058, and nanoseconds or none. Bytes that are not there add nothing.
        tags = (matrix[:, 0] == 0x08) & ((matrix[:, 6] == 0x10) | (matrix[:, 6] == 0))
        if tags.all() and (matrix[:, 1:5] > 0x7F).all() and (matrix[:, 5] < 0x80).all():
            low = (matrix & 0x7F).astype(np.int64)
            return (low[:, 1:6] @ _POWERS) * _SECOND + (low[:, 7:] @ _POWERS) // 1000
    return np.array([read_timestamp(each) for each in found], dtype=np.int64)


def _unless_zero(numbers: Integers, tag: int) -> Fixed | Headed:
    matrix, lengths = varints(numbers)
    tagged = np.empty((len(matrix), 1 + matrix.shape[1]), dtype=np.uint8)
    tagged[:, 0] = tag
    tagged[:, 1:] = matrix
    return cut(tagged, np.where(numbers == 0, 0, lengths + 1))


def _argument(column: Fixed | Headed) -> list[Part]:
    """A column as arguments of commands: its length, itself, the end of the line."""
    if isinstance(column, Fixed):
        return [b"$%d\r\n" % column.data.shape[1], column, b"\r\n"]
    head = column.head

    def framed(length: int) -> bytes:
        before = head(length)
        return b"$%d\r\n%b" % (len(before) + max(length, 0), before)

    return [Headed(column.body, column.lengths, framed), b"\r\n"]


def _pieces(array: pa.BinaryArray) -> Pieces:
    _, offsets, data = array.buffers()
    where = np.frombuffer(offsets, dtype=np.int32, count=array.offset + len(array) + 1)[array.offset :]
    return Pieces(memoryview(b"") if data is None else memoryview(data), where.tolist())


def spelled(data: bytes | memoryview) -> list[bytes]:
    """The arguments of one command as it is sent."""
    rest, out = bytes(data), []
    at = rest.index(b"\r\n") + 2
    for _ in range(int(rest[1 : at - 2])):
        line = rest.index(b"\r\n", at)
        length = int(rest[at + 1 : line])
        out.append(rest[line + 2 : line + 2 + length])
        at = line + 4 + length
    return out
