"""Who should take this ride? Drivers ranked by how near they are and how few pickups they had in the last 30 minutes.

python drivers.py        replays three hours and ranks the drivers for two customers: README.md shows what it prints
"""

import math
import tempfile
from pathlib import Path

from headrace import (
    Client,
    EmbeddedStore,
    Entity,
    Event,
    EventTime,
    FeatureService,
    FeatureView,
    FileSource,
    Request,
    derived,
    run,
)

HERE = Path(__file__).parent


class Report(Event):
    driver_id: str
    x: float
    y: float
    free: bool
    pickup: bool
    at: EventTime


reports = FileSource(HERE / "reports.parquet", Report, lateness="10s")


class Driver(FeatureView, source=reports, entity=Entity("driver", key="driver_id"), ttl="10m"):
    pickups_30m = Report.where(Report.pickup).count(last="30m", exact=True)
    x = Report.x.last(last="5m")
    y = Report.y.last(last="5m")
    free = Report.free.last(last="5m")


# What the ranking sees of a driver and a customer; the customer comes with the question.
to_x, to_y = Request("to_x", float), Request("to_y", float)
km_x, km_y = Driver["x"] - to_x, Driver["y"] - to_y
ranking = FeatureService(
    "ranking",
    [Driver["pickups_30m", "free"]],
    derived={"away2": derived(km_x * km_x + km_y * km_y)},
)


def score(km: float, pickups: float) -> float:
    """The lower the better: each pickup of the last half an hour weighs as much as a kilometre and a half."""
    return km + 1.5 * pickups


def main(data: Path) -> None:
    summary = run([Driver], data)
    print(f"{summary.taken:,} reports of {summary.entities['driver']} drivers")
    client = Client(EmbeddedStore(data / "online", read_only=True))
    drivers = [{"driver_id": f"driver-{number}"} for number in range(30)]
    for who, x, y in (("At the station", 5.0, 5.2), ("At the harbour", 1.5, 8.0)):
        request = {"to_x": [x] * len(drivers), "to_y": [y] * len(drivers)}
        asked = client.features(ranking, drivers, request=request).to_pandas()
        free = asked[asked["free"].eq(other=True)].copy()
        free["km"] = free["away2"].map(math.sqrt)
        free["score"] = [score(km, pickups) for km, pickups in zip(free["km"], free["pickups_30m"], strict=True)]
        print(f"\n{who}: {len(free)} of {len(asked)} drivers are there and free")
        for _, row in free.sort_values("score").head(5).iterrows():
            figures = f"{row['km']:4.1f} km  {row['pickups_30m']:.0f} pickups  score {row['score']:.1f}"
            print(f"  {row['driver_id']:<10} {figures}")
    home = client.get(Driver, driver_id="driver-4")
    print(f"\ndriver-4 went home an hour and a half ago: x is {home['x']}, {home.status['x'].name}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
