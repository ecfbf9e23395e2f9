"""Event times and timestamp columns to integer microseconds UTC, vectorised, one refusal per row (contract C1).

Read without more ado: timestamps with a zone, aware datetimes, ISO 8601 text with a zone or offset. With a zone named
on the source also timestamps, datetimes, dates and text without one; with a unit named on the source also integers
since 1970. Anything else is refused, naming what to add. Digits beyond microseconds are cut off, towards the past.
Instants outside the years 1 to 9999 are refused: no reader could show them, and adding a window to them could leave
int64.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.time import EPOCH, MAX_INSTANT_US, MIN_INSTANT_US
from headrace.flows.fit import Cast, Unfit, cell, shown
from headrace.flows.zones import LocalClock

INSTANT = pa.timestamp("us", tz="UTC")
TICKS = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Microseconds per tick of the units that a source can name for integers, nanoseconds aside."""

_US = timedelta(microseconds=1)
_DATED = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIMED = _DATED + r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_ZONED_TEXT = _TIMED + r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
_LOCAL_TEXT = _TIMED + "$"
_OUTSIDE = "is outside the years 1 to 9999"
_NO_ZONE = "has no time zone; write it in UTC or with its offset, or name the zone it is in on the source (zone='...')"
_NO_UNIT = "is a number whose unit would be a guess; name it on the source (unit='s', 'ms', 'us' or 'ns')"


@dataclass(frozen=True)
class TimeReading:
    """What a source says about its times: the clock of those without a zone, the unit of those that are integers."""

    clock: LocalClock | None = None
    unit: str | None = None


