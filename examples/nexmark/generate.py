"""An auction house's events, after Nexmark: of fifty, one person, three auctions and forty-six bids.

Half of the bids go to one of the newest auctions, half of the auctions are one busy seller's. Seeded: the same tables
for the same number of events. `python generate.py 1000000` says how fast that many are made.
"""

import random
import sys
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa

START = datetime(2026, 3, 2, tzinfo=UTC)
STEP = timedelta(milliseconds=10)
PERSONS, AUCTIONS, OF = 1, 3, 50
STATES = ["AZ", "CA", "ID", "OR", "WA", "WY"]
CITIES = ["Phoenix", "Los Angeles", "Boise", "Portland", "Seattle", "Cheyenne"]
Columns = dict[str, list[object]]


def made(events: int = 20_000) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Persons, auctions and bids, each in order of time."""
    draw = random.Random(2008)
    persons: list[tuple[object, ...]] = []
    auctions: list[tuple[object, ...]] = []
    bids: list[tuple[object, ...]] = []
    ends: set[datetime] = set()
    for number in range(events):
        at, of = START + number * STEP, number % OF
        if of < PERSONS:
            home = draw.randrange(len(STATES))
            persons.append((len(persons), f"person {len(persons)}", CITIES[home], STATES[home], at))
        elif of < PERSONS + AUCTIONS:
            hot = draw.random() < 0.5
            seller = len(persons) - 1 - (len(persons) - 1) % 10 if hot else draw.randrange(len(persons))
            expires = at + timedelta(milliseconds=draw.randrange(2_000, 12_000))
            while expires in ends:  # no two end in the same millisecond
                expires += timedelta(milliseconds=1)
            ends.add(expires)
            auctions.append((len(auctions), seller, 10 + draw.randrange(5), draw.randrange(1, 100), expires, at))
        else:
            newest = len(auctions) - 1
            auction = newest - newest % 5 if draw.random() < 0.5 else max(0, newest - draw.randrange(60))
            bids.append((auction, draw.randrange(max(1, len(persons) - 30), len(persons) + 1) - 1,
                         round(10 ** draw.uniform(0.5, 3.5)), at))  # fmt: skip
    return (
        _table(["id", "name", "city", "state", "at"], persons),
        _table(["id", "seller", "category", "reserve", "expires", "at"], auctions),
        _table(["auction", "bidder", "price", "at"], bids),
    )


def _table(names: list[str], rows: list[tuple[object, ...]]) -> pa.Table:
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


if __name__ == "__main__":
    began, count = time.perf_counter(), int(sys.argv[1])
    made(count)
    print(f"{count / (time.perf_counter() - began):,.0f} events a second")
