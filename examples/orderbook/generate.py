"""Writes updates.parquet: ten minutes of an exchange's order book for two pairs, as its feed sends it.

Each row sets the size that is offered at one price, 0 for nothing any more. Seeded: the same table every time.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).with_name("updates.parquet")
START = datetime(2026, 3, 2, 14, tzinfo=UTC)
PAIRS = {"BTC-EUR": (61_000.0, 1.0), "ETH-EUR": (3_150.0, 0.05)}
Update = tuple[str, str, float, float, datetime]


def made() -> pa.Table:
    draw = random.Random(9)
    rows: list[Update] = []
    for pair, (price, tick) in PAIRS.items():
        offered: dict[str, dict[int, float]] = {"bid": {}, "ask": {}}
        middle = round(price / tick)
        for n in range(2400):
            at = START + timedelta(milliseconds=250 * n + draw.randrange(200))
            # Sellers press from the fifth minute on, and the price follows.
            press = 1.0 if 1200 <= n < 1440 else 0.0
            middle += draw.choice([-1, 0, 0, 1]) if not press else -draw.choice([0, 0, 1])
            for side, away in (("bid", -1), ("ask", 1)):
                levels = offered[side]
                for level in [each for each in levels if (each - middle) * away <= 0]:  # taken by a trade
                    del levels[level]
                    rows.append((pair, side, round(level * tick, 2), 0.0, at))
                level = middle + away * (1 + int(draw.expovariate(0.4)))
                size = round(draw.expovariate(1.0) * (4.0 if press and side == "ask" else 1.0), 3) + 0.001
                levels[level] = size
                rows.append((pair, side, round(level * tick, 2), size, at))
                if len(levels) > 12:
                    far = max(levels, key=lambda each: math.fabs(each - middle))
                    del levels[far]
                    rows.append((pair, side, round(far * tick, 2), 0.0, at))
    rows.sort(key=lambda row: row[4])
    pairs, sides, prices, sizes, instants = zip(*rows, strict=True)
    return pa.table({"pair": pairs, "side": sides, "price": prices, "size": sizes, "at": pa.array(instants)})


if __name__ == "__main__":
    pq.write_table(made(), FILE, compression="zstd")
