"""Writes access.csv: an hour of a web server's log, a line a row, with a slow page, a scanner and broken lines in it.

Seeded: the same file every time.
"""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

FILE = Path(__file__).with_name("access.csv")
HOUR = datetime(2026, 3, 2, 9, tzinfo=UTC)
PAGES = ["/", "/shoes", "/shoes/41", "/shoes/7", "/cart", "/checkout", "/search?q=red", "/img/logo.svg"]
BROWSERS = ["Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (iPhone)", "Mozilla/5.0 (Windows NT 10.0)"]
PROBES = ["/wp-login.php", "/.env", "/admin.php", "/phpmyadmin/", "/.git/config", "/backup.zip"]

BROKEN = ["\x16\x03\x01\x02", '203.0.113.7 - - [oops] "GET / HTTP/1.1" 200 5', "OPTIONS sip:nm SIP/2.0"]


def line(address: str, at: datetime, path: str, status: int, size: int, agent: str, seconds: float) -> str:
    """A line in the combined format, with the time that the answer took behind it."""
    request = f'[{at:%d/%b/%Y:%H:%M:%S %z}] "GET {path} HTTP/1.1"'
    return f'{address} - - {request} {status} {size} "-" "{agent}" {seconds:.3f}'


def made() -> list[tuple[str, str]]:
    """When the server wrote each line, and the line."""
    draw = random.Random(4)
    found: list[tuple[datetime, str]] = []
    for _ in range(1800):
        at = HOUR + timedelta(seconds=round(draw.uniform(0, 3599)))
        path = draw.choices(PAGES, weights=[9, 6, 4, 4, 3, 1, 3, 12])[0]
        seconds, status = draw.expovariate(25) + 0.004, 200
        if path == "/checkout" and at.minute >= 35:  # a release at 9:35
            seconds, status = seconds + draw.uniform(1.5, 3), draw.choice([200, 200, 500])
        elif draw.random() < 0.01:
            status = 404
        address = f"203.0.113.{draw.randrange(120)}"
        found.append((at, line(address, at, path, status, draw.randrange(300, 20_000), draw.choice(BROWSERS), seconds)))
    for n in range(120):  # a scanner, for two minutes
        at = HOUR + timedelta(minutes=17, seconds=n)
        found.append((at, line("198.51.100.9", at, PROBES[n % len(PROBES)], 404, 153, "zgrab/0.x", 0.002)))
    for n, broken in enumerate(BROKEN):
        found.append((HOUR + timedelta(minutes=20 + n), broken))
    found.sort()
    return [(at.isoformat(), text) for at, text in found]


if __name__ == "__main__":
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["at", "line"])
        writer.writerows(made())
