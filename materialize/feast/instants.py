"""Instants as Feast has them, datetimes that are UTC where they name no zone, and as integer microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

US = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = ((end.replace(tzinfo=UTC) - _EPOCH) // US for end in (datetime.min, datetime.max))


def us_of(at: datetime) -> int:
    """Microseconds since 1970.

    >>> us_of(datetime(1970, 1, 1, 0, 0, 1)), us_of(datetime(1970, 1, 1, 1, tzinfo=UTC))
    (1000000, 3600000000)
    """
    return ((at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // US


def datetime_of(us: int) -> datetime:
    """An instant for Feast, which knows the years 1 to 9999; what is beyond is their end.

    >>> datetime_of(0).isoformat(), datetime_of(-(2**62)).year
    ('1970-01-01T00:00:00+00:00', 1)
    """
    return _EPOCH + min(max(us, _FIRST), _LAST) * US
