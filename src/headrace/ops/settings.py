"""The sections of `headrace.toml`: every setting with its type, its default and what it says.

Each field is a key of the file and a variable HEADRACE_SECTION_KEY; docs/configuration.md lists them, and a test holds
the page against these classes. configuration.py reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Name = Annotated[str, Meta(min_length=1)]


@dataclass(frozen=True)
class Seconds:
    """A length of time: in the file `"10s"`, `"2m"` or a number of seconds."""

    value: float


@dataclass(frozen=True)
class FlowSection:
    """[flow]: what runs.

    name: names the consumer group and the repartition topics; None: after the views file. group: Kafka consumer group;
    None: "headrace." + name. workers: processes. restarts: how often one of them may die within five minutes before the
    flow gives up. batch_size: events taken at once; None: 20,000, and 10,000 of a file. clock: "wall", or "stream" to
    replay topics in their own time. on_change: what becomes of features that the checkpoints do not know. engine: what
    computes it, processes of ours or Spark.
    """

    name: Name | None = None
    group: Name | None = None
    workers: Count = 1
    restarts: Annotated[int, Meta(ge=0)] = 10
    checkpoint_every: Seconds = Seconds(10.0)
    batch_size: Count | None = None
    clock: Literal["wall", "stream"] = "wall"
    on_change: Literal["refuse", "start", "backfill"] = "refuse"
    engine: Literal["workers", "spark"] = "workers"


@dataclass(frozen=True)
class SparkSection:
    """[spark]: a flow of engine "spark".

    master: as of spark-submit; None: what the session that is there says, or all cores of this machine. every: from
    turn to turn. max_events: of a turn, at most. shards: tasks of each part of the flow that is computed after a
    shuffle; None: as many as its source has partitions.
    """

    master: Name | None = None
    every: Seconds = Seconds(1.0)
    max_events: Count = 400_000
    shards: Annotated[int, Meta(ge=1, le=4096)] | None = None


@dataclass(frozen=True)
class OnlineSection:
    """[online]: where online rows go. url: None: an embedded store in the data folder."""

    url: Name | None = None
    project: Name = "headrace"
    layout: Literal["feast", "packed"] = "feast"


@dataclass(frozen=True)
class OfflineSection:
    """[offline]: the log and the checkpoints. data: folder or URL, shared by all workers."""

    data: Name = "headrace-data"


@dataclass(frozen=True)
class MetricsSection:
    """[metrics]: metrics and health over HTTP.

    port: of the first worker, the next has the next; 0: any free one; None: no server. stalled_after: how long the main
    loop may stand before `/healthz` says so. ready_lag: messages that a partition may be behind for `/readyz`.
    """

    host: Name = "127.0.0.1"
    port: Port | None = None
    stalled_after: Seconds = Seconds(60.0)
    ready_lag: Count = 100_000


@dataclass(frozen=True)
class ServeSection:
    """[serve]: the lookup server, `headrace serve`.

    host, port: where it listens; port 0: any free one. workers: processes that share the port. restarts: as of [flow].
    api_keys: accepted keys, separated by commas or blanks, only from the environment. api_keys_file: a key a line.
    without_keys: listening beyond this machine without a key is meant. tls_cert, tls_key: PEM files; both or none.
    push: whether rows and events can be pushed. statuses: what a status of an answer is by default.
    on_failure: whether a view whose store fails spoils the answer.
    timeout: of a request. retries: failed reads of a store that may be made again, as a share of all; 0: none.
    cache: how old a row of the process's own cache may be; None: no cache. cache_entries: rows in it.
    body_bytes, entities, features, values: the most that one request may have, or ask for.
    access_log: which requests have a line. access_log_share: of "some", the share.
    drain: how long it still takes new connections after SIGTERM while `/readyz` says no; None: not at all.
    stop_within: how long requests may then take to end.
    feature_log: folder or URL where answers are kept; None: they are not. feature_log_sample: share of entities.
    """

    host: Name = "127.0.0.1"
    port: Port = 6566
    workers: Count = 1
    restarts: Annotated[int, Meta(ge=0)] = 10
    api_keys: Name | None = None
    api_keys_file: Name | None = None
    without_keys: bool = False
    push: bool = True
    tls_cert: Name | None = None
    tls_key: Name | None = None
    statuses: Literal["honest", "feast"] = "honest"
    on_failure: Literal["partial", "raise"] = "raise"
    timeout: Seconds = Seconds(5.0)
    retries: Annotated[float, Meta(ge=0, le=1)] = 0.1
    cache: Seconds | None = None
    cache_entries: Count = 100_000
    body_bytes: Count = 1 << 20
    entities: Count = 10_000
    features: Count = 2_000
    values: Count = 1_000_000
    access_log: Literal["none", "errors", "some", "all"] = "errors"
    access_log_share: Annotated[float, Meta(ge=0, le=1)] = 0.01
    drain: Seconds | None = None
    stop_within: Seconds = Seconds(30.0)
    feature_log: Name | None = None
    feature_log_sample: Annotated[float, Meta(gt=0, le=1)] = 1.0


@dataclass(frozen=True)
class LogSection:
    """[log]: lines on stderr. format: "auto" is text on a terminal and JSON elsewhere."""

    format: Literal["auto", "text", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True)
class DeadLettersSection:
    """[dead_letters]: topic: where dead letters go besides the log; None: only the log."""

    topic: Name | None = None


@dataclass(frozen=True)
class DriftSection:
    """[drift]: topic: where the drifts go that detectors find; None: they are only counted and kept."""

    topic: Name | None = None


@dataclass(frozen=True)
class Configuration:
    """Everything that a live flow and the lookup server are told besides the views.

    [kafka] has settings of librdkafka by their own names.
    """

    flow: FlowSection = field(default_factory=FlowSection)
    kafka: Mapping[str, str] = field(default_factory=dict)
    spark: SparkSection = field(default_factory=SparkSection)
    online: OnlineSection = field(default_factory=OnlineSection)
    offline: OfflineSection = field(default_factory=OfflineSection)
    metrics: MetricsSection = field(default_factory=MetricsSection)
    log: LogSection = field(default_factory=LogSection)
    dead_letters: DeadLettersSection = field(default_factory=DeadLettersSection)
    drift: DriftSection = field(default_factory=DriftSection)
    serve: ServeSection = field(default_factory=ServeSection)
