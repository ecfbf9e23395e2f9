"""Durations and instants at the edge of the API: text and datetimes in, integer microseconds (UTC) inside.

Inside Headrace an instant is an `int`: microseconds since 1970-01-01T00:00:00Z (contract C1). A value whose unit or
zone would have to be guessed is refused, naming the parameter it was given for.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from headrace.features.errors import DefinitionError

MICROSECOND = 1
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

UNITS = {"w": WEEK, "d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND, "us": MICROSECOND}

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|[wdhms]))+")
_TERM = re.compile(r"(\d+)(?:\.(\d+))?(ms|us|[wdhms])")
_DURATION_HINT = (
    "Write a number and a unit (us, ms, s, m, h, d, w), such as '30m', '1h30m' or '7d', or give a timedelta."
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN_INSTANT_US = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z, the oldest instant a Python datetime can show."""
MAX_INSTANT_US = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z, the newest instant a Python datetime can show."""


def duration_us(value: str | timedelta | object, name: str) -> int:
    """Microseconds of a duration given as text or `timedelta`; never negative.

    Text is one or more numbers with units, largest first by custom: `us`, `ms`, `s`, `m` (minutes), `h`, `d` (24
    hours), `w`. A trailing " ago" is allowed, so that `ending="1d ago"` reads well. Zero is allowed; who needs more
    than zero says so.

    Args:
        value: the duration.
        name: what it was given for, used in the error ("last", "ttl of view 'rides'").

    Raises:
        DefinitionError: text that is no duration, a plain number (its unit would be a guess), a negative duration or
            one that is not whole microseconds.

    >>> duration_us("1h30m", "last")
    5400000000
    >>> duration_us("1d ago", "ending") == duration_us(timedelta(days=1), "ending")
    True
    >>> duration_us(90, "last")
    Traceback (most recent call last):
    ...
    headrace.features.errors.DefinitionError: last: got the number 90, whose unit would be a guess. Write a number \
and a unit (us, ms, s, m, h, d, w), such as '30m', '1h30m' or '7d', or give a timedelta.
    """
    if isinstance(value, timedelta):
        micros = value // timedelta(microseconds=1)
        if micros < 0:
            raise DefinitionError(f"{name}: got the negative duration {value}. {_DURATION_HINT}")
        return micros
    if isinstance(value, (int, float)):
        raise DefinitionError(f"{name}: got the number {value!r}, whose unit would be a guess. {_DURATION_HINT}")
    if not isinstance(value, str):
        raise DefinitionError(f"{name}: got {value!r}, which is no duration. {_DURATION_HINT}")
    text = value.strip()
    if text.startswith("-"):
        raise DefinitionError(f"{name}: got the negative duration {value!r}. {_DURATION_HINT}")
    text = text.removesuffix("ago").replace(" ", "")
    if not _DURATION.fullmatch(text):
        raise DefinitionError(f"{name}: got {value!r}, which is no duration. {_DURATION_HINT}")
    total = 0
    for whole, fraction, unit in _TERM.findall(text):
        total += int(whole) * UNITS[unit]
        if fraction:
            part, rest = divmod(int(fraction) * UNITS[unit], 10 ** len(fraction))
            if rest:
                raise DefinitionError(f"{name}: {value!r} is not a whole number of microseconds.")
            total += part
    return total


def format_duration(us: int) -> str:
    """The shortest exact text of a duration in microseconds, the inverse of `duration_us`.

    >>> format_duration(5_400_000_000), format_duration(604_800_000_000), format_duration(0)
    ('1h30m', '7d', '0s')
    """
    if us == 0:
        return "0s"
    sign, rest, text = ("-" if us < 0 else ""), abs(us), ""
    for unit, size in UNITS.items():
        if unit == "w":  # weeks read better as days: 7d, 14d
            continue
        count, rest = divmod(rest, size)
        if count:
            text += f"{count}{unit}"
    return sign + text


def instant_us(value: datetime | str | object, name: str) -> int:
    """Microseconds since the epoch of an aware `datetime` (a pandas `Timestamp` is one) or ISO text with a zone.

    Digits beyond microseconds are cut off (towards the past).

    Args:
        value: the instant.
        name: the field or parameter, used in the error.

    Raises:
        DefinitionError: a naive datetime or text without a zone (contract C1), a number or NumPy `datetime64` (no zone,
            unit to be guessed), anything that is no instant.

    >>> instant_us("1970-01-01T01:00:00+01:00", "at"), instant_us("1970-01-01T00:00:01.5Z", "at")
    (0, 1500000)
    >>> instant_us("2026-05-01 12:00", "at")
    Traceback (most recent call last):
    ...
    headrace.features.errors.DefinitionError: at: '2026-05-01 12:00' has no time zone. Add one, such as \
'2026-05-01T12:00:00Z' or datetime(..., tzinfo=timezone.utc).
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise DefinitionError(
                f"{name}: {value!r} is no instant. Write ISO 8601 with a zone, such as '2026-05-01T12:00:00Z'."
            ) from None
    elif isinstance(value, datetime):
        moment = value
    else:
        kind = "a number, whose unit would be a guess" if isinstance(value, (int, float)) else "no instant with a zone"
        raise DefinitionError(
            f"{name}: {value!r} ({type(value).__name__}) is {kind}. "
            "Give an aware datetime or ISO 8601 text with a zone, "
            "such as '2026-05-01T12:00:00Z'."
        )
    if moment.tzinfo is None or moment.utcoffset() is None:
        shown = repr(value) if isinstance(value, str) else f"the naive datetime {value.isoformat()}"
        raise DefinitionError(
            f"{name}: {shown} has no time zone. Add one, such as '2026-05-01T12:00:00Z' or "
            "datetime(..., tzinfo=timezone.utc)."
        )
    return (moment - EPOCH) // timedelta(microseconds=1)


def as_datetime(us: int) -> datetime:
    """The aware UTC `datetime` of an instant in microseconds.

    >>> as_datetime(1_500_000)
    datetime.datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=datetime.timezone.utc)
    """
    return EPOCH + timedelta(microseconds=us)


def format_instant(us: int) -> str:
    """ISO 8601 text in UTC, with a fraction only where there is one.

    >>> format_instant(0), format_instant(1_500_000)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:01.5Z')
    """
    if not MIN_INSTANT_US <= us <= MAX_INSTANT_US:
        return f"{us} µs since 1970"
    moment = as_datetime(us)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{text}{fraction}Z"
