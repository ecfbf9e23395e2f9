"""How much a flow of a given load takes: cores, memory, partitions, Redis, log. Arithmetic on measured costs."""

import math
from dataclasses import dataclass
from typing import Literal

from headrace.features.errors import DefinitionError

DAY_S = 86_400
HOPS_S = (30, 60, 360, 1200)
"""Of the windows over which entities were measured: 30 minutes, an hour, six hours and a day."""
GB = 1e9


@dataclass(frozen=True)
class Cost:
    """What one event, row or entity costs: `base` plus `each` for every feature of a view."""

    base: float
    each: float

    def of(self, features: int) -> float:
        """For a view with so many features.

        >>> Cost(100.0, 8.0).of(10)
        180.0
        """
        return self.base + self.each * features


@dataclass(frozen=True)
class Costs:
    """As `python -m benchmarks.costs` measures them: of a worker and its stores, for views over windows up to a day.

    Attributes:
        event_us: processor time of a worker for an event, microseconds: decoding, the view, the log, and rows of the
            few entities that have them all. write_us: of a worker for a row of an entity of its own.
        row_us: of Redis for a row. state: bytes of memory in a worker of an entity with five events in an hour.
            state_full: of one with an event in every hop of a day. snapshot, snapshot_full: bytes of them in a
            checkpoint. online_feast, online_packed: bytes of a row in Redis. log_row: bytes of a row of the log.
        log_rows: rows of the log for an event. process: bytes of a worker that holds next to nothing.
        said: on what and when.
    """

    event_us: Cost
    write_us: Cost
    row_us: Cost
    state: Cost
    state_full: Cost
    snapshot: Cost
    snapshot_full: Cost
    online_feast: Cost
    online_packed: Cost
    log_row: Cost
    log_rows: float
    process: float
    said: str


@dataclass(frozen=True)
class Workload:
    """What is asked for.

    Attributes:
        events_per_s: at the peak. entities: that are kept. features: of each view. views: keyed by entities of such a
            number each. record_bytes: of a message. layout: of rows in Redis. checkpoint_s: between two checkpoints.
        replicas: of Redis, beside the primary. use: share of a core, or of Redis's one, that the peak may take.
    """

    events_per_s: float
    entities: float
    features: int = 10
    views: int = 1
    record_bytes: int = 150
    layout: Literal["feast", "packed"] = "feast"
    checkpoint_s: float = 10.0
    replicas: int = 0
    use: float = 0.6

    def __post_init__(self) -> None:
        for name in ("events_per_s", "entities", "features", "views", "record_bytes", "checkpoint_s"):
            if getattr(self, name) <= 0:
                raise DefinitionError(f"{name} is {getattr(self, name)}, expected a number above 0.")
        if self.replicas < 0:
            raise DefinitionError(f"replicas is {self.replicas}, expected 0 or more.")
        if not 0 < self.use <= 1:
            raise DefinitionError(f"use is {self.use}, expected a share above 0, up to 1.")


@dataclass(frozen=True)
class Size:
    """What it takes.

    Attributes:
        cores: of workers together, each used by `use` at the peak. partitions: of the topic; a worker has one at least.
        worker_gb: memory of all workers together. kafka_mb_s: read from Kafka.
        redis_rows_s: rows written at the peak. redis_cores: Redis servers (shards of a cluster) that this
            takes. redis_gb: memory of all of them, replicas included. checkpoint_mb_s: written to the data folder.
        checkpoint_gb: of all entities. log_gb_day: of the log, if the peak lasted all day.
    """

    cores: int
    partitions: int
    worker_gb: float
    kafka_mb_s: float
    redis_rows_s: float
    redis_cores: int
    redis_gb: float
    checkpoint_mb_s: float
    checkpoint_gb: float
    log_gb_day: float


def size(load: Workload, costs: Costs) -> Size:
    """What a load takes, if an event concerns one entity of each view, and entities are evenly busy.

    Each view decodes its events anew in this sum, so several views on one source take less. The peak is taken to last
    all day: an entity's memory grows with the hops in which it has events.
    """
    features, views = load.features, load.views
    event_s = (costs.event_us.of(features) + costs.write_us.of(features)) / 1e6 * views
    cores = max(1, math.ceil(load.events_per_s * event_s / load.use))
    # A row for each event: an entity with several events in a write has one, one that falls idle one for each expiry.
    rows = load.events_per_s * views
    online = costs.online_feast if load.layout == "feast" else costs.online_packed
    touched = load.entities * -math.expm1(-load.events_per_s * load.checkpoint_s / load.entities)
    rate = load.events_per_s / load.entities
    busy = sum(-math.expm1(-rate * hop) for hop in HOPS_S) / len(HOPS_S)
    state = _between(costs.state.of(features), costs.state_full.of(features), busy)
    snapshot = _between(costs.snapshot.of(features), costs.snapshot_full.of(features), busy)
    return Size(
        cores=cores,
        partitions=max(4, 2 * cores),
        worker_gb=(cores * costs.process + load.entities * views * state) / GB,
        kafka_mb_s=load.events_per_s * load.record_bytes / 1e6,
        redis_rows_s=rows,
        redis_cores=max(1, math.ceil(rows * costs.row_us.of(features) / 1e6 / load.use)),
        redis_gb=load.entities * views * online.of(features) * (1 + load.replicas) / GB,
        checkpoint_mb_s=touched * views * snapshot / load.checkpoint_s / 1e6,
        checkpoint_gb=load.entities * views * snapshot / GB,
        log_gb_day=rows * costs.log_rows * costs.log_row.of(features) * DAY_S / GB,
    )


def _between(idle: float, full: float, share: float) -> float:
    return idle + (full - idle) * share
