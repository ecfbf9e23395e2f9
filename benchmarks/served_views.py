"""What the benchmarks of lookups serve: a view `fv` of 50 features, f0 to f49, floats and integers in turn.

headrace serve benchmarks/served_views.py --online redis://127.0.0.1:6379/0 --project bench
"""

from types import new_class

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource

FEATURES = 50
NAMES = tuple(f"f{at}" for at in range(FEATURES))
PROJECT = "bench"


class Purchase(Event):
    user_id: int
    amount: float
    at: EventTime


purchases = IterableSource([], Purchase)

Fifty = new_class(
    "Fifty",
    (FeatureView,),
    {"source": purchases, "entity": Entity("user_id", key="user_id"), "name": "fv"},
    lambda body: body.update(
        {
            name: Purchase.count(last=f"{at + 1}m") if at % 2 else Purchase.amount.mean(last=f"{at + 1}m")
            for at, name in enumerate(NAMES)
        }
    ),
)
