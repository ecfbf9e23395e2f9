"""Some features of a view out of Feast's hash, many rows at a time and quickly: what a lookup spends its time on.

Fields are asked for by type, so that a row's doubles lie side by side and are unpacked by one call, and small integers
are looked up instead of decoded. Whatever is not of the usual form goes through `decode_value`, one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BOOL, FLOAT, INT
from headrace.stores.feast_rows import FeastRows, exact_values, field_of
from headrace.stores.feast_values import decode_value, read_timestamp
from headrace.stores.layout import NEWEST_EVENT
from headrace.stores.lookups import FoundRow, picking

if TYPE_CHECKING:
    import numpy.typing as npt

_MANY = 24
"""From so many rows on, what all of them have is decoded together."""
_LOW = 0x7F7F7F7F7F7F7F7F
_SHORT = 4
"""Tag and varint of at most so many bytes are remembered: 2^21 numbers at most, in practice the few that occur."""
_REMEMBERED = 1 << 16


class _Values(dict[bytes | None, Any]):
    """Value by its bytes, decoded when first met; short ones stay."""

    def __init__(self, dtype: str) -> None:
        super().__init__({None: None, b"": None})
        self._dtype = dtype

    def __missing__(self, data: bytes) -> Any:
        if self._dtype == INT and data[0] == 0x20 and len(data) < 10:
            value: Any = _positive(data[1:])
        else:
            value = decode_value(data, self._dtype)
        if len(data) <= _SHORT and len(self) < _REMEMBERED:
            self[data] = value
        return value


_INTEGERS, _BOOLEANS = _Values(INT), _Values(BOOL)


def _positive(data: bytes) -> int:
    """A varint of at most eight bytes."""
    bits = int.from_bytes(data, "little") & _LOW
    bits = (bits & 0x007F007F007F007F) | ((bits & 0x7F007F007F007F00) >> 1)
    bits = (bits & 0x00003FFF00003FFF) | ((bits & 0x3FFF00003FFF0000) >> 2)
    return (bits & 0x0FFFFFFF) | ((bits & 0x0FFFFFFF00000000) >> 4)


def _instant(data: bytes) -> int:
    """`read_timestamp`, quick for the form that instants of our time have: seconds of five bytes."""
    if data[:1] == b"\x08" and len(data) > 5 and data[5] < 0x80 <= data[4]:
        seconds = _positive(data[1:6]) * 1_000_000
        if len(data) == 6:
            return seconds
        if data[6] == 0x10:
            return seconds + _positive(data[7:]) // 1000
    return read_timestamp(data)


def _instants(found: Sequence[bytes]) -> list[int] | None:
    """`_instant` of many at once; None when one is not of the usual form."""
    import numpy as np

    longest, shortest = max(map(len, found)), min(map(len, found))
    if shortest < 6 or longest > 15:
        return None
    halves = np.frombuffer(_padded(16, len(found)).pack(*found), "<u8").reshape(-1, 2)
    first, second = halves[:, 0], halves[:, 1]
    if np.any((first & _FORM) != _FORMED):  # a tag, and five bytes of seconds, of which the last one is marked so
        return None
    tags = (first >> 48) & 0xFF
    if np.any(tags != 0x10) and [len(each) > 6 for each in found] != (tags == 0x10).tolist():
        return None
    seconds = _positives((first >> 8) & 0xFFFFFFFFFF)
    nanos = _positives((first >> 56) | (second << 8))
    out: list[int] = (seconds * 1_000_000 + nanos // 1000).tolist()
    return out


_FORM, _FORMED = 0x8080_0000_00FF, 0x0080_0000_0008
_TAG = b"\x20"  # of an integer


def _laid_out(found: Sequence[bytes | None], padded: struct.Struct, tags: bytes) -> bytes | None:
    """Nine bytes for each of n integers: the tag, and a varint with zeros behind it; None when one is not so.

    padded: of nine bytes, n times. tags: of n integers.
    """
    try:
        joined = padded.pack(*found)
    except struct.error:  # one is None
        return None
    # The last of the nine goes on where the varint is longer: it is no ASCII.
    return joined if joined[::9] == tags and joined[8::9].isascii() else None


@lru_cache(maxsize=64)
def _padded(size: int, n: int) -> struct.Struct:
    """n byte strings, each with zeros behind it, or cut, up to `size`."""
    return struct.Struct(f"{size}s" * n)


def _positives(bits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`_positive` of (n,) varints of eight bytes each, zeros behind them."""
    bits = bits & _LOW
    bits = (bits & 0x007F007F007F007F) | ((bits & 0x7F007F007F007F00) >> 1)
    bits = (bits & 0x00003FFF00003FFF) | ((bits & 0x3FFF00003FFF0000) >> 2)
    return (bits & 0x0FFFFFFF) | ((bits & 0x0FFFFFFF00000000) >> 4)


