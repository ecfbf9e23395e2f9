"""JSON objects to Arrow columns, all of a batch at once; a text in an unusual spelling is left to jsonlines.py."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.events import Field
from headrace.flows.batch import ARROW_TYPES
from headrace.flows.instants import TimeReading
from headrace.flows.json_kernel import ABSENT, INSTANT, LONG, REAL, TEXT, TRUTH, WHOLE, scan
from headrace.flows.spans import spans

_KINDS = {"string": TEXT, "int64": WHOLE, "float64": REAL, "bool": TRUTH}
SMALL = 128
"""So many texts are read one by one in less time."""


class JsonColumns:
    """Reads the fields of one event.

    fields, names: what to read, and under which key; no two of one key, none of bytes. time: how instants are written.
    """

    def __init__(self, fields: Sequence[Field], names: Sequence[str], time: int) -> None:
        keys = [f'"{name}"'.encode() for name in names]
        self._fields = tuple(fields)
        self._names = np.frombuffer(b"".join(keys) + b"\0", dtype=np.uint8).copy()
        self._name_at = np.cumsum([0, *map(len, keys)])
        kinds = [time if f.dtype == "timestamp" else _KINDS[f.dtype] for f in fields]
        self._kinds = np.array(kinds, dtype=np.int64)
        self._follow = np.append(np.arange(len(fields)), 0)
        self._reals = [lane for lane, kind in enumerate(kinds) if kind == REAL]
        self._nullable = np.array([f.nullable for f in fields], dtype=np.bool_)

    def read(self, texts: Sequence[bytes]) -> tuple[list[pa.Array], npt.NDArray[np.bool_]]:
        """A column for each field of n texts, and which could not be read: (n,) bool; they have nulls.

        The columns are of their fields' types; but instants are int64 or text where the source names a unit or a zone.
        """
        n, lanes = len(texts), len(self._fields)
        joined = b"\0".join((*texts, b"\0" * 8))
        starts = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, texts), np.int64, n) + 1, out=starts[1:])
        block = np.frombuffer(joined, dtype=np.uint8)
        values = np.empty((lanes, n), dtype=np.int64)
        sizes = np.empty((lanes, n), dtype=np.int32)
        given = np.empty((lanes, n), dtype=np.uint8)
        bad = np.empty(n, dtype=np.bool_)
        scan(block, starts, self._names, self._name_at, self._kinds, self._nullable, self._follow.copy(),
             np.zeros(lanes, dtype=np.int64), values, values.view(np.float64), sizes, given, bad)  # fmt: skip
        if not joined.isascii():
            _refuse_no_utf8(texts, joined, bad)
        for lane in self._reals:
            _read_long(joined, values[lane], sizes[lane], given[lane], bad)
        gaps: Any = [None] * lanes
        if bad.any() or not given.all():
            gaps = [its if its.any() else None for its in (given == ABSENT) | bad]
        return [self._column(lane, block, values[lane], sizes[lane], gaps[lane]) for lane in range(lanes)], bad

    def _column(
        self,
        lane: int,
        block: npt.NDArray[np.uint8],
        values: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int32],
        missing: npt.NDArray[np.bool_] | None,
    ) -> pa.Array:
        kind = int(self._kinds[lane])
        if kind == TEXT:
            return spans(block, values, sizes, missing).view(pa.string())
        found = values.view(np.float64) if kind == REAL else values != 0 if kind == TRUTH else values
        array = pa.array(found, mask=missing)
        return array.view(ARROW_TYPES["timestamp"]) if kind == INSTANT else array


@lru_cache(maxsize=256)
def json_columns(fields: tuple[Field, ...], names: tuple[str, ...], time: TimeReading) -> JsonColumns | None:
    """None where a field or its key is none that this reads."""
    if any(f.dtype not in _KINDS and f.dtype != "timestamp" for f in fields) or len(set(names)) < len(names):
        return None
    if any(not name.isprintable() or '"' in name or "\\" in name for name in names):
        return None
    # With a zone of the source's own there is text without one.
    written = WHOLE if time.unit is not None else INSTANT if time.clock is None else TEXT
    return JsonColumns(fields, names, written)


def _refuse_no_utf8(texts: Sequence[bytes], joined: bytes, bad: npt.NDArray[np.bool_]) -> None:
    try:
        joined.decode()
    except UnicodeDecodeError:
        for i, text in enumerate(texts):
            try:
                text.decode()
            except UnicodeDecodeError:
                bad[i] = True


def _read_long(
    joined: bytes,
    values: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int32],
    given: npt.NDArray[np.uint8],
    bad: npt.NDArray[np.bool_],
) -> None:
    """Numbers of many digits, which are to be rounded correctly; what is beyond float64 is refused."""
    if given.max(initial=0) < LONG:
        return
    at = np.flatnonzero((given == LONG) & ~bad)
    begins = values[at]
    ends = begins + sizes[at]
    found = np.array([float(joined[a:b]) for a, b in zip(begins.tolist(), ends.tolist(), strict=True)])
    values.view(np.float64)[at] = found
    bad[at[np.isinf(found)]] = True
