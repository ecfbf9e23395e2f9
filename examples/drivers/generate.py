"""Writes reports.parquet: three hours of a city's drivers, who report where they are, and when somebody gets in.

Seeded: the same table every time.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).with_name("reports.parquet")
START = datetime(2026, 3, 2, 16, tzinfo=UTC)
STEP = timedelta(seconds=40)


def made() -> pa.Table:
    draw = random.Random(12)
    rows = []
    for number in range(30):
        x, y, busy_until = draw.uniform(0, 10), draw.uniform(0, 10), 0
        eager = draw.uniform(0.02, 0.12)  # how likely somebody gets in, at each report
        ends = 110 if number == 4 else 270  # one goes home early
        for step in range(ends):
            at = START + step * STEP + timedelta(seconds=draw.randrange(30))
            pull = math.hypot(x - 5, y - 5) / 20  # the centre pulls
            x += draw.gauss(0, 0.12) + (5 - x) * pull / 40
            y += draw.gauss(0, 0.12) + (5 - y) * pull / 40
            free = step >= busy_until
            got_in = free and draw.random() < eager
            if got_in:
                busy_until = step + draw.randrange(8, 20)
            rows.append((f"driver-{number}", round(x, 3), round(y, 3), free and not got_in, got_in, at))
    rows.sort(key=lambda row: row[5])
    drivers, xs, ys, free, got_in, instants = zip(*rows, strict=True)
    return pa.table({"driver_id": drivers, "x": xs, "y": ys, "free": free, "pickup": got_in, "at": pa.array(instants)})


if __name__ == "__main__":
    pq.write_table(made(), FILE, compression="zstd")
