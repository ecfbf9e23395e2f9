"""Writes meters.parquet: three days of three households' meters, a reading each five minutes. Seeded: the same rows
every time."""

import math
import random
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).with_name("meters.parquet")
OSLO = ZoneInfo("Europe/Oslo")
STEP = timedelta(minutes=5)
HOUSEHOLDS = {"H-1": (180, 900), "H-2": (320, 1600), "H-3": (90, 420)}


def made() -> pa.Table:
    """household, watts (null where the meter did not answer), at (local time, without a zone)."""
    draw = random.Random(5)
    rows = []
    at = datetime(2026, 3, 9, tzinfo=OSLO)
    while at < datetime(2026, 3, 12, tzinfo=OSLO):
        hour = at.hour + at.minute / 60
        busy = math.exp(-((hour - 7.5) ** 2) / 3) + 1.6 * math.exp(-((hour - 19) ** 2) / 6)
        for household, (idle, more) in HOUSEHOLDS.items():
            watts = idle + more * busy * draw.uniform(0.7, 1.3)
            if household == "H-2" and at.day == 11 and hour >= 14:
                watts += 2200  # an oven that nobody turned off
            rows.append((household, None if draw.random() < 0.01 else round(watts, 1), at.replace(tzinfo=None)))
        at += STEP
    households, watts_of, instants = zip(*rows, strict=True)
    return pa.table({"household": households, "watts": pa.array(watts_of, pa.float64()), "at": pa.array(instants)})


if __name__ == "__main__":
    pq.write_table(made(), FILE, compression="zstd")