class _Integers:
    """`_INTEGERS` of the n integers of a row: one number of 72 n bits, in which all are decoded by the same steps."""

    def __init__(self, n: int) -> None:
        def everywhere(bits: int) -> int:
            return sum(bits << 72 * k + 8 for k in range(n))

        self._low = everywhere(_LOW)
        self._steps = [
            (everywhere(keep), everywhere(move), by)
            for keep, move, by in (
                (0x007F007F007F007F, 0x7F007F007F007F00, 1),
                (0x00003FFF00003FFF, 0x3FFF00003FFF0000, 2),
                (0x0FFFFFFF, 0x0FFFFFFF00000000, 4),
            )
        ]
        self._padded, self._tags = _padded(9, n), _TAG * n
        self._struct = struct.Struct("<" + "xQ" * n)

    def __call__(self, found: Sequence[bytes | None]) -> tuple[Any, ...]:
        joined = _laid_out(found, self._padded, self._tags)
        if joined is None:
            return tuple(map(_INTEGERS.__getitem__, found))
        bits = int.from_bytes(joined, "little") & self._low
        for keep, move, by in self._steps:
            bits = (bits & keep) | ((bits & move) >> by)
        return self._struct.unpack(bits.to_bytes(len(joined), "little"))


@lru_cache(maxsize=64)
def _doubles(n: int) -> struct.Struct:
    return struct.Struct("<" + "xd" * n)


