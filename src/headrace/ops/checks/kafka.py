"""Kafka as the flow will meet it: brokers, topics, rights, and a sample of messages read as the flow would."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.settings import admin_config, consumer_config
from headrace.flows.kafka.topics import Cluster
from headrace.flows.worker.stages import Stages, stages_of
from headrace.ops.checks.finding import Finding
from headrace.ops.checks.keyedness import Sample, check_keys
from headrace.ops.settings import Configuration

AREA = "kafka"
SAMPLE = 1_000
TIMEOUT_S = 8.0
SKEW_S = 1.0


def check_cluster(cluster: Cluster, servers: str) -> Iterator[Finding]:
    """Whether brokers answer, and as whom they want to be called."""
    began = time.perf_counter()
    brokers = cluster.brokers()
    took = time.perf_counter() - began
    addresses = ", ".join(brokers[number] for number in sorted(brokers)[:5])
    yield Finding("ok", AREA, servers, f"{len(brokers)} broker(s) answer in {took * 1000:,.0f} ms: {addresses}")


def check_source(
    source: KafkaSource, views: Sequence[ViewDefinition], config: Configuration, flow: str, group: str
) -> Iterator[Finding]:
    """The topics of a source: there, divided among the workers, readable, and holding what the definition says."""
    cluster = Cluster.of(source, config.kafka, TIMEOUT_S)
    yield from check_cluster(cluster, str(admin_config(source, config.kafka)["bootstrap.servers"]))
    counts = cluster.partitions(source.topics)
    for topic, count in counts.items():
        yield _partitions(topic, count, config.flow.workers)
    stages = stages_of(flow, source, views, sum(counts.values()))
    yield from _rights(stages, config, group)
    messages = _newest(source, cluster, counts, config.kafka)
    if not messages:
        yield Finding("warn", AREA, source.name, "its topics are empty: nothing to judge messages and keys by")
        return
    yield _clock(source.name, messages)
    sample = Sample.of(source, messages, config.kafka)
    yield _readable(source.name, sample)
    yield from check_keys(stages, sample, sum(counts.values()))


def _partitions(topic: str, count: int, workers: int) -> Finding:
    says = f"{count} partition(s)"
    if count < workers:
        return Finding(
            "warn",
            AREA,
            topic,
            f"{says} for {workers} workers: {workers - count} would have nothing to do",
            "Start fewer workers, or give the topic more partitions before its keys matter.",
        )
    return Finding("ok", AREA, topic, says)


def _rights(stages: Stages, config: Configuration, group: str) -> Iterator[Finding]:
    source = stages.source
    settings: dict[str, Any] = admin_config(source, config.kafka)
    settings["logger"] = logger_of(settings)
    admin = AdminClient(settings)
    described = admin.describe_topics(
        TopicCollection(list(source.topics)), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )
    for topic, future in described.items():
        allowed = future.result().authorized_operations
        yield _right(topic, allowed, AclOperation.READ, f"Allow Read on topic '{topic}' for the flow's user.")
    groups = admin.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=TIMEOUT_S)
    try:
        allowed = groups[group].result().authorized_operations
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            yield Finding("fail", AREA, group, "this consumer group is refused to us", "Allow Read on it.")
        elif code == KafkaError.GROUP_ID_NOT_FOUND:
            yield Finding("ok", AREA, group, "nobody has used this consumer group yet")
        else:
            yield Finding("warn", AREA, group, f"the consumer group tells nothing: {error.args[0].str()}")
    else:
        yield _right(group, allowed, AclOperation.READ, f"Allow Read on consumer group '{group}' and on its prefix.")
    if config.dead_letters.topic is not None:
        yield from _written(admin, config.dead_letters.topic, "dead letters cannot go there")
    known = admin.list_topics(timeout=TIMEOUT_S).topics
    for route in stages.routes:
        if route.topic in known:
            yield from _written(admin, route.topic, "events cannot be re-keyed")
        else:
            allowed = admin.describe_cluster(include_authorized_operations=True, request_timeout=TIMEOUT_S).result()
            mend = f"Allow Create on the cluster or on topics that begin with headrace., or make {route.topic}."
            found = _right(route.topic, allowed.authorized_operations, AclOperation.CREATE, mend)
            # Topics of that name may be allowed though the cluster is not; nobody tells before it is made.
            yield replace(found, level="warn") if found.level == "fail" else found


def _written(admin: AdminClient, topic: str, otherwise: str) -> Iterator[Finding]:
    described = admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )[topic]
    try:
        allowed = described.result().authorized_operations
    except KafkaException as error:
        yield Finding("fail", AREA, topic, f"{otherwise}: {error.args[0].str()}", "Make the topic.")
    else:
        yield _right(topic, allowed, AclOperation.WRITE, f"Allow Write on topic '{topic}' for the flow's user.")


def _right(about: str, allowed: Sequence[AclOperation] | None, needed: AclOperation, mend: str) -> Finding:
    name = needed.name.capitalize()
    if not allowed:
        return Finding("ok", AREA, about, f"the broker does not say whether we may {name}")
    if needed in allowed or AclOperation.ALL in allowed:
        return Finding("ok", AREA, about, f"we may {name}")
    return Finding("fail", AREA, about, f"we may not {name}", mend)


def _newest(
    source: KafkaSource, cluster: Cluster, counts: Mapping[str, int], overrides: Mapping[str, str]
) -> list[Message]:
    """The newest messages of each partition, `SAMPLE` in all; nothing is committed, no group is joined."""
    ends, begins = cluster.offsets(counts, "latest"), cluster.offsets(counts, "earliest")
    share = max(1, SAMPLE // max(1, len(ends)))
    places = [
        TopicPartition(topic, number, max(begins[topic, number], end - share))
        for (topic, number), end in ends.items()
        if end > begins[topic, number]
    ]
    if not places:
        return []
    consumer = Consumer(consumer_config(source, "headrace.doctor", overrides))
    found: list[Message] = []
    wanted = sum(min(share, ends[place.topic, place.partition] - place.offset) for place in places)
    until = time.monotonic() + TIMEOUT_S
    try:
        consumer.assign(places)
        while len(found) < wanted and time.monotonic() < until:
            found += [each for each in consumer.consume(wanted - len(found), timeout=1.0) if each.error() is None]
    finally:
        consumer.close()
    return found


def _clock(name: str, messages: Sequence[Message]) -> Finding:
    """Kafka tells no time; a record's timestamp that lies ahead of us does."""
    newest = max(message.timestamp()[1] for message in messages) / 1000
    ahead = newest - time.time()
    if ahead > SKEW_S:
        return Finding(
            "warn",
            AREA,
            name,
            f"its newest record is {ahead:,.1f} s ahead of this machine's clock",
            "Keep the clocks of producers, brokers and this machine by NTP: events too far ahead go to dead letter.",
        )
    return Finding("ok", AREA, name, f"its newest record is {-ahead:,.0f} s old by this machine's clock")


def _readable(name: str, sample: Sample) -> Finding:
    if not sample.broken:
        return Finding("ok", AREA, name, f"all of {sample.messages:,} sampled messages can be read")
    first = sample.broken[0]
    return Finding(
        "warn",
        AREA,
        name,
        f"{len(sample.broken):,} of {sample.messages:,} sampled messages cannot be read and would go to dead letter, "
        f"such as offset {first.offset} of partition {first.partition}: {first.detail}",
        "Is the event class that of this topic, are format= and columns= of the source right?",
    )


def check_bootstrap(kafka: Mapping[str, Any]) -> Iterator[Finding]:
    """Only the brokers, where no views file says which topics matter."""
    servers: str | None = kafka.get("bootstrap.servers")
    if servers is None:
        yield Finding("ok", AREA, "brokers", "none are named; a views file may name its own: headrace doctor FILE")
        return
    yield from check_cluster(Cluster(kafka, TIMEOUT_S), servers)
