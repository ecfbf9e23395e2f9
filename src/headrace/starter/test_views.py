"""The features, tested without any service: rows go in, the clock moves, values come out."""

from views import DriverActivity

from headrace.testing import replay


def ride(ride_id: str, at: str, fare: float) -> dict[str, object]:
    return {"ride_id": ride_id, "driver_id": "7", "fare": fare, "city": "Lyon", "status": "completed", "at": at}


def test_a_ride_counts_for_half_an_hour() -> None:
    with replay(DriverActivity, day="2026-01-01") as t:
        t.send([ride("a", "12:00", 10.0), ride("b", "12:10", 20.0)])
        assert t.get(driver_id="7")["rides_30m"] == 2

        t.at("12:41")  # no new ride: the value falls all the same
        row = t.get(driver_id="7")
        assert row["rides_30m"] == 0
        assert row["fare_mean_1h"] == 15.0
