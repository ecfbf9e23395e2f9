"""The instants of a spine: with a zone, or read by the clock of one that is named; ends of summer time included.

A naive time is refused unless the caller names its zone (contract C1). With one, a local time that occurs twice (the
clock is turned back) or not at all (it is turned forward) is refused with its row, or read as the caller says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.errors import DataError, DefinitionError
from headrace.features.sources import instant_rules
from headrace.features.time import instant_us

if TYPE_CHECKING:
    import numpy.typing as npt

MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True)
class SpineClock:
    """How the naive times of a spine are read.

    Attributes:
        zone: an IANA zone; None: they are refused.
        ambiguous: a local time that occurs twice: "refuse", "earlier" or "later".
        nonexistent: one that the clock skips: "refuse", or "shift" by the length of the gap (02:30 becomes 03:30).

    Raises:
        DefinitionError: no such zone, no such rule.
    """

    zone: str | None = None
    ambiguous: str = "refuse"
    nonexistent: str = "refuse"

    def __post_init__(self) -> None:
        instant_rules(self.zone, self.ambiguous, self.nonexistent, None, "training_set")


def instants(column: pa.ChunkedArray, name: str, clock: SpineClock, first: int = 0) -> npt.NDArray[np.int64]:
    """(n,) microseconds UTC; nanoseconds are cut off towards the past.

    Args:
        column: timestamps, or ISO text. name: of the column, for errors. first: row of the spine that the column
        begins with, for errors.

    Raises:
        DataError: a time is null, naive without a zone to read it by, or refused by the clock; or no time at all.
    """
    shown = f"Time column '{name}' of the spine"
    if column.null_count:
        row = first + column.is_null().index(True).as_py()
        raise DataError(f"{shown} is null in row {row}. Drop such rows, or say when they are asked.")
    if not len(column):
        return np.empty(0, np.int64)
    if pa.types.is_string(column.type):
        return _of_text(column.to_pylist(), shown, clock, first)
    if not pa.types.is_timestamp(column.type):
        raise DataError(
            f"{shown} is {column.type}, expected timestamps with a zone. A number's unit would be a guess; convert it "
            "first, such as pandas.to_datetime(column, unit='s', utc=True)."
        )
    if column.type.tz is not None:
        return _micros(column)
    if clock.zone is None:
        raise DataError(
            f"{shown} has no time zone. Say which it is: zone='Europe/Berlin', or df[{name!r}].dt.tz_localize('UTC') "
            f"in pandas, pl.col({name!r}).dt.replace_time_zone('UTC') in Polars."
        )
    return _local(_micros(column), shown, clock, first)


def check_one_kind(values: Sequence[Any], name: str) -> None:
    """Refuse Python datetimes of which some have a zone and others none: Arrow would take those for UTC.

    Raises:
        DataError: names the first row that is unlike the first of all.
    """
    kinds: set[bool] = set()
    for row, value in enumerate(values):
        if isinstance(value, datetime) and value == value:  # NaT is no time
            kinds.add(value.utcoffset() is None)
            if len(kinds) == 2:
                raise DataError(
                    f"Time column '{name}' of the spine has times with a zone and times without one; the first unlike "
                    f"those before is in row {row}: {value.isoformat()}. Give every time its zone, or none and zone=."
                )


def _micros(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    ticks = column.cast(pa.int64()).to_numpy()
    micros: npt.NDArray[np.int64] = (
        ticks // 1_000 if column.type.unit == "ns" else ticks * MICROS[str(column.type.unit)]
    )
    return micros


def _of_text(texts: list[str], shown: str, clock: SpineClock, first: int) -> npt.NDArray[np.int64]:
    out = np.zeros(len(texts), np.int64)
    naive: list[int] = []
    for at, text in enumerate(texts):
        where = f"{shown}, row {first + at}"
        try:
            moment = datetime.fromisoformat(text.strip()) if clock.zone is not None else None
            if moment is None or moment.tzinfo is not None:
                out[at] = instant_us(text, where)
            else:
                naive.append(at)
                out[at] = np.datetime64(moment, "us").astype(np.int64)
        except DefinitionError as error:
            raise DataError(str(error)) from None
        except ValueError:
            raise DataError(f"{where}: {text!r} is no time. Write ISO 8601, such as '2026-05-01T12:00:00Z'.") from None
    if naive:
        rows = np.array(naive)
        out[rows] = _local(out[rows], shown, clock, first, rows)
    return out


def _local(
    local_us: npt.NDArray[np.int64],
    shown: str,
    clock: SpineClock,
    first: int,
    rows: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Instants of local times; `rows` are their places when they are not all of the column."""
    assert clock.zone is not None
    naive = pa.array(local_us).cast(pa.timestamp("us"))
    early, late = (
        pc.assume_timezone(naive, clock.zone, ambiguous=way, nonexistent=way).cast(pa.int64()).to_numpy()
        for way in ("earliest", "latest")
    )
    out: npt.NDArray[np.int64] = early.copy()
    zone = ZoneInfo(clock.zone)
    for at in np.flatnonzero(early != late):
        moment = naive[int(at)].as_py().replace(tzinfo=zone)
        before, after = moment.utcoffset(), moment.replace(fold=1).utcoffset()
        assert before is not None
        assert after is not None
        twice = before > after
        if (clock.ambiguous if twice else clock.nonexistent) == "refuse":
            row = first + int(at if rows is None else rows[at])
            turned, advice = (
                ("occurs twice in {}, whose clock is turned back", "ambiguous='earlier' or 'later'")
                if twice
                else ("does not occur in {}, whose clock is turned forward", "nonexistent='shift'")
            )
            raise DataError(
                f"{shown}, row {row}: the local time {moment.replace(tzinfo=None).isoformat()} "
                f"{turned.format(clock.zone)}. Write it in UTC or with its offset, or give {advice}."
            )
        offset = after if twice and clock.ambiguous == "later" else before
        out[at] = local_us[at] - round(offset.total_seconds() * 1_000_000)
    return out
