"""How late New York's airports, their carriers and their aircraft have been running: the features of the demo.

headrace views views.py        what is defined here, and how exact it is
headrace run views.py          replays the files in departures/ and arrivals/
headrace get airport_delays origin=LGA --at 2013-09-12T22:00Z
"""

from pathlib import Path

from headrace.features import Entity, Event, EventTime, FeatureView, FileSource, derived


class Departure(Event):
    origin: str
    dest: str
    carrier: str
    tailnum: str
    flight: int
    delay: int  # minutes; negative: early
    at: EventTime


class Arrival(Event):
    origin: str
    dest: str
    carrier: str
    tailnum: str
    flight: int
    delay: int  # minutes; negative: early
    at: EventTime


HERE = Path(__file__).parent
departures = FileSource(HERE / "departures", Departure, format="parquet")
arrivals = FileSource(HERE / "arrivals", Arrival, format="parquet")

airport = Entity("airport", key="origin")
carrier_at_airport = Entity("carrier_at_airport", keys=["origin", "carrier"])
aircraft = Entity("aircraft", key="tailnum")

late = Departure.delay > 15
LATELY = ["1h", "3h", "1d"]


class AirportDelays(FeatureView, source=departures, entity=airport):
    flights = Departure.count(last=LATELY)  # flights_1h, flights_3h, flights_1d
    delay_mean = Departure.delay.mean(last=LATELY)
    late_share = late.mean(last=LATELY)
    worsening = derived(delay_mean["1h"] - delay_mean["1d"])


class CarrierAtAirport(FeatureView, source=departures, entity=carrier_at_airport):
    flights = Departure.count(last=LATELY)
    delay_mean = Departure.delay.mean(last=LATELY)
    late_share = late.mean(last=LATELY)


class AircraftDelays(FeatureView, source=departures, entity=aircraft):
    flights = Departure.count(last=LATELY)
    delay_mean = Departure.delay.mean(last=LATELY)
    late_share = late.mean(last=LATELY)
    last_delay = Departure.delay.last(last="1d")


class AircraftLandings(FeatureView, source=arrivals, entity=aircraft):
    landings = Arrival.count(last="1d")
    delay_mean = Arrival.delay.mean(last="1d")
    last_delay = Arrival.delay.last(last="1d")
