"""Writes payments.parquet: two weeks of 160 cards, some of which are stolen. Seeded: the same rows every time.

`fraud` is what the owner says weeks later: the label, never a feature.
"""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).with_name("payments.parquet")
START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 14
CITIES = ["Lyon", "Nantes", "Lille", "Nice", "Metz"]
SHOPS = {
    f"shop-{number}": (low, high) for number, (low, high) in enumerate([(4, 18), (10, 70), (25, 90), (30, 400)] * 6)
}


def made() -> pa.Table:
    """Payments in order of time: card, amount, shop, city, at, fraud."""
    draw = random.Random(20)
    rows = []
    for number in range(160):
        card, home, taste = f"card-{number}", draw.choice(CITIES), draw.uniform(0.5, 2)
        usual = draw.sample(list(SHOPS), 6)
        for day in range(DAYS):
            for _ in range(draw.choice([0, 1, 2, 2, 3, 4])):
                hour = min(max(draw.gauss(15, 4), 6), 23.5)
                shop = draw.choice(usual)
                city = home if draw.random() < 0.95 else draw.choice(CITIES)
                rows.append((card, draw.uniform(*SHOPS[shop]) * taste, shop, city, day * 24 + hour, False))
                if draw.random() < 0.06:  # something was forgotten
                    rows.append((card, draw.uniform(*SHOPS[shop]) * taste, shop, city, day * 24 + hour + 0.1, False))
    for theft in range(56):  # a stolen card is tried out, then used as long as it works
        card, city, times = f"card-{draw.randrange(160)}", draw.choice(CITIES), draw.randint(2, 7)
        at = draw.uniform(24, DAYS * 24 - 8)
        if theft == 0:  # the newest, which the page decides on
            card, times, at = "card-150", 5, DAYS * 24 - 0.3
        for _ in range(times):
            shop = draw.choice(list(SHOPS))
            amount = draw.choice([draw.uniform(0.5, 2), draw.uniform(*SHOPS[shop]) * draw.uniform(1, 4)])
            rows.append((card, amount, shop, city, at, True))
            at += draw.expovariate(12)
    rows.sort(key=lambda row: row[4])
    card, amount, shop, city, hour, fraud = zip(*rows, strict=True)
    return pa.table(
        {
            "card": card,
            "amount": [round(each, 2) for each in amount],
            "shop": shop,
            "city": city,
            "at": pa.array([START + timedelta(seconds=round(each * 3600)) for each in hour], pa.timestamp("ms", "UTC")),
            "fraud": fraud,
        }
    )


if __name__ == "__main__":
    pq.write_table(made(), FILE, compression="zstd")
