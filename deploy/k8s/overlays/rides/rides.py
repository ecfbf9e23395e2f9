"""What drivers did in the last half hour; examples/rides.py has more of it."""

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource


class Ride(Event):
    ride_id: str
    driver_id: str
    status: str
    fare: float | None
    at: EventTime


rides = KafkaSource("rides", Ride, keyed_by="driver_id", lateness="10s", idle_after="1m")
driver = Entity("driver", key="driver_id")
pickup = Ride.where(Ride.status == "pickup")


class DriverActivity(FeatureView, source=rides, entity=driver, ttl="1d"):
    pickups_30m = pickup.count(last="30m")
    earned_30m = Ride.fare.sum(last="30m")
