"""Writes clicks.jsonl: a day of a shop's visitors, page by page. Seeded: the same file every time."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

FILE = Path(__file__).with_name("clicks.jsonl")
MORNING = datetime(2026, 3, 2, 7, tzinfo=UTC)
ITEMS = {
    "tents": ["ridge-2", "dome-3", "tunnel-4"],
    "boots": ["fell", "ridge-mid", "winter"],
    "stoves": ["gas-one", "wood", "alcohol"],
    "maps": ["alps", "fjords", "highlands"],
}


def made() -> list[dict[str, object]]:
    """Clicks in order of time: a visitor comes once to three times a day and stays with one or two categories."""
    draw = random.Random(3)
    clicks: list[dict[str, object]] = []
    for visitor in range(40):
        for _ in range(draw.randint(1, 3)):
            at = MORNING + timedelta(seconds=draw.randint(0, 13 * 3600))
            categories = draw.sample(list(ITEMS), draw.choice([1, 1, 2]))
            for _ in range(draw.randint(1, 12)):
                category = draw.choice(categories)
                action = draw.choices(["view", "cart", "buy"], weights=[16, 3, 1])[0]
                clicks.append(click(f"v-{visitor}", category, draw.choice(ITEMS[category]), action, at))
                at += timedelta(seconds=draw.expovariate(1 / 60))
    for minute, category, item, action in [  # one visitor, whose evening the page tells
        (0, "boots", "fell", "view"),
        (2, "boots", "winter", "view"),
        (3, "maps", "fjords", "view"),
        (5, "boots", "winter", "cart"),
        (52, "tents", "dome-3", "view"),
        (53, "tents", "tunnel-4", "view"),
        (58, "tents", "tunnel-4", "cart"),
        (59, "stoves", "gas-one", "view"),
        (61, "tents", "tunnel-4", "buy"),
    ]:
        clicks.append(click("v-100", category, item, action, MORNING + timedelta(hours=12, minutes=minute)))
    return sorted(clicks, key=lambda each: str(each["at"]))


def click(visitor: str, category: str, item: str, action: str, at: datetime) -> dict[str, object]:
    instant = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"visitor": visitor, "category": category, "item": item, "action": action, "at": instant}


if __name__ == "__main__":
    FILE.write_text("".join(json.dumps(each) + "\n" for each in made()))
