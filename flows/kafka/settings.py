"""Settings of Kafka clients: tuned defaults with their reasons, the source's options, and what a run overrides.

    defaults  <  options of the source  <  HEADRACE_KAFKA_BOOTSTRAP  <  overrides of the run (headrace.toml)

Any setting of librdkafka may be given and is passed on as it is; names are written with `.` or `_` between the words.
"""

import os
from collections.abc import Mapping
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.features.kafka_source import KafkaSource, option_name
from headrace.features.sinks import KafkaSink
from headrace.flows.kafka.secrets import expand

BOOTSTRAP = "HEADRACE_KAFKA_BOOTSTRAP"
REGISTRY = "HEADRACE_SCHEMA_REGISTRY"

CONNECTION_DEFAULTS: dict[str, Any] = {
    # A broker that comes back is found within a second, not after the 10 s to which the pauses between tries grow.
    "reconnect.backoff.max.ms": 1_000,
    # Idle connections that a firewall has dropped in silence are noticed.
    "socket.keepalive.enable": True,
    # A small request leaves at once.
    "socket.nagle.disable": True,
}

CONSUMER_DEFAULTS: dict[str, Any] = {
    # Checkpoints hold the offsets; the group's committed ones are only shown to lag monitors.
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # Offsets that are gone are a matter of the source's `on_gap`, never of a silent jump.
    "auto.offset.reset": "error",
    # Partitions that stay with a worker go on while others move.
    "partition.assignment.strategy": "cooperative-sticky",
    # A dead worker's partitions move after 6 s (the least that brokers allow by default), not after 45.
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 2_000,
    # Leaving a group takes two requests one after the other. To a coordinator that had stopped answering a worker was
    # seen to talk for two minutes after it was asked to stop, one for each.
    "socket.timeout.ms": 15_000,
    # A partition whose queue is full is asked again after 2 ms. With the default of 1 s a fast consumer starves: 0.18
    # against 1.2 million messages a second (docs/decisions/0010-kafka-decoding.md).
    "fetch.queue.backoff.ms": 2,
    # Read ahead by up to 64 MiB, whatever the size of a message; the default of 100,000 messages would be 15 MB of
    # small ones, and is a limit per partition that a large fetch overshoots.
    "queued.min.messages": 500_000,
    "queued.max.messages.kbytes": 65_536,
    # Fewer, larger fetches when catching up.
    "max.partition.fetch.bytes": 4_194_304,
    # How long a broker holds a fetch that has nothing to bring. It answers at once when an event comes; but a
    # partition that is asked again (resumed, drained) waits for the fetch under way.
    "fetch.wait.max.ms": 10,
    # Partitions that were added to a topic are found after half a minute, not after five.
    "topic.metadata.refresh.interval.ms": 30_000,
}

PRODUCER_DEFAULTS: dict[str, Any] = {
    # Retries neither repeat nor reorder.
    "enable.idempotence": True,
    # A connection, or a leader, that is gone is noticed within seconds: what is sent on holds the flow up.
    "socket.timeout.ms": 15_000,
    "topic.metadata.refresh.interval.ms": 30_000,
    # Batches are whole already: only those of one step wait for each other.
    "linger.ms": 1,
    "batch.size": 1_048_576,
    "compression.type": "lz4",
    # Backpressure by bytes: what a cluster that does not answer holds up here.
    "queue.buffering.max.kbytes": 65_536,
    # A batch of repartitioned events may be larger than the 1 MB that topics take by default; ours take this much.
    "message.max.bytes": 8_388_608,
}

# What of a source's options a producer or an administrator of the same cluster understands too.
_CONNECTION = (
    *("bootstrap.", "metadata.broker.", "security.", "sasl.", "ssl.", "enable.ssl.", "enable.sasl.", "socket."),
    *("broker.address.", "client.", "reconnect.", "connections.", "resolve.", "retry.", "api.version.", "oauth_cb"),
    *("enable.metrics.push", "log.", "debug"),
)


