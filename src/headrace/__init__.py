"""Machine-learning features from event streams: one definition, the same value live, replayed, in training and served.

    define      Event, EventTime, Entity, FeatureView, derived; FileSource, FrameSource, IterableSource, KafkaSource,
                PythonSource; Hopping, Tumbling, Session, LastN, Lifetime, Sliding; CustomAggregation
    compute     Flow: any Python between a source and a sink
    write       ParquetSink, DuckDBSink, RedisSink, KafkaSink, WebhookSink, CallableSink, StdoutSink
    run         run, backfill
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
        CallableSink,
        CustomAggregation,
        DuckDBSink,
        Entity,
        Event,
        EventTime,
        FeatureService,
        FeatureView,
        FileSource,
        Flow,
        FrameSource,
        HeadraceError,
        Hopping,
        IterableSource,
        KafkaSink,
        KafkaSource,
        LastN,
        Lifetime,
        ParquetSink,
        PythonSource,
        RedisSink,
        Request,
        Session,
        Sliding,
        StdoutSink,
        Tumbling,
        WebhookSink,
        derived,
    )
    from headrace.flows.backfill import backfill
    from headrace.flows.runner import run
    from headrace.serving import Client
    from headrace.stores.embedded import EmbeddedStore
    from headrace.stores.offline import OfflineLog
    from headrace.training import training_set

__all__ = [
    "CallableSink",
    "Client",
    "CustomAggregation",
    "DuckDBSink",
    "EmbeddedStore",
    "Entity",
    "Event",
    "EventTime",
    "FeatureService",
    "FeatureView",
    "FileSource",
    "Flow",
    "FrameSource",
    "HeadraceError",
    "Hopping",
    "IterableSource",
    "KafkaSink",
    "KafkaSource",
    "LastN",
    "Lifetime",
    "OfflineLog",
    "ParquetSink",
    "PythonSource",
    "RedisSink",
    "Request",
    "Session",
    "Sliding",
    "StdoutSink",
    "Tumbling",
    "WebhookSink",
    "__version__",
    "backfill",
    "derived",
    "run",
    "training_set",
]

_ELSEWHERE = {
    "backfill": "headrace.flows.backfill",
    "run": "headrace.flows.runner",
    "training_set": "headrace.training",
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