class FeastReader:
    """Reads some features of a view's rows.

    Args:
        rows: of the view. features: in the order in which values are wanted.

    Attributes:
        fields: what to ask the hash for; `read` takes the answers in this order.
    """

    def __init__(self, rows: FeastRows, features: tuple[str, ...]) -> None:
        view, dtypes = rows.layout.view, dict(rows.layout.features)
        floats = [name for name in features if dtypes[name] == FLOAT]
        integers = [name for name in features if dtypes[name] == INT]
        booleans = [name for name in features if dtypes[name] == BOOL]
        others = [name for name in features if dtypes[name] not in (FLOAT, INT, BOOL)]
        order = [*floats, *integers, *booleans, *others]
        self._inexact = [(order.index(name), name, dtypes[name]) for name, _ in rows.inexact if name in order]
        exact = [rows.exact_field] if self._inexact else []
        asked = (*floats, NEWEST_EVENT, *order[len(floats) :])  # the newest event is an integer, too
        self.fields = (rows.time_field, *(field_of(view, name) for name in asked), *exact)
        self._others = [dtypes[name] for name in others]
        self._pick = None if order == list(features) else picking(order, features)
        first = 1 + len(floats)
        self._ends = first, first + 1 + len(integers), 2 + len(order) - len(others), 2 + len(order)
        self._integers = _Integers(1 + len(integers))
        self._doubles = struct.Struct("<" + "xd" * len(floats))
        self._tags = b")" * len(floats)

    def read(self, found: Sequence[bytes | None]) -> FoundRow | None:
        """The row, from the fields; None when there is none."""
        time = found[0]
        if time is None:
            return None
        first, second, third, last = self._ends
        as_of = _instant(time)
        values = self._floats(found[1:first]) if first > 1 else ()
        newest, *integers = self._integers(found[first:second])
        values += tuple(integers)
        if third > second:
            values += tuple(map(_BOOLEANS.__getitem__, found[second:third]))
        if last > third:
            rest = zip(found[third:last], self._others, strict=True)
            values += tuple([None if data is None else decode_value(data, dtype) for data, dtype in rest])
            said = found[last] if self._inexact else None
            if said:
                values = exact_values(values, said, as_of, self._inexact)
        return values if self._pick is None else self._pick(values), as_of, as_of if newest is None else newest

    def read_all(self, found: Sequence[Sequence[bytes | None]]) -> list[FoundRow | None]:
        """`read` of each; many of numbers and booleans together, which takes half the time."""
        if len(found) < _MANY or self._ends[2] < self._ends[3]:
            return [self.read(each) for each in found]
        there = [each for each in found if each[0] is not None]
        rows = self._together(there) if len(there) >= _MANY else None
        if rows is None:
            return [self.read(each) for each in found]
        if len(there) == len(found):
            return rows
        each_there = iter(rows)
        return [None if each[0] is None else next(each_there) for each in found]

    def _together(self, found: Sequence[Sequence[bytes | None]]) -> list[FoundRow | None] | None:
        """Rows that are all there and without values of other types; None when an instant is of an unusual form."""
        first, second, third, _ = self._ends
        as_of = _instants([each[0] for each in found])  # type: ignore[misc]
        if as_of is None:
            return None
        integers = self._all_integers([each[first:second] for each in found])
        newest = [at if each[0] is None else each[0] for each, at in zip(integers, as_of, strict=True)]
        values: list[tuple[Any, ...]] = [each[1:] for each in integers]
        if first > 1:
            values = [mine + more for mine, more in zip(self._all_floats(found, first), values, strict=True)]
        if third > second:
            known = map(_BOOLEANS.__getitem__, chain.from_iterable([each[second:third] for each in found]))
            columns = zip(*[known] * (third - second), strict=True)
            values = [mine + more for mine, more in zip(values, columns, strict=True)]
        if self._pick is not None:
            values = list(map(self._pick, values))
        return list(zip(values, as_of, newest, strict=True))

    def _all_integers(self, found: Sequence[Sequence[bytes | None]]) -> list[tuple[Any, ...]]:
        count = len(found) * len(found[0])
        joined = _laid_out(list(chain.from_iterable(found)), _padded(9, count), _TAG * count)
        if joined is None:
            return list(map(self._integers, found))
        import numpy as np

        words: npt.NDArray[Any] = np.ndarray((len(joined) // 9,), "<u8", joined, 1, (9,))
        flat = iter(_positives(words).tolist())
        return list(zip(*[flat] * len(found[0]), strict=True))

    def _all_floats(self, found: Sequence[Sequence[bytes | None]], end: int) -> list[tuple[Any, ...]]:
        try:
            joined = b"".join(chain.from_iterable([each[1:end] for each in found]))  # type: ignore[misc]
        except TypeError:  # one was never written
            joined = b""
        count = (end - 1) * len(found)
        if len(joined) != 9 * count or joined[::9] != self._tags * len(found):
            return [self._floats(each[1:end]) for each in found]
        flat = iter(_doubles(count).unpack(joined))
        return list(zip(*[flat] * (end - 1), strict=True))

    def _floats(self, found: Sequence[bytes | None]) -> tuple[Any, ...]:
        try:
            joined = b"".join(found)  # type: ignore[arg-type]
        except TypeError:  # one was never written
            joined = b""
        if len(joined) == self._doubles.size and joined[::9] == self._tags:
            return self._doubles.unpack(joined)
        return tuple([None if data is None else decode_value(data, FLOAT) for data in found])
