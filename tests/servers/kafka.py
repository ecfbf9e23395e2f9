"""A Kafka broker of the tests, and topics and messages in it."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.servers.install import kafka_jars
from tests.servers.process import ServerProcess, free_port, listening

# Small, and quick to start rather than quick at its peak.
JVM = ("-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
USERS = {"flow": "flow-secret", "nobody": "nobody-secret"}  # of the SASL listener


class KafkaServer(ServerProcess):
    """Apache Kafka of one node in KRaft mode, on ports of its own.

    Attributes:
        bootstrap: address of the plain listener. sasl_bootstrap: of one that asks for SASL/PLAIN with one of `USERS`.
            ACLs are enforced where a resource has any; clients of the plain listener may do everything.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        watched: int | None = None,
        jvm: Sequence[str] = JVM,
    ) -> None:
        super().__init__("Kafka", folder, watched)
        self._jvm = tuple(jvm)
        self.port, self.sasl_port, self.controller_port = free_port(), free_port(), free_port()
        self.settings = dict(settings or {})

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def sasl_bootstrap(self) -> str:
        return f"127.0.0.1:{self.sasl_port}"

    def start(self) -> None:
        """Start on the same ports and data, and wait until it answers."""
        jars = kafka_jars()
        assert jars is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        logging = self.folder / "log4j2.properties"
        logging.write_text(LOGGING)
        java = ["java", *self._jvm, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars}/*"]
        if not (self.folder / "data" / "meta.properties").exists():
            cluster = "aGVhZHJhY2UtdGVzdHMtMQ"
            formatting = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
            ran = subprocess.run(formatting, capture_output=True, text=True, cwd=self.folder)
            if ran.returncode:
                raise RuntimeError(f"Kafka's storage could not be formatted:\n{ran.stdout}{ran.stderr}")
        self.launch([*java, "kafka.Kafka", str(properties)], self._ready, 90)

    def _ready(self) -> bool:
        return listening(self.port) and bool(admin(self.bootstrap).list_topics(timeout=30).brokers)

    def restart(self, *, kill: bool = False) -> None:
        """Stopped (or killed) and started again on the same ports and data."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def _properties(self) -> dict[str, str]:
        ports = {"PLAINTEXT": self.port, "SASL": self.sasl_port, "CONTROLLER": self.controller_port}
        users = " ".join(f'user_{name}="{secret}"' for name, secret in USERS.items())
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "true",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            # A killed broker may come back once its session has ended.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "500",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "log.cleaner.dedupe.buffer.size": "4194304",
            "log.segment.delete.delay.ms": "1000",
            "num.network.threads": "2",
            "num.io.threads": "4",
            **self.settings,
        }


LOGGING = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
"""


def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


@dataclass
class Kafka:
    """A broker as a test sees it: topics of its own, and messages.

    Attributes:
        bootstrap: address. topics: those made by `new_topic`, deleted after the test.
    """

    bootstrap: str
    sasl_bootstrap: str = ""
    topics: list[str] = field(default_factory=list)

    def new_topic(self, partitions: int = 4, name: str = "events", **config: str) -> str:
        """A new topic with a name that nobody else has; `config` as Kafka's, with _ for '.'."""
        topic = f"{name}-{uuid.uuid4().hex[:10]}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.make(topic, partitions, settings)
        return topic

    def make(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
        made = NewTopic(topic, partitions, 1, config=dict(config or {}))
        client = admin(self.bootstrap)  # held until the answer is there
        client.create_topics([made])[topic].result(30)
        self.topics.append(topic)
        self._until_told(client, topic, partitions)

    def grow(self, topic: str, partitions: int) -> None:
        """More partitions for a topic."""
        client = admin(self.bootstrap)
        client.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)
        self._until_told(client, topic, partitions)

    def _until_told(self, client: AdminClient, topic: str, partitions: int) -> None:
        """The controller has made them; the broker tells clients a moment later."""
        until = time.monotonic() + 30
        while True:
            told = client.list_topics(topic, timeout=10).topics[topic].partitions
            if len(told) == partitions and all(each.leader >= 0 for each in told.values()):
                return
            assert time.monotonic() < until, f"The broker tells of {len(told)} of {partitions} partitions of {topic}."
            time.sleep(0.02)

    def produce(
        self,
        topic: str,
        rows: Iterable[Any],
        *,
        partition: int | Sequence[int] | None = None,
        key: str | None = None,
        headers: Mapping[str, bytes] | None = None,
        timestamp_ms: int | Sequence[int] | None = None,
        **settings: Any,
    ) -> list[tuple[int, int]]:
        """Send rows and wait until the broker has them all.

        Args:
            rows: dicts are written as JSON, text as UTF-8; bytes and None (a tombstone) as they are.
            partition: of all rows, or one for each; None: by the hash of the key, or any.
            key: name of the column that is the message's key; rows that are not dicts have none.
            headers: of all. timestamp_ms: of all, or one for each; None: now.
            settings: of the producer, with _ for '.'.

        Returns:
            (partition, offset) of each row.
        """
        settings = {name.replace("_", "."): value for name, value in settings.items()}
        # The partitioner is Java's, that of everybody else.
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "max.in.flight": 1,  # a retry must not change the order: events would be late
                **settings,
            }
        )
        placed: dict[int, tuple[int, int]] = {}
        failed: list[KafkaError] = []

        def place(number: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)
            else:
                placed[number] = (message.partition() or 0, message.offset() or 0)

        count = 0
        for number, row in enumerate(rows):
            options: dict[str, Any] = {}
            if key is not None and isinstance(row, dict):
                options["key"] = str(row[key]).encode()
            if partition is not None:
                options["partition"] = partition if isinstance(partition, int) else partition[number]
            if timestamp_ms is not None:
                options["timestamp"] = timestamp_ms if isinstance(timestamp_ms, int) else timestamp_ms[number]
            if headers is not None:
                options["headers"] = dict(headers)
            told = lambda error, message, number=number: place(number, error, message)  # noqa: E731
            while True:
                try:
                    producer.produce(topic, _payload(row), on_delivery=told, **options)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
            count += 1
        left = producer.flush(60)
        if failed or left:
            raise RuntimeError(f"{left + len(failed)} of {count} messages did not reach '{topic}': {failed[:1]}")
        return [placed[number] for number in range(count)]

    def consume(self, topic: str) -> list[Message]:
        """Every message of a topic from its beginning to its end of now, partition by partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "tests.consume", "enable.auto.commit": False}
        )
        try:
            partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            found = []
            for number in partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
                consumer.assign([TopicPartition(topic, number, low)])
                while low < high:
                    for message in consumer.consume(1000, timeout=1):
                        if message.error() is None:
                            found.append(message)
                    low = consumer.position([TopicPartition(topic, number)])[0].offset
            return found
        finally:
            consumer.close()

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> offset of its next message."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "tests.ends"})
        try:
            partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            return {n: consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=30)[1] for n in partitions}
        finally:
            consumer.close()

    def names(self) -> list[str]:
        """All topics of the broker."""
        return sorted(admin(self.bootstrap).list_topics(timeout=30).topics)

    def clear(self) -> None:
        """Delete the topics made here, and those that flows made for them."""
        client = admin(self.bootstrap)
        doomed = [name for name in client.list_topics(timeout=30).topics if any(own in name for own in self.topics)]
        if doomed:
            for deleted in client.delete_topics(doomed, operation_timeout=0).values():
                deleted.result(30)


def _payload(row: Any) -> bytes | None:
    if isinstance(row, dict):
        return json.dumps(row, ensure_ascii=False).encode()
    return row.encode() if isinstance(row, str) else row
