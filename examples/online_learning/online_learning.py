"""How long will this ride take? A River model that predicts as a ride begins and learns as it ends, in one flow.

python online_learning.py    replays three days beside a model that was trained once: README.md shows what it prints
"""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from river.linear_model import LinearRegression
from river.optim import SGD

from headrace import Event, EventTime, FileSource, Flow, ParquetSink, run

HERE = Path(__file__).parent
CITY = "Oslo"


class Ride(Event):
    ride: int
    km: float
    north: bool
    at: EventTime


class Arrival(Event):
    ride: int
    minutes: float
    at: EventTime


class Told(Event):
    """What the model hears, in order: a ride begins, or one that began earlier has ended."""

    city: str
    ride: int
    km: float
    north: bool
    hour: float
    minutes: float | None
    at: EventTime


class Guess(Event):
    ride: int
    guess: float
    at: EventTime


def begun(ride: Ride) -> dict[str, object]:
    hour = ride.at.hour + ride.at.minute / 60
    return {"city": CITY, "ride": ride.ride, "km": ride.km, "north": ride.north, "hour": hour}


def ended(arrival: Arrival, ride: Ride | None) -> dict[str, object] | None:
    """The label, with what was known of the ride when it began."""
    return None if ride is None else {**begun(ride), "minutes": arrival.minutes}


def known(told: Told) -> dict[str, float]:
    """What a prediction is made of."""
    tens, rush = told.km / 10, 7 <= told.hour < 9.5 or 16 <= told.hour < 19
    return {"km": tens, "north": tens * told.north, "rush": tens * rush}


class Model:
    """One model for the city, an object in the checkpoint: after a restart it knows what it knew."""

    def __init__(self) -> None:
        self.model = LinearRegression(optimizer=SGD(0.02))

    def on_event(self, told: Told) -> dict[str, object] | None:
        if told.minutes is None:
            return {"ride": told.ride, "guess": self.model.predict_one(known(told))}
        self.model.learn_one(known(told), told.minutes)
        return None


def flow_into(folder: str) -> Flow:
    flow = Flow("online_learning")
    rides = flow.read(FileSource(HERE / "rides.parquet", Ride, name="rides"))
    arrivals = flow.read(FileSource(HERE / "arrivals.parquet", Arrival, name="arrivals"))
    begins = rides.map_rows(begun, gives=Told)
    labels = arrivals.key_by("ride").lookup(rides.key_by("ride"), ended, valid_for="6h", gives=Told, name="labels")
    told = labels.merge(begins, name="told")
    guesses = told.key_by("city").stateful(Model, gives=Guess, name="guesses")
    guesses.write(ParquetSink(folder))
    return flow


flow = flow_into("guesses")


def main(data: Path) -> None:
    run([flow_into(str(data / "guesses"))], data / "run")
    rides = pq.read_table(HERE / "rides.parquet").to_pandas()
    rows = rides.merge(pq.read_table(HERE / "arrivals.parquet").to_pandas()[["ride", "minutes"]], on="ride")
    rows = rows.merge(pq.read_table(data / "guesses").to_pandas()[["ride", "guess"]], on="ride")

    # The other one: the same model, trained on the first day and never again.
    rows["hour"] = rows["at"].dt.hour + rows["at"].dt.minute / 60
    first = rows["at"] < "2026-03-03T00:00Z"
    once = Model().model
    for row in rows[first].itertuples():
        once.learn_one(known(row), row.minutes)  # type: ignore[arg-type]
    rows["once"] = [once.predict_one(known(row)) for row in rows.itertuples()]  # type: ignore[arg-type]

    print(f"{len(rows):,} rides; mean errors in minutes: a model that goes on learning (#), one trained once (.)")
    for at, found in rows[~first].groupby(rows["at"].dt.floor("6h")):
        online, trained = ((found["minutes"] - found[name]).abs().mean() for name in ("guess", "once"))
        bars = f"{'#' * round(online * 4):<18}{'.' * round(trained * 4)}"
        print(f"  day {at:%d %H:%M}  {online:4.1f}  {trained:4.1f}  {bars}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
