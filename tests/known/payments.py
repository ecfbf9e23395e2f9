"""One small stream of payments that the known answers are about."""

from headrace.features import Entity, Event, EventTime, IterableSource


class Payment(Event):
    """A payment of a user."""

    user: str
    amount: float | None
    shop: str | None
    at: EventTime


user = Entity("user", key="user")
payments = IterableSource([], Payment)
patient = IterableSource([], Payment, lateness="4h")


def paid(at: str, amount: float | None = 1.0, shop: str | None = None, user: str = "u") -> dict[str, object]:
    return {"user": user, "amount": amount, "shop": shop, "at": at}
