"""Writes rides.parquet and arrivals.parquet: three days of rides, and when each came to its end.

From the second noon on there are road works in the north. Seeded: the same tables every time.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

RIDES = Path(__file__).with_name("rides.parquet")
ARRIVALS = Path(__file__).with_name("arrivals.parquet")
START = datetime(2026, 3, 2, tzinfo=UTC)
WORKS = START + timedelta(days=1, hours=12)


def made() -> tuple[pa.Table, pa.Table]:
    """Rides as they begin, arrivals as they end, each in order of time."""
    draw = random.Random(21)
    rides, arrivals = [], []
    at = START
    for number in range(6000):
        at += timedelta(seconds=draw.expovariate(1 / 43))
        km, north = draw.uniform(0.5, 14), draw.random() < 0.4
        hour = at.hour + at.minute / 60
        rush = math.exp(-((hour - 8) ** 2) / 4) + math.exp(-((hour - 17.5) ** 2) / 6)
        minutes = 3 + km * (1.7 + 1.2 * rush) * draw.uniform(0.85, 1.2)
        if north and at >= WORKS:
            minutes *= 1.8
        rides.append((number, km, north, at))
        arrivals.append((number, round(minutes, 2), at + timedelta(minutes=minutes)))
    arrivals.sort(key=lambda row: row[2])
    one, two = zip(*rides, strict=True), zip(*arrivals, strict=True)
    ride, km, north, began = map(list, one)
    arrived, minutes, ended = map(list, two)
    return (
        pa.table({"ride": ride, "km": km, "north": north, "at": pa.array(began)}),
        pa.table({"ride": arrived, "minutes": minutes, "at": pa.array(ended)}),
    )


if __name__ == "__main__":
    for file, table in zip((RIDES, ARRIVALS), made(), strict=True):
        pq.write_table(table, file, compression="zstd")
