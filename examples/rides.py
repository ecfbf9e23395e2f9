"""Ride hailing: how many pickups did a driver do in the last 30 minutes? The features of a driver, live from Kafka.

    headrace run examples/rides.py                          takes rides from Kafka as they come
    python examples/rides_generator.py --rate 1000          a city that sends them

The story, the lookups and what you see: examples/rides/README.md.
"""

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource, derived


class Ride(Event):
    ride_id: str
    driver_id: str
    status: str  # "pickup", then "dropoff"; or "cancelled"
    zone: str
    surge: float
    km: float | None  # a dropoff has these three
    minutes: float | None
    fare: float | None
    at: EventTime


# The topic is keyed by the driver. A phone may report ten seconds late, and its ride still counts everywhere.
rides = KafkaSource("rides", Ride, keyed_by="driver_id", lateness="10s", idle_after="1m")
driver = Entity("driver", key="driver_id")

pickup = Ride.where(Ride.status == "pickup")
dropoff = Ride.where(Ride.status == "dropoff")
cancelled = Ride.where(Ride.status == "cancelled")


class DriverActivity(FeatureView, source=rides, entity=driver, ttl="1d"):
    pickups_30m = pickup.count(last="30m")
    earned = Ride.fare.sum(last=["30m", "6h"])  # earned_30m and earned_6h
    minutes_mean_30m = Ride.minutes.mean(last="30m")
    euro_per_km_30m = derived(earned["30m"] / Ride.km.sum(last="30m"))
    cancelled_share_6h = derived(cancelled.count(last="6h") / Ride.count(last="6h"), default=0.0)
    zones_30m = Ride.zone.distinct(last="30m")
    last_zone = Ride.zone.last(last="30m")
