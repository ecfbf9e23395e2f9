"""Writes signins.csv: an hour of sign-ins to a web shop, with three attacks in it. Seeded: the same file every time."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

FILE = Path(__file__).with_name("signins.csv")
HOUR = datetime(2026, 3, 2, 20, tzinfo=UTC)
Try = tuple[datetime, str, str, bool]


def made() -> list[Try]:
    """Instant, address, account, whether it succeeded; in order."""
    draw = random.Random(11)
    tries: list[Try] = []

    def at(minute: float) -> datetime:
        return HOUR + timedelta(milliseconds=round(minute * 60_000))

    for owner in range(140):  # owners, who mistype their password once in a while
        minute = draw.uniform(0, 59)
        address, account = f"203.0.113.{owner % 90}", f"user-{owner}"
        while draw.random() < 0.15:
            tries.append((at(minute), address, account, False))
            minute += draw.uniform(0.1, 0.4)
        tries.append((at(minute), address, account, True))
    # Guessing: one address, one account, a word list, and at last the right word.
    tries += [(at(12 + number / 12), "198.51.100.7", "user-33", number == 40) for number in range(41)]
    # Spraying: one address tries one frequent password on many accounts.
    tries += [(at(27 + number / 6), "198.51.100.66", f"user-{number * 2}", False) for number in range(36)]
    # Stuffing: hundreds of addresses, each a single try, all at one account.
    tries += [(at(41 + number / 5), f"192.0.2.{number * 5 % 251}", "user-101", False) for number in range(48)]
    return sorted(tries)


if __name__ == "__main__":
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["at", "address", "account", "ok"])
        for instant, address, account, ok in made():
            writer.writerow([instant.isoformat(timespec="milliseconds"), address, account, str(ok).lower()])
