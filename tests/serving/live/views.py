"""What the server of these tests serves: two views of different entities, and a service that computes on demand."""

from headrace.features import Entity, Event, EventTime, FeatureService, FeatureView, IterableSource, Request, derived


class Visit(Event):
    user: str
    shop: int
    amount: float
    at: EventTime


visits = IterableSource([], Visit)


class ByUser(FeatureView, source=visits, entity=Entity("user", key="user")):
    visits = Visit.count(last="1h")
    total = Visit.amount.sum(last="1h")


class ByShop(FeatureView, source=visits, entity=Entity("shop", key="shop")):
    most = Visit.amount.max(last="1h")


checks = FeatureService(
    "checks",
    [ByUser["visits"], ByUser["total"], ByShop],
    derived={"above": derived(Request("amount", float) - ByUser["total"])},
)
