"""Views with features of every type, keys of both kinds, and a service of several of them."""

from headrace.features import Entity, FeatureService, FeatureView, Lifetime, Request, derived
from headrace.features.views import definition
from headrace.stores.testing import VISITS, EveryType, Visit


class Drivers(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="2h"):
    """Every type that a feature can have."""

    visits = Visit.count(last="1h")
    most = Visit.times.max(last="1h")
    total = Visit.amount.sum(last="1h")
    mean = Visit.amount.mean(last="1h", default=-1.0)
    city = Visit.city.last(over=Lifetime())
    home = Visit.city.first(over=Lifetime(), default="nowhere")
    paid = Visit.paid.last(over=Lifetime())
    raw = Visit.raw.last(over=Lifetime())
    seen = Visit.seen.last(over=Lifetime())
    times = Visit.times.last_n(3, over=Lifetime())
    amounts = Visit.amount.last_n(3, over=Lifetime())
    cities = Visit.city.last_n(3, over=Lifetime())
    paids = Visit.paid.last_n(3, over=Lifetime())
    raws = Visit.raw.last_n(3, over=Lifetime())
    seens = Visit.seen.last_n(3, over=Lifetime())
    by_city = Visit.count(last="1h", by=Visit.city)
    by_shop = Visit.amount.mean(last="1h", by=Visit.shop)


class Shops(FeatureView, source=VISITS, entity=Entity("shop", key="shop")):
    """Decays, and never grows too old."""

    visits = Visit.count(last="1h")
    fade = Visit.amount.decayed_sum("1h", over=Lifetime())
    double = derived(fade * 2)


class Pairs(FeatureView, source=VISITS, entity=Entity("pair", keys=["user", "shop"]), ttl="30m"):
    """Of an entity with two keys."""

    visits = Visit.count(last="1h")
    paid = Visit.paid.last(over=Lifetime(), default=False)


VIEWS = tuple(map(definition, (Drivers, Shops, Pairs)))
ALL = [f"{view.name}:{feature}" for view in VIEWS for feature in view.feature_names()]
"""Every feature, as a list asks for it."""

amount = Request("amount", float)
PRICING = FeatureService(
    "pricing",
    [Drivers["mean", "visits"], Shops["visits"], Pairs],
    derived={"to_mean": derived(amount / Drivers["mean"], default=0.0)},
)
PLAIN = FeatureService("plain", [Drivers["mean", "visits"], Shops["fade"]])
"""Without features on demand: what Feast can register, too."""

KNOWN = (*VIEWS, EveryType, PLAIN, PRICING)
"""All that servers of this file serve."""
