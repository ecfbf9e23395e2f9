"""Writes payments.jsonl: one day of twelve cards, one of which is stolen. Seeded: the same file every time.

As streams are, it is a little out of order: a payment is reported up to ninety seconds after it was made. One is told
twice, and one terminal was offline for hours.
"""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

FILE = Path(__file__).with_name("payments.jsonl")
DAY = datetime(2026, 3, 2, tzinfo=UTC)
SHOPS = {"groceries": (8, 60), "cafe": (3, 12), "fuel": (30, 70), "books": (9, 35), "electronics": (40, 400)}


def made() -> list[dict[str, object]]:
    """The payments in the order in which they were made."""
    draw = random.Random(42)
    payments = []
    for card in range(1, 13):
        home = draw.choice(["Lyon", "Nantes", "Lille"])
        for _ in range(draw.randint(8, 22)):
            shop = draw.choices(list(SHOPS), weights=[5, 6, 2, 2, 1])[0]
            at = DAY + timedelta(seconds=draw.randint(7 * 3600, 22 * 3600))
            payments.append(payment(card, round(draw.uniform(*SHOPS[shop]), 2), shop, home, at))
    # Card 7 is copied at half past two and tried out before it is emptied, far from home.
    for minute, amount, shop in [
        (0, 1.0, "cafe"),
        (2, 1.5, "cafe"),
        (5, 389.0, "electronics"),
        (6, 395.0, "electronics"),
    ]:
        payments.append(payment(7, amount, shop, "Marseille", DAY + timedelta(hours=14, minutes=30 + minute)))
    payments.sort(key=lambda each: str(each["at"]))
    return [{"payment_id": f"p{number:03d}", **each} for number, each in enumerate(payments, start=1)]


def payment(card: int, amount: float, shop: str, city: str, at: datetime) -> dict[str, object]:
    return {"card": f"card-{card}", "amount": amount, "shop": shop, "city": city, "at": f"{at:%Y-%m-%dT%H:%M:%SZ}"}


def reported(payments: list[dict[str, object]]) -> list[dict[str, object]]:
    """The payments in the order in which they arrive."""
    draw = random.Random(7)
    offline = 40

    def arrival(number: int) -> datetime:
        at = datetime.fromisoformat(str(payments[number]["at"]))
        return at + (timedelta(hours=5) if number == offline else timedelta(seconds=draw.randint(0, 90)))

    order = sorted(range(len(payments)), key=arrival)
    order.insert(order.index(100) + 1, 100)
    return [payments[number] for number in order]


if __name__ == "__main__":
    FILE.write_text("".join(json.dumps(each) + "\n" for each in reported(made())))
