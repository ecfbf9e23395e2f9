"""Topics of a flow: how many partitions its sources have, and the repartition topics it needs."""

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.flows.kafka.settings import admin_config

TIMEOUT_S = 30.0


def partitions_of(source: KafkaSource, overrides: Mapping[str, str]) -> dict[str, int]:
    """How many partitions each topic of a source has.

    Raises:
        DataError: a topic is not there. KafkaException: no broker answers, or it refuses.
    """
    admin = AdminClient(admin_config(source, overrides))
    counts = {}
    for topic in source.topics:
        found = admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        if found.error is not None:
            if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise DataError(
                    f"Source '{source.name}': topic '{topic}' is not there. Create it, or mend the name in the source."
                )
            raise KafkaException(found.error)
        counts[topic] = len(found.partitions)
    return counts


def ensure_route(source: KafkaSource, topic: str, partitions: int, overrides: Mapping[str, str]) -> int:
    """Make a repartition topic if it is not there; returns how many partitions it has.

    Nothing in it expires: its readers delete what their checkpoints have passed.
    """
    admin = AdminClient(admin_config(source, overrides))
    found = admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if found.error is None and found.partitions:
        return len(found.partitions)
    config = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "compression.type": "producer"}
    made = admin.create_topics([NewTopic(topic, partitions, config=config)])
    try:
        made[topic].result(TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another worker was first
            raise DataError(
                f"The repartition topic '{topic}' cannot be made: {error.args[0].str()}. Create it with {partitions} "
                "partitions and retention.ms=-1, allow the flow to, or declare keyed_by in the source."
            ) from error
        return len(admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions) or partitions
    return partitions