def instant_of(value: Any, reading: TimeReading) -> int:
    """Microseconds UTC of one Python value.

    Raises:
        Unfit: it is no instant, or its zone or unit would be a guess.
    """
    if isinstance(value, np.datetime64):
        value = _from_numpy(value)
    if isinstance(value, str):
        return _inside(_from_text(value, reading), value)
    if isinstance(value, datetime):
        return _inside(_from_datetime(value, value, reading), value)
    if isinstance(value, date):
        return _inside(_from_datetime(datetime(value.year, value.month, value.day), value, reading), value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise Unfit(f"{shown(value)} ({type(value).__name__}) is no instant")
    if reading.unit is None:
        raise Unfit(f"{shown(value)} {_NO_UNIT}")
    if value != value or value in (float("inf"), float("-inf")):
        raise Unfit(f"{shown(value)} is not finite")
    if int(value) != value:
        raise Unfit(f"{shown(value)} is not a whole number of {reading.unit}")
    return _inside(_ticked(int(value), reading.unit), value)


def _ticked(count: int, unit: str) -> int:
    return count // 1_000 if unit == "ns" else count * TICKS[unit]


def _inside(us: int, value: Any) -> int:
    if not MIN_INSTANT_US <= us <= MAX_INSTANT_US:
        raise Unfit(f"{shown(value)} {_OUTSIDE}")
    return us


def _from_numpy(value: np.datetime64) -> datetime:
    try:
        local = value.astype("datetime64[us]").astype(datetime)
    except (ValueError, OverflowError):
        local = None
    if not isinstance(local, datetime):
        raise Unfit(f"{shown(value)} {_OUTSIDE}")
    return local


def _from_text(value: str, reading: TimeReading) -> int:
    text = value.strip()
    if reading.unit is not None and re.fullmatch(r"[+-]?[0-9]{1,24}(\.0*)?", text):
        return _ticked(int(text.split(".")[0]), reading.unit)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = f"; {_NO_UNIT}" if re.fullmatch(r"[+-]?[0-9.]+", text) else ""
        raise Unfit(f"{shown(value)} is no ISO 8601 time such as '2026-05-01T12:00:00Z'{hint}") from None
    return _from_datetime(moment, value, reading)


def _from_datetime(moment: datetime, value: Any, reading: TimeReading) -> int:
    if moment.utcoffset() is not None:
        return int((moment - EPOCH) // _US)
    if reading.clock is None:
        raise Unfit(f"{value if isinstance(value, str) else value.isoformat()} {_NO_ZONE}")
    return reading.clock.instant(int((moment.replace(tzinfo=EPOCH.tzinfo) - EPOCH) // _US))


def cast_instants(array: pa.Array, reading: TimeReading) -> Cast:
    """An Arrow column of any type to `INSTANT`, row by row as `instant_of` would, but in columns."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return cast_instants(array.cast(kind.value_type), reading)
    if pa.types.is_null(kind):
        return Cast(pa.nulls(len(array), INSTANT))
    if pa.types.is_timestamp(kind):
        scaled = _scaled(array.cast(pa.int64()), array, kind.unit)
        return scaled if kind.tz is not None else _localised(scaled, array, reading)
    if pa.types.is_date(kind):
        return _localised(_scaled(array.cast(pa.date64()).cast(pa.int64()), array, "ms"), array, reading)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _counted(array, reading)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _parsed(array.cast(pa.string()), reading)
    return _all_unfit(array, f"is of type {kind}, which is no instant")


def cast_datetimes(values: Sequence[datetime | None]) -> Cast | None:
    """Python datetimes to `INSTANT` in one go, or None where one of them is not aware."""
    if not all(v is None or v.tzinfo is not None for v in values):
        return None
    try:
        return Cast(pa.array(values, type=INSTANT))
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None


def _all_unfit(array: pa.Array, problem: str) -> Cast:
    valid = np.array(pc.is_valid(array))
    return Cast(
        pa.nulls(len(array), INSTANT), {int(i): f"{cell(array, int(i))} {problem}" for i in np.flatnonzero(valid)}
    )


def _ints(array: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    if not array.null_count:
        return array.to_numpy(zero_copy_only=False), np.ones(len(array), dtype=np.bool_)
    return pc.fill_null(array, 0).to_numpy(zero_copy_only=False), np.array(pc.is_valid(array))


def _instants(us: npt.NDArray[np.int64], invalid: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(us, type=pa.int64(), mask=invalid if invalid.any() else None).view(INSTANT)


def _scaled(ticks: pa.Array, array: pa.Array, unit: str) -> Cast:
    """Ticks since 1970 to instants; refuses those outside the calendar before they could overflow."""
    if not ticks.null_count and len(ticks):
        usual = _usual(ticks.to_numpy(), unit)
        if usual is not None:
            return Cast(usual)
    count, valid = _ints(ticks)
    if unit == "ns":
        us = count // 1_000
        outside = valid & ((us < MIN_INSTANT_US) | (us > MAX_INSTANT_US))
    else:
        size = TICKS[unit]
        outside = valid & ((count < -(-MIN_INSTANT_US // size)) | (count > MAX_INSTANT_US // size))
        us = (np.where(outside, 0, count) if outside.any() else count) * size
    unfit = {int(i): f"{cell(array, int(i))} {_OUTSIDE}" for i in np.flatnonzero(outside)}
    return Cast(_instants(us, ~valid | outside), unfit)


def _usual(count: npt.NDArray[np.int64], unit: str) -> pa.Array | None:
    """Ticks that are all inside the calendar, as instants: few calls, for the small batches of a live flow."""
    least, greatest = int(count.min()), int(count.max())
    if unit == "ns":
        if least // 1_000 < MIN_INSTANT_US or greatest // 1_000 > MAX_INSTANT_US:
            return None
        us = count // 1_000
    else:
        size = TICKS[unit]
        if least * size < MIN_INSTANT_US or greatest * size > MAX_INSTANT_US:
            return None
        us = count * size
    return pa.Array.from_buffers(INSTANT, len(us), [None, pa.py_buffer(us)])


def _localised(local: Cast, array: pa.Array, reading: TimeReading) -> Cast:
    """Instants that were read as though local time were UTC, moved to UTC by the source's clock."""
    if reading.clock is None:
        return _all_unfit(array, _NO_ZONE)
    us, valid = _ints(local.array.cast(pa.int64()))
    rows = np.flatnonzero(valid)
    moved, refused = reading.clock.instants(us[rows])
    out = np.zeros(len(us), dtype=np.int64)
    out[rows] = moved
    unfit = {**local.unfit, **{int(rows[i]): why for i, why in refused.items()}}
    bad = np.zeros(len(us), dtype=np.bool_)
    bad[list(unfit)] = True
    return Cast(_instants(out, ~valid | bad), unfit)


def _counted(array: pa.Array, reading: TimeReading) -> Cast:
    if reading.unit is None:
        return _all_unfit(array, _NO_UNIT)
    if not (pa.types.is_signed_integer(array.type) or (pa.types.is_integer(array.type) and array.type.bit_width < 64)):
        return _one_by_one(array, reading)  # floats with gaps from pandas, and uint64, which may leave int64
    return _scaled(array if array.type == pa.int64() else array.cast(pa.int64()), array, reading.unit)


def _one_by_one(array: pa.Array, reading: TimeReading) -> Cast:
    unfit: dict[int, str] = {}
    out = np.zeros(len(array), dtype=np.int64)
    empty = np.ones(len(array), dtype=np.bool_)
    for row, value in enumerate(array.to_pylist()):
        if value is None or value != value:
            continue
        try:
            out[row] = instant_of(value, reading)
            empty[row] = False
        except Unfit as refusal:
            unfit[row] = str(refusal)
    return Cast(_instants(out, empty), unfit)


def _parsed(text: pa.Array, reading: TimeReading) -> Cast:
    """ISO 8601 text: rows of the common form in one go, the others one by one."""
    if reading.clock is None:
        whole_column = _parse_common(text, True, reading)  # what Arrow takes, with a zone, Python reads the same way
        if whole_column is not None:
            return whole_column
    common = _LOCAL_TEXT if reading.clock is not None else _ZONED_TEXT
    matches = pc.fill_null(pc.match_substring_regex(text, common), False).to_numpy(zero_copy_only=False)
    if reading.clock is not None and not matches.any():  # text with offsets, in a source that also names a zone
        common = _ZONED_TEXT
        matches = pc.fill_null(pc.match_substring_regex(text, common), False).to_numpy(zero_copy_only=False)
    if not matches.any():
        return _one_by_one(text, reading)
    whole = bool(matches.all())
    fast = _parse_common(text if whole else text.filter(pa.array(matches)), common == _ZONED_TEXT, reading)
    if fast is None:
        return _one_by_one(text, reading)
    if whole:
        return fast
    at = np.flatnonzero(matches)
    rest = np.flatnonzero(~matches)
    slow = _one_by_one(text.take(pa.array(rest)), reading)
    back = np.empty(len(text), dtype=np.int64)
    back[at] = np.arange(len(at))
    back[rest] = len(at) + np.arange(len(rest))
    unfit = {int(at[i]): why for i, why in fast.unfit.items()} | {int(rest[i]): why for i, why in slow.unfit.items()}
    return Cast(pa.concat_arrays([fast.array, slow.array]).take(pa.array(back)), unfit)


def _parse_common(text: pa.Array, zoned: bool, reading: TimeReading) -> Cast | None:
    """Text of one common form; None where a row has the form but is no instant (30 February): each is judged alone."""
    try:
        parsed = text.cast(INSTANT) if zoned else text.cast(pa.timestamp("us")).cast(INSTANT)
    except pa.ArrowInvalid:
        return None
    us, _ = _ints(parsed.view(pa.int64()))
    if ((us < MIN_INSTANT_US) | (us > MAX_INSTANT_US)).any():
        return None
    read = Cast(parsed)
    return read if zoned else _localised(read, text, reading)
