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
    replay topics in their own time. on_change: what becomes of features that the checkpoints do not know.
    """

    name: Name | None = None
    group: Name | None = None
    workers: Count = 1
    restarts: Annotated[int, Meta(ge=0)] = 10
    checkpoint_every: Seconds = Seconds(10.0)
    batch_size: Count | None = None
    clock: Literal["wall", "stream"] = "wall"
    on_change: Literal["refuse", "start", "backfill"] = "refuse"


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
class LogSection:
    """[log]: lines on stderr. format: "auto" is text on a terminal and JSON elsewhere."""

    format: Literal["auto", "text", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True)
class DeadLettersSection:
    """[dead_letters]: topic: where dead letters go besides the log; None: only the log."""

    topic: Name | None = None


@dataclass(frozen=True)
class Configuration:
    """Everything that a live flow is told besides its views; [kafka] has settings of librdkafka by their own names."""

    flow: FlowSection = field(default_factory=FlowSection)
    kafka: Mapping[str, str] = field(default_factory=dict)
    online: OnlineSection = field(default_factory=OnlineSection)
    offline: OfflineSection = field(default_factory=OfflineSection)
    metrics: MetricsSection = field(default_factory=MetricsSection)
    log: LogSection = field(default_factory=LogSection)
    dead_letters: DeadLettersSection = field(default_factory=DeadLettersSection)
