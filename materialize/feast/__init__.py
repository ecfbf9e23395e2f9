"""Headrace in Feast: its compute engine, its views as Feast's objects.

Needs the extra `feast`. Importing this package imports Feast, which takes seconds; nothing else of Headrace does.
"""

from headrace.materialize.feast.engine import HeadraceEngine
from headrace.materialize.feast.objects import registered_objects
from headrace.materialize.feast.online_store import HeadraceOnlineStore, HeadraceOnlineStoreConfig
from headrace.materialize.feast.options import HeadraceEngineConfig
from headrace.materialize.feast.windows import aggregations_tag

__all__ = [
    "HeadraceEngine",
    "HeadraceEngineConfig",
    "HeadraceOnlineStore",
    "HeadraceOnlineStoreConfig",
    "aggregations_tag",
    "registered_objects",
]
