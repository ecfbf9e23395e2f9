"""Is this payment made by the owner of the card? Features that tell, from a stream of payments.

python payments.py       replays the day and asks for one card: README.md shows what it prints
"""

import tempfile
from pathlib import Path

from headrace import (
    Client,
    EmbeddedStore,
    Entity,
    Event,
    EventTime,
    FeatureView,
    FileSource,
    OfflineLog,
    derived,
    run,
    training_set,
)

HERE = Path(__file__).parent


class Payment(Event):
    payment_id: str
    card: str
    amount: float
    shop: str
    city: str
    at: EventTime


# A payment is reported up to two minutes after a newer one and counts everywhere; reported twice, it counts once.
payments = FileSource(HERE / "payments.jsonl", Payment, lateness="2m", dedup="payment_id")
card = Entity("card", key="card")
tiny = Payment.where(Payment.amount < 2)


class CardUse(FeatureView, source=payments, entity=card):
    payments_10m = Payment.count(last="10m", exact=True)
    tiny_1h = tiny.count(last="1h")
    cities_3h = Payment.city.distinct(last="3h")
    spent_1h = Payment.amount.sum(last="1h")
    usual = Payment.amount.quantile(0.5, last="1d")
    times_usual = derived(Payment.amount.last(last="1d") / usual)
    by_shop = Payment.amount.sum(last="1h", by=Payment.shop)


def main(data: Path) -> None:
    summary = run([CardUse], data)
    print(f"{summary.taken} payments, {summary.duplicates} reported twice, not taken: {dict(summary.dead)}")

    print("\nThe afternoon of card-7, as of these instants:")
    times = ["12:00", "14:30", "14:32", "14:35", "14:36", "14:46", "16:00"]
    spine = [{"card": "card-7", "event_timestamp": f"2026-03-02T{time}:00Z"} for time in times]
    columns = ["payments_10m", "tiny_1h", "cities_3h", "spent_1h", "times_usual"]
    print("      ", *(f"{name:>12}" for name in columns))
    for time, row in zip(times, training_set(spine, CardUse, log=OfflineLog(data / "log")).to_pylist(), strict=True):
        print(f"{time:>6} ", *(f"{row[name]:12.4g}" for name in columns))

    print("\nAt the day's end, as a model server asks:")
    vector = Client(EmbeddedStore(data / "online", read_only=True)).get(CardUse, card="card-7")
    for name, value in vector.items():
        shown = f"{value:.2f}" if isinstance(value, float) else value
        print(f"  {name:<13} {shown!s:<6} {vector.status[name]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
