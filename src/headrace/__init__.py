"""Machine-learning features from event streams: one definition, the same value live, replayed, in training and served.

    define      Event, EventTime, Entity, FeatureView, derived; FileSource, FrameSource, IterableSource, KafkaSource;
                Hopping, Tumbling, Session, LastN, Lifetime, Sliding; CustomAggregation
    run         run
    serve       FeatureService, Request, Client, EmbeddedStore
    train       training_set, OfflineLog
    test        headrace.testing.replay

Each name is loaded when it is first used, so that a model server which imports `Client` does not load the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.version import VERSION as __version__

if TYPE_CHECKING:
    from headrace.features import (
        CustomAggregation,
        Entity,
        Event,
        EventTime,
        FeatureService,
        FeatureView,
        FileSource,
        FrameSource,
        HeadraceError,
        Hopping,
        IterableSource,
        KafkaSource,
        LastN,
        Lifetime,
        Request,
        Session,
        Sliding,
        Tumbling,
        derived,
    )
    from headrace.flows.runner import run
    from headrace.materialize import training_set
    from headrace.serving import Client
    from headrace.stores.embedded import EmbeddedStore
    from headrace.stores.offline import OfflineLog

__all__ = [
    "Client",
    "CustomAggregation",
    "EmbeddedStore",
    "Entity",
    "Event",
    "EventTime",
    "FeatureService",
    "FeatureView",
    "FileSource",
    "FrameSource",
    "HeadraceError",
    "Hopping",
    "IterableSource",
    "KafkaSource",
    "LastN",
    "Lifetime",
    "OfflineLog",
    "Request",
    "Session",
    "Sliding",
    "Tumbling",
    "__version__",
    "derived",
    "run",
    "training_set",
]

_ELSEWHERE = {
    "run": "headrace.flows.runner",
    "training_set": "headrace.materialize",
    "Client": "headrace.serving",
    "EmbeddedStore": "headrace.stores.embedded",
    "OfflineLog": "headrace.stores.offline",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'headrace' has no attribute '{name}'")
    value = getattr(import_module(_ELSEWHERE.get(name, "headrace.features")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
