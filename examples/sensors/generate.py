"""Writes readings.parquet: two hours of three machines, of which two do something odd. Seeded: the same every time."""

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).with_name("readings.parquet")
START = datetime(2026, 3, 2, 6, tzinfo=UTC)
JAMS = {("press-2", 4000), ("press-2", 4001), ("press-2", 4002), ("mill-1", 5200)}
"""Machine and second: for a moment it is hot, loud, or both as never before."""


def made() -> pa.Table:
    draw = random.Random(3)
    rows = []
    for second in range(0, 7200, 2):
        at = START + timedelta(seconds=second, milliseconds=draw.randrange(900))
        for machine, heat, sound in (("press-1", 62.0, 0.9), ("press-2", 61.0, 1.0), ("mill-1", 48.0, 1.6)):
            warm = 1.5 * math.sin(second / 600)
            heat_now, sound_now = heat + warm + draw.gauss(0, 0.5), sound + draw.gauss(0, 0.06)
            if any(machine == jammed and abs(second - when) < 2 for jammed, when in JAMS):
                heat_now, sound_now = heat_now + 9, sound_now + 1.2
            if machine == "mill-1" and second > 3000:  # a bearing wears: a little louder, and for good
                sound_now += 0.25
            rows.append((machine, round(heat_now, 2), round(max(sound_now, 0.0), 3), at))
    machines, heats, sounds, instants = zip(*rows, strict=True)
    return pa.table({"machine": machines, "heat": heats, "sound": sounds, "at": pa.array(instants)})


if __name__ == "__main__":
    pq.write_table(made(), FILE, compression="zstd")
