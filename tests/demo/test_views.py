"""The engine's features of real flights equal those computed by hand, on weeks with a change of clocks and a storm."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headrace.demo.flights import NEW_YORK, arrivals, departures, questions, read_flights
from headrace.demo.project import new_project
from headrace.demo.views import AircraftDelays, AircraftLandings, AirportDelays, CarrierAtAirport
from headrace.features import Sliding
from tests.demo.by_hand import window_features

WIDTHS = {"1h": "1h", "3h": "3h", "1d": "24h"}


def hops() -> dict[str, str]:
    return {label: f"{Sliding(label).hop_us}us" for label in WIDTHS}


@pytest.mark.parametrize("first", ["2013-03-08", "2013-09-11", "2013-11-02"])
def test_features_of_flights_equal_those_by_hand(first: str, tmp_path: Path) -> None:
    day = pd.Timestamp(first, tz=NEW_YORK)
    flights = read_flights()
    flights = flights[(flights["scheduled"] >= day) & (flights["scheduled"] < day + pd.DateOffset(days=3))]
    streams = {"departures": departures(flights), "arrivals": arrivals(flights)}
    project = new_project(tmp_path)
    project.add_events(1, streams)
    summary = project.replay(quiet=True)
    assert summary.taken == sum(map(len, streams.values()))
    assert not summary.dead

    asked = questions(flights)
    beyond = asked.assign(event_timestamp=asked["event_timestamp"] + pd.Timedelta(hours=30))  # windows empty again
    asked = pd.concat([asked, beyond], ignore_index=True)
    rows = project.training_set(asked)

    for view, name, keys in [
        (AirportDelays, "departures", ["origin"]),
        (CarrierAtAirport, "departures", ["origin", "carrier"]),
        (AircraftDelays, "departures", ["tailnum"]),
    ]:
        by_hand = window_features(streams[name], asked, keys, WIDTHS, hops())
        same(rows, view.__view__.name, by_hand.drop(columns=[] if view is AircraftDelays else "last_delay"))
    landed = window_features(streams["arrivals"], asked, ["tailnum"], {"1d": "24h"}, hops())
    named = {"flights_1d": "landings", "delay_mean_1d": "delay_mean", "last_delay": "last_delay"}
    same(rows, AircraftLandings.__view__.name, landed[list(named)].rename(columns=named))
    trend = rows["airport_delays__delay_mean_1h"] - rows["airport_delays__delay_mean_1d"]
    np.testing.assert_array_equal(rows["airport_delays__worsening"], trend)


def same(rows: pd.DataFrame, view: str, by_hand: pd.DataFrame) -> None:
    for name in by_hand:
        found = rows[f"{view}__{name}"].to_numpy(dtype="float64", na_value=np.nan)
        np.testing.assert_allclose(found, by_hand[name], rtol=1e-9, atol=0, err_msg=f"{view}.{name}")