def consumer_config(
    source: KafkaSource, group: str, overrides: Mapping[str, Any] | None = None, **own: Any
) -> dict[str, Any]:
    """librdkafka's settings for a consumer of the source in a consumer group.

    overrides: of the run, which win. own: what the caller itself needs and nobody may change, such as `error_cb=`.

    Raises:
        DefinitionError: no bootstrap servers are given, or an environment variable is not set.
    """
    given = _given(source, overrides)
    return _completed({**CONNECTION_DEFAULTS, **CONSUMER_DEFAULTS, **given, "group.id": group}, source, own)


def producer_config(
    source: KafkaSource | KafkaSink, overrides: Mapping[str, Any] | None = None, **own: Any
) -> dict[str, Any]:
    """librdkafka's settings for a producer on the source's cluster; of the source's options those of the connection.

    Of `overrides` those that only a consumer has are left out too.
    """
    given = {n: v for n, v in _given(source, overrides).items() if _is_connection(n) or n in _PRODUCER}
    return _completed({**CONNECTION_DEFAULTS, **PRODUCER_DEFAULTS, **given}, source, own)


def admin_config(
    source: KafkaSource | KafkaSink, overrides: Mapping[str, Any] | None = None, **own: Any
) -> dict[str, Any]:
    """librdkafka's settings for an administrator of the source's cluster."""
    given = {n: v for n, v in _given(source, overrides).items() if _is_connection(n)}
    return _completed({**CONNECTION_DEFAULTS, **given}, source, own)


def registry_config(source: KafkaSource, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Settings of the Schema Registry's client: its URL and what is named `schema.registry.*`.

    `schema_registry_basic_auth_user_info` becomes `basic.auth.user.info`, and so on.

    Raises:
        DefinitionError: no URL is given, or an environment variable is not set.
    """
    prefix = "schema.registry."
    merged = {option_name(n): v for n, v in {**source.options, **dict(overrides or {})}.items()}
    config = {n.removeprefix(prefix): expand(v, n) for n, v in merged.items() if n.startswith(prefix)}
    url = config.get("url") or os.environ.get(REGISTRY) or expand(source.registry, "registry")
    if not url:
        raise DefinitionError(
            f"KafkaSource '{source.name}' needs a Schema Registry and names none. Write registry='http://...', or set "
            f"{REGISTRY}."
        )
    return {**config, "url": url}


_PRODUCER = frozenset(
    {
        *PRODUCER_DEFAULTS,
        *("acks", "request.required.acks", "transaction.timeout.ms", "delivery.timeout.ms", "message.timeout.ms"),
        *("queue.buffering.max.messages", "queue.buffering.max.ms", "batch.num.messages", "compression.level"),
        *("compression.codec", "retries", "message.send.max.retries", "max.in.flight", "partitioner"),
        *("max.in.flight.requests.per.connection", "request.timeout.ms", "sticky.partitioning.linger.ms"),
    }
)


def _is_connection(name: str) -> bool:
    return name.startswith(_CONNECTION)


def _given(source: KafkaSource | KafkaSink, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the source, the environment and the run say, by librdkafka's names."""
    named = {option_name(name): value for name, value in source.options.items()}
    if BOOTSTRAP in os.environ:
        named.pop("metadata.broker.list", None)
        named["bootstrap.servers"] = os.environ[BOOTSTRAP]
    named |= {option_name(name): value for name, value in (overrides or {}).items()}
    return {name: value for name, value in named.items() if not name.startswith("schema.registry.")}


def _completed(config: dict[str, Any], source: KafkaSource | KafkaSink, own: Mapping[str, Any]) -> dict[str, Any]:
    if not config.get("bootstrap.servers") and not config.get("metadata.broker.list"):
        raise DefinitionError(
            f"{type(source).__name__} '{source.name}' names no Kafka. Write bootstrap_servers='host:9092' in it, set "
            f"{BOOTSTRAP}, or put it into headrace.toml."
        )
    # librdkafka knows several settings by two names and the last one set wins; ours must not hide the user's.
    for ours, theirs in (
        ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
        ("linger.ms", "queue.buffering.max.ms"),
        ("compression.type", "compression.codec"),
    ):
        if ours in config and theirs in config:
            del config[ours]
    return {name: expand(value, name) for name, value in config.items()} | {option_name(n): v for n, v in own.items()}
