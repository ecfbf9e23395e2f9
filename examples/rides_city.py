"""The city that `rides_generator.py` sends the rides of: zones, hours, drivers, and the messages they send.

It knows no Kafka. The same city for the same seed: what happens, who reports late and what arrives broken.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from math import hypot
from typing import Any, NamedTuple

import msgspec


@dataclass(frozen=True)
class Zone:
    """Where it lies, kilometres from the centre, and how much there is to ride to."""

    name: str
    east: float
    north: float
    homes: float
    offices: float
    bars: float

    def km(self, other: Zone) -> float:
        """By road: a quarter more than as the crow flies, and never nothing."""
        return 0.8 + 1.25 * hypot(self.east - other.east, self.north - other.north)


CITY = (
    Zone("Centre", 0.0, 0.0, homes=2, offices=9, bars=6),
    Zone("Old Town", 1.0, -0.6, homes=3, offices=3, bars=9),
    Zone("University", -1.8, 1.2, homes=4, offices=5, bars=5),
    Zone("Docklands", 3.2, -1.8, homes=3, offices=7, bars=3),
    Zone("Southbank", 0.6, -3.4, homes=7, offices=3, bars=4),
    Zone("Riverside", 4.1, 1.5, homes=7, offices=2, bars=2),
    Zone("Hillside", -2.5, 3.8, homes=8, offices=1, bars=1),
    Zone("Westgate", -5.2, -0.8, homes=9, offices=2, bars=1),
    Zone("Northfield", 0.8, 6.1, homes=9, offices=1, bars=1),
    Zone("Stadium", -3.6, -3.1, homes=2, offices=1, bars=4),
    Zone("Tech Park", 6.5, 3.9, homes=1, offices=8, bars=0.5),
    Zone("Airport", 11.5, 6.2, homes=1, offices=3, bars=0.5),
)


class Draw:
    """Draws zones by weight."""

    def __init__(self, weights: list[float]) -> None:
        self._upto = list(accumulate(weights))

    def __call__(self, rng: random.Random) -> int:
        return bisect(self._upto, rng.random() * self._upto[-1])


class Hour:
    """What people do in one hour of the day: where they call for a ride, where they go, and how busy it is."""

    def __init__(self, hour: int) -> None:
        # How much of each purpose: to work, home again, out to the bars, and errands between any two zones.
        work = {6: 2.0, 7: 6.0, 8: 9.0, 9: 5.0}.get(hour, 0.4)
        home = {15: 2.0, 16: 5.0, 17: 9.0, 18: 8.0, 19: 4.0}.get(hour, 0.6)
        out = {19: 3.0, 20: 6.0, 21: 6.0, 22: 5.0}.get(hour, 0.2)
        back = {22: 2.0, 23: 5.0, 0: 6.0, 1: 5.0, 2: 3.0}.get(hour, 0.2)
        errands = 2.0 if 6 <= hour < 22 else 0.5
        self.busy = min(1.0, (work + home + out + back + errands) / 14)
        self.km_per_minute = 0.75 - 0.45 * self.busy
        calls = [
            (work + out) * z.homes + home * z.offices + back * z.bars + errands * (z.homes + z.offices) / 2
            for z in CITY
        ]
        self.calls = Draw(calls)
        self.demand = [each / max(calls) for each in calls]
        goals = [
            work * z.offices + (home + back) * z.homes + out * z.bars + errands * (z.homes + z.offices) for z in CITY
        ]
        self.goals = [
            Draw(
                [goal / (1 + z.km(origin) / 5) if z is not origin else 0.0 for goal, z in zip(goals, CITY, strict=True)]
            )
            for origin in CITY
        ]


HOURS = tuple(Hour(hour) for hour in range(24))


@dataclass
class Driver:
    """Where the driver is, and the ride under way, if any."""

    name: str
    zone: int
    ride: str = ""
    goal: int = 0
    minutes: float = 0.0
    surge: float = 1.0


class City:
    """All drivers; `step` gives the next thing that one of them does. The same for the same seed and hours."""

    def __init__(self, drivers: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self._drivers = [Driver(f"driver-{n}", HOURS[8].calls(self._rng)) for n in range(1, drivers + 1)]
        # When each does something next, in minutes of the city's own time; how fast that passes is the rate's matter.
        self._next = [(self._rng.uniform(0, 20), n) for n in range(drivers)]
        heapq.heapify(self._next)
        self._rides = 0

    def step(self, hour: Hour) -> dict[str, Any]:
        """A pickup, a dropoff or a cancelled call, without its time."""
        now, n = self._next[0]
        driver, rng = self._drivers[n], self._rng
        if driver.ride:
            event, minutes = self._drop_off(driver), self._wait(driver, hour)
        else:
            self._rides += 1
            driver.ride = f"ride-{self._rides}"
            driver.surge = round(1 + 0.8 * hour.busy * hour.demand[driver.zone] * rng.random(), 2)
            if rng.random() < 0.07:
                event, minutes = self._report(driver, "cancelled"), rng.uniform(1, 6)
                driver.ride = ""
            else:
                event, minutes = self._report(driver, "pickup"), self._set_off(driver, hour)
        heapq.heapreplace(self._next, (now + minutes, n))
        return event

    def _set_off(self, driver: Driver, hour: Hour) -> float:
        driver.goal = hour.goals[driver.zone](self._rng)
        km = CITY[driver.zone].km(CITY[driver.goal])
        driver.minutes = round(2 + km / hour.km_per_minute * self._rng.uniform(0.8, 1.5), 1)
        return driver.minutes

    def _drop_off(self, driver: Driver) -> dict[str, Any]:
        km = round(CITY[driver.zone].km(CITY[driver.goal]), 1)
        fare = round((2.4 + 1.1 * km + 0.25 * driver.minutes) * driver.surge, 2)
        driver.zone = driver.goal
        event = self._report(driver, "dropoff") | {"km": km, "minutes": driver.minutes, "fare": fare}
        driver.ride = ""
        return event

    def _wait(self, driver: Driver, hour: Hour) -> float:
        """Minutes until the next call; where few call, the driver soon moves on to a zone where more do."""
        minutes = 1 + 4 * self._rng.expovariate(1)
        if self._rng.random() > hour.demand[driver.zone]:
            there = hour.calls(self._rng)
            minutes += CITY[driver.zone].km(CITY[there]) / hour.km_per_minute
            driver.zone = there
        return minutes

    def _report(self, driver: Driver, status: str) -> dict[str, Any]:
        zone = CITY[driver.zone].name
        return {
            "ride_id": driver.ride,
            "driver_id": driver.name,
            "status": status,
            "zone": zone,
            "surge": driver.surge,
        }


class Message(NamedTuple):
    """One message of the topic: `due` seconds after the start; what it is: "ride", "late" or "bad"."""

    due: float
    key: bytes
    payload: bytes
    kind: str


_encode = msgspec.json.Encoder().encode


def messages(*, rate: float, drivers: int, late: float, bad: float, seed: int, start: datetime) -> Iterator[Message]:
    """The topic's messages in the order of their arrival, without end; `rate` a second.

    late: share of the events that are reported 0.5 to 8 s late, one in fifty of them 1 to 5 minutes. bad: share of the
    messages that are no ride.
    """
    city, noise = City(drivers, seed), random.Random(seed + 1)
    held: list[tuple[float, int, Message]] = []
    number = 0
    while True:
        due = number / rate
        while held and held[0][0] <= due:
            yield heapq.heappop(held)[2]
        at = start + timedelta(seconds=due - noise.uniform(0, 0.3))  # told by phones, whose reports take their time
        event = city.step(HOURS[at.hour])
        event["at"] = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
        key, payload = event["driver_id"].encode(), _encode(event)
        number += 1
        if noise.random() < bad:
            yield Message(due, key, broken(event, payload, noise), "bad")
        if noise.random() < late:
            due += noise.uniform(60, 300) if noise.random() < 0.02 else noise.uniform(0.5, 8)
            heapq.heappush(held, (due, number, Message(due, key, payload, "late")))
        else:
            yield Message(due, key, payload, "ride")


def broken(event: dict[str, Any], payload: bytes, rng: random.Random) -> bytes:
    """A message that no ride can be read from, of one kind or another."""
    return rng.choice(
        (
            payload[: len(payload) // 2],  # cut off
            b"\x16\x03\x01\x02\x00\x01\xfc",  # somebody tried TLS
            _encode(event | {"surge": "lots"}),
            _encode({name: value for name, value in event.items() if name != "driver_id"}),
            _encode(event | {"at": "yesterday"}),
        )
    )
