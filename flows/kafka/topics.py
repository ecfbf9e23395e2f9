"""What a cluster has: topics, their partitions, offsets; making the topics of a flow, deleting what was read."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import tenacity
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from headrace.features.kafka_source import KafkaSource
from headrace.features.time import format_instant
from headrace.flows.kafka.errors import ClusterError, UnknownTopicError, UnreachableClusterError, explained
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.settings import admin_config

Offsets = dict[tuple[str, int], int]
"""(topic, partition) -> offset."""


class Cluster:
    """An administrator's view of the cluster that a client configuration names.

    config: librdkafka's settings of the connection, as `admin_config` gives them. timeout_s: how long an answer may
    take.

    Every method raises a `ClusterError`: `UnreachableClusterError` when nobody answers, `AccessError` when Kafka says
    no, `UnknownTopicError` for a topic that is not there.
    """

    def __init__(self, config: Mapping[str, Any], timeout_s: float = 15.0) -> None:
        self._config = dict(config)
        self._timeout = timeout_s
        self._told: list[str] = []
        settings = {**self._config, "error_cb": self._hear, "logger": logger_of(self._config)}
        try:
            self._admin = AdminClient(settings)
        except KafkaException as error:
            raise explained(error.args[0], self._config, "set up a Kafka client") from None

    @classmethod
    def of(cls, source: KafkaSource, overrides: Mapping[str, Any] | None = None, timeout_s: float = 15.0) -> "Cluster":
        """The cluster of a source."""
        return cls(admin_config(source, overrides), timeout_s)

    def topics(self) -> dict[str, int]:
        """The topics that this client may see and how many partitions each has."""
        try:
            found = self._admin.list_topics(timeout=self._timeout).topics
        except KafkaException as error:
            raise self._explained(error, "list the topics") from None
        return {name: len(topic.partitions) for name, topic in found.items()}

    def brokers(self) -> dict[int, str]:
        """Id and address of every broker, as clients are told to connect to them (advertised.listeners)."""
        try:
            found = self._admin.list_topics(timeout=self._timeout).brokers
        except KafkaException as error:
            raise self._explained(error, "ask for the brokers") from None
        return {number: f"{broker.host}:{broker.port}" for number, broker in found.items()}

    def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """How many partitions each topic has."""
        described = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=self._timeout)
        found = {}
        for topic, future in described.items():
            try:
                found[topic] = len(future.result().partitions)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise UnknownTopicError.of(topic, self.topics(), self._config) from None
                raise self._explained(error, f"describe topic '{topic}'") from None
        return found

    def ensure_topic(
        self, topic: str, partitions: int, *, replication: int = -1, settings: Mapping[str, str] | None = None
    ) -> bool:
        """Make a topic unless it is there, and wait until brokers tell about it; whether it was made.

        replication: copies; -1: what the brokers take by default. settings: of the topic, such as `retention.ms`.

        Raises:
            ClusterError: it is there with another number of partitions, which would send keys elsewhere.
        """
        made = NewTopic(topic, partitions, replication, config=dict(settings or {}))
        try:
            self._result(self._admin.create_topics([made], request_timeout=self._timeout)[topic], f"make '{topic}'")
        except _AlreadyThereError:
            there = self._told_about(topic)
            if there != partitions:
                raise ClusterError(
                    f"Topic '{topic}' has {there} partitions, and this flow needs {partitions}. Its keys would go to "
                    "other partitions than before: delete the topic when nothing of it is left to read, or give the "
                    "flow another name."
                ) from None
            return False
        self._told_about(topic)
        return True

    def ensure_repartition_topic(self, topic: str, partitions: int) -> int:
        """How many partitions a flow's repartition topic has; it is made with so many if it is not there.

        Nothing in it expires: its readers let go what their checkpoints have passed.
        """
        there = self.topics().get(topic)
        if there:
            return there
        self.ensure_topic(topic, partitions, settings={"retention.ms": "-1", "retention.bytes": "-1"})
        return partitions

    def _told_about(self, topic: str) -> int:
        """How many partitions a topic has that was just made: brokers learn of it a moment later."""
        wait = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnknownTopicError),
            wait=tenacity.wait_fixed(0.05),
            stop=tenacity.stop_after_delay(self._timeout),
            reraise=True,
        )
        return wait(lambda: self.partitions([topic])[topic])

    def delete_topics(self, topics: Sequence[str]) -> None:
        """Delete topics with all that is in them."""
        if topics:
            for topic, future in self._admin.delete_topics(list(topics), request_timeout=self._timeout).items():
                self._result(future, f"delete topic '{topic}'")

    def delete_records(self, before: Mapping[tuple[str, int], int]) -> None:
        """Let Kafka delete what lies before these offsets."""
        if not before:
            return
        wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in before.items()]
        deleted = self._admin.delete_records(wanted, request_timeout=self._timeout)
        for place, future in deleted.items():
            self._result(future, f"delete read records of topic '{place.topic}', partition {place.partition}")

    def offsets(self, topics: Sequence[str] | Mapping[str, int], at: Literal["earliest", "latest"] | int) -> Offsets:
        """For every partition of the topics an offset.

        at: "earliest": of the oldest message left; "latest": where the next one will be; an instant in microseconds:
            of the first message with a record timestamp at or after it, or where the next one will be.
        """
        counts = topics if isinstance(topics, Mapping) else self.partitions(topics)
        places = [TopicPartition(topic, number) for topic, n in counts.items() for number in range(n)]
        if isinstance(at, int):
            # Record timestamps are whole milliseconds; the first not before the instant.
            found = self._listed(places, OffsetSpec.for_timestamp(max(0, -(-at // 1_000))), format_instant(at))
            after = [TopicPartition(*place) for place, offset in found.items() if offset < 0]
            return found | (self._listed(after, OffsetSpec.latest(), "latest") if after else {})
        return self._listed(places, OffsetSpec.earliest() if at == "earliest" else OffsetSpec.latest(), at)

    def start_offsets(self, source: KafkaSource) -> Offsets:
        """Where a flow without a checkpoint begins in each partition of the source."""
        return self.offsets(source.topics, source.start)  # type: ignore[arg-type]

    def _listed(self, places: Sequence[TopicPartition], spec: OffsetSpec, shown: str) -> Offsets:
        if not places:
            return {}
        answers = self._admin.list_offsets(
            dict.fromkeys(places, spec),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=self._timeout,
        )
        return {
            (place.topic, place.partition): self._result(
                future, f"find the {shown} offset of topic '{place.topic}', partition {place.partition}"
            ).offset
            for place, future in answers.items()
        }

    def _result(self, future: "Future[Any]", task: str) -> Any:
        try:
            return future.result(self._timeout + 5)
        except TimeoutError:
            raise UnreachableClusterError.of(self._config, task, self._reasons()) from None
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                raise _AlreadyThereError from None
            raise self._explained(error, task) from None

    def _explained(self, error: KafkaException, task: str) -> ClusterError:
        return explained(error.args[0], self._config, task, self._reasons())

    def _hear(self, error: KafkaError) -> None:
        self._told = [*self._told[-7:], error.str()]

    def _reasons(self) -> list[str]:
        self._admin.poll(0)
        return self._told


class _AlreadyThereError(Exception):
    """A topic to be made is there."""
