"""A Kafka topic of rows as JSON, each with its id in a header."""

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException, Producer

from headrace.features.errors import DefinitionError
from headrace.features.sinks import KafkaSink
from headrace.flows.kafka.errors import ClusterError, UnreachableClusterError, explained
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.settings import admin_config, producer_config
from headrace.flows.kafka.topics import Cluster
from headrace.flows.sinks.delivery import RetryError
from headrace.flows.sinks.protocol import SinkPlace, SinkRows
from headrace.flows.sinks.records import encode, records
from headrace.stores.errors import StoreError

ID = "headrace-id"
TIMEOUT_S = 30.0
"""How long brokers may take to acknowledge; then rows are sent again."""
OPEN_S = 15.0
POLL_S = 0.05
_POISON = ("MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_TIMESTAMP")


class TopicTarget:
    """Sends rows of a KafkaSink, and waits until every replica in sync has them."""

    batch = 5_000

    def __init__(self, sink: KafkaSink, at: SinkPlace) -> None:
        self._sink, self._at = sink, at
        self.shown = f"topic '{sink.topic}'"
        self._config = producer_config(sink, at.kafka)
        # Java's, that of most producers: rows of one key lie where those of other producers do.
        self._config.setdefault("partitioner", "murmur2_random")
        self._config |= {"acks": "all", "enable.idempotence": True, "message.timeout.ms": int(TIMEOUT_S * 1000)}
        self._producer: Any = None

    def open(self, state: bytes | None) -> None:
        """The topic must be there: a producer makes what is not, and a name written wrongly would look like success."""
        try:
            Cluster(admin_config(self._sink, self._at.kafka), OPEN_S).partitions([self._sink.topic])
        except UnreachableClusterError:
            pass  # it is waited for, by `send`
        except ClusterError as error:
            raise StoreError(f"Step '{self._at.name}': {error}") from error

    def send(self, rows: SinkRows) -> Mapping[int, str]:
        refused: dict[int, str] = {}
        failed: list[Any] = []
        under_way = 0

        def told(number: int) -> Any:
            def delivered(error: Any, _message: Any) -> None:
                nonlocal under_way
                under_way -= 1
                if error is not None and error.name() in _POISON:
                    refused[number] = f"topic '{self._sink.topic}' does not take it: {error.str()}"
                elif error is not None:
                    failed.append(error)

            return delivered

        producer = self._connected()
        for number, message in enumerate(self._messages(rows)):
            while True:
                try:
                    producer.produce(self._sink.topic, on_delivery=told(number), **message)
                    under_way += 1
                    break
                except BufferError:
                    producer.poll(POLL_S)
                except KafkaException as error:
                    if error.args[0].name() in _POISON:
                        refused[number] = f"topic '{self._sink.topic}' does not take it: {error.args[0].str()}"
                    else:
                        failed.append(error.args[0])
                    break
            if failed:
                break
        until = time.monotonic() + TIMEOUT_S + 2 * POLL_S
        while under_way and time.monotonic() < until:
            producer.poll(POLL_S)
        if failed or under_way:
            # A new producer: one that failed may have failed for good, and what is still under way is sent again.
            self._drop()
            why = explained(failed[0], self._config, f"write to topic '{self._sink.topic}'") if failed else "no answer"
            raise RetryError(str(why))
        return refused

    def flushed(self) -> bytes:
        return b""

    def committed(self) -> None:
        """Messages are there already."""

    def close(self) -> None:
        self._drop()

    def _drop(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(POLL_S)
            self._producer = None

    def _connected(self) -> Any:
        if self._producer is None:
            try:
                self._producer = Producer({**self._config, "logger": logger_of(self._config)})
            except KafkaException as error:
                raise DefinitionError(str(explained(error.args[0], self._config, "set up a Kafka client"))) from None
        return self._producer

    def _messages(self, rows: SinkRows) -> list[dict[str, Any]]:
        made = []
        for record, row_id, us in zip(records(rows.table), self._at.ids(rows), rows.time_us.tolist(), strict=True):
            message: dict[str, Any] = {"value": encode(record), "headers": [(ID, row_id.encode())]}
            if self._sink.key is not None:
                message["key"] = self._key([record[each] for each in self._sink.key])
            if us >= 0:
                message["timestamp"] = us // 1_000
            made.append(message)
        return made

    def _key(self, values: list[Any]) -> bytes | None:
        if len(values) > 1:
            return encode(values)
        value = values[0]
        return None if value is None else value.encode() if isinstance(value, str) else encode(value)
