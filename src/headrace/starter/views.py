"""What drivers have been doing lately: the features of this project.

Try them from a shell:

    headrace views views.py        what is defined here, and how exact it is
    headrace run views.py          replays rides.csv
    headrace get driver_activity driver_id=1
"""

from pathlib import Path

from headrace.features import Entity, Event, EventTime, FeatureView, FileSource, derived


class Ride(Event):
    ride_id: str
    driver_id: str
    fare: float | None  # a cancelled ride has none
    city: str
    status: str
    at: EventTime


# A ride may be reported up to ten minutes after a newer one and still counts everywhere; one sent twice counts once.
rides = FileSource(Path(__file__).with_name("rides.csv"), Ride, lateness="10m", dedup="ride_id")
driver = Entity("driver", key="driver_id")
done = Ride.where(Ride.status == "completed")


class DriverActivity(FeatureView, source=rides, entity=driver, ttl="7d"):
    rides_30m = Ride.count(last="30m")
    fare_mean = Ride.fare.mean(last=["1h", "6h"])  # fare_mean_1h and fare_mean_6h
    completed_6h = done.count(last="6h")
    completion_rate = derived(completed_6h / Ride.count(last="6h"), default=0.0)
    last_city = Ride.city.last(last="6h")
