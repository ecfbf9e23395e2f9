"""Where rows rest: online stores for serving, the offline log for training, checkpoints and dead letters for flows.

Importing it loads no vendor's library: each is loaded when a store is opened or a log is read.
"""

from headrace.stores.checkpoints import Checkpoint, SnapshotPart, read_checkpoint
from headrace.stores.commits import parts, read_manifest
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import (
    CorruptError,
    FencedError,
    LockedError,
    MissingStoreError,
    OutOfOrderError,
    SchemaMismatchError,
    StoreError,
    UnreachableError,
)
from headrace.stores.memory import MemoryStore
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock, OnlineStore, Portion, PositionedStore, Reached, StoredRow
from headrace.stores.opening import open_online
from headrace.stores.redis import RedisStore

__all__ = [
    "Checkpoint",
    "Clock",
    "CorruptError",
    "EmbeddedStore",
    "FencedError",
    "LockedError",
    "MemoryStore",
    "MissingStoreError",
    "OfflineLog",
    "OnlineStore",
    "OutOfOrderError",
    "Portion",
    "PositionedStore",
    "Reached",
    "RedisStore",
    "SchemaMismatchError",
    "SnapshotPart",
    "StoreError",
    "StoredRow",
    "UnreachableError",
    "open_online",
    "parts",
    "read_checkpoint",
    "read_manifest",
]
