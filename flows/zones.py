"""Local times to instants: daylight saving handled by rule, never by accident.

A zone's clock is turned a few times a year. When it is turned back, an hour of local times occurs twice; when it is
turned forward, an hour does not occur. Both are found from what `zoneinfo` answers for fold 0 and fold 1 (PEP 495):
the two offsets differ around a turn and nowhere else.

Steps: the hours that occur in the column (few) -> one offset per hour whose clock is not turned -> the rows in the
other hours one by one.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from headrace.features.time import HOUR, MAX_INSTANT_US, MIN_INSTANT_US
from headrace.flows.fit import Unfit

_NAIVE_EPOCH = datetime(1970, 1, 1)
_US = timedelta(microseconds=1)
_ROOM = 48 * HOUR  # more than any offset, so that a local time near the ends of the calendar stays inside it
_TURNED = 1 << 62  # an hour in which the clock is turned has no single offset

Ambiguous = Literal["refuse", "earlier", "later"]
Nonexistent = Literal["refuse", "shift"]


@dataclass(frozen=True)
class LocalClock:
    """How times without a zone are read: by the clock of an IANA zone.

    zone: such as "America/New_York".
    ambiguous: a local time that occurs twice is refused, or read as the earlier or the later of the two instants.
    nonexistent: a local time that the clock skipped is refused, or shifted by the length of the gap (02:30 becomes
        03:30).
    """

    zone: str
    ambiguous: Ambiguous = "refuse"
    nonexistent: Nonexistent = "refuse"

    def instant(self, local_us: int) -> int:
        """The instant (microseconds UTC) at which the clock shows `local_us`, microseconds since 1970 on that clock.

        Raises:
            Unfit: the time occurs twice or not at all and the rule is to refuse it, or is outside years 1 to 9999.
        """
        if not MIN_INSTANT_US + _ROOM <= local_us <= MAX_INSTANT_US - _ROOM:
            raise Unfit("a local time outside the years 1 to 9999")
        before, after = _offsets(self.zone, local_us)
        if before == after:
            return local_us - before
        text = (_NAIVE_EPOCH + local_us * _US).isoformat()
        if before > after:
            if self.ambiguous == "refuse":
                raise Unfit(
                    f"the local time {text} occurs twice in {self.zone}, whose clock is turned back; write it in UTC "
                    "or with its offset, or give the source ambiguous='earlier' or 'later'"
                )
            return local_us - (before if self.ambiguous == "earlier" else after)
        if self.nonexistent == "refuse":
            raise Unfit(
                f"the local time {text} does not occur in {self.zone}, whose clock is turned forward; write it in UTC "
                "or with its offset, or give the source nonexistent='shift'"
            )
        return local_us - before

    def instants(self, local_us: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
        """(n,) instants in microseconds UTC of (n,) local times, and row -> what is wrong with it (its instant is
        0).
        """
        out = np.zeros(len(local_us), dtype=np.int64)
        unfit: dict[int, str] = {}
        hours, hour_of = np.unique(local_us // HOUR, return_inverse=True)
        offsets = np.array([_hour_offset(self.zone, int(h)) for h in hours], dtype=np.int64)
        offset = offsets[hour_of]
        plain = offset != _TURNED
        out[plain] = local_us[plain] - offset[plain]
        for row in np.flatnonzero(~plain):
            try:
                out[row] = self.instant(int(local_us[row]))
            except Unfit as refusal:
                unfit[int(row)] = str(refusal)
        return out, unfit


def _offsets(zone: str, local_us: int) -> tuple[int, int]:
    """Offsets from UTC, microseconds, before and after a turn of the clock near `local_us`; equal away from turns."""
    at = (_NAIVE_EPOCH + local_us * _US).replace(tzinfo=ZoneInfo(zone))
    before, after = at.utcoffset(), at.replace(fold=1).utcoffset()
    return (before or timedelta(0)) // _US, (after or timedelta(0)) // _US


@lru_cache(maxsize=65_536)
def _hour_offset(zone: str, hour: int) -> int:
    """The one offset of a local hour (hours since 1970), or `_TURNED` where the clock is turned in it or it is
    outside.
    """
    start = hour * HOUR
    if not MIN_INSTANT_US + _ROOM <= start <= MAX_INSTANT_US - 2 * _ROOM:
        return _TURNED
    offsets = {*_offsets(zone, start), *_offsets(zone, start + HOUR)}
    return offsets.pop() if len(offsets) == 1 else _TURNED
