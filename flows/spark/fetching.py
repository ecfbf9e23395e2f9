"""A partition of a topic, read by its task from where its checkpoint has come to: without a consumer group."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from headrace.features.errors import DataError
from headrace.flows.kafka.errors import AccessError, UnreachableClusterError, explained
from headrace.flows.kafka.logs import logger_of

POLL_S = 0.2
SILENT_S = 30.0
"""After so long without an answer a turn is given up, and tried again."""


class Partition:
    """Reads on from turn to turn: what it has fetched beyond the end of one is there for the next.

    config: of a consumer. batch_size: most messages at once.
    """

    def __init__(self, topic: str, partition: int, config: Mapping[str, Any], batch_size: int) -> None:
        self._topic, self._partition = topic, partition
        self._config, self._batch_size = dict(config), batch_size
        own = {"enable.partition.eof": True, "logger": logger_of(self._config), "error_cb": self._hear}
        self._consumer = Consumer({**self._config, **own})
        self._at: int | None = None
        self._beyond: list[Any] = []
        self._told: list[str] = []

    def read(self, start: int, end: int) -> Iterator[list[Any]]:
        """The messages at offsets [start, end); offsets of marks of transactions have none.

        Raises:
            DataError: messages from `start` on were deleted. AccessError: Kafka refuses us.
            UnreachableClusterError: nothing came for half a minute.
        """
        at = start
        if self._at != start:
            self._beyond = []
            self._consumer.assign([TopicPartition(self._topic, self._partition, start)])
        self._at = None  # until all was taken, nobody can go on from here
        heard = time.monotonic()
        while at < end:
            found, self._beyond = self._beyond or self._consumer.consume(self._batch_size, POLL_S), []
            if found:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_S:
                raise UnreachableClusterError.of(self._config, self._task, self._told)
            good: list[Any] = []
            for i, message in enumerate(found):
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    self._complain(error)
                    continue
                offset = int(message.offset())
                if offset >= end and error is None:
                    self._beyond, at = found[i:], end
                    break
                if error is None:
                    good.append(message)
                    at = offset + 1
                else:  # the end of the partition
                    at = max(at, offset)
            if good:
                yield good
        self._at = at

    def close(self) -> None:
        self._consumer.close()

    @property
    def _task(self) -> str:
        return f"read topic '{self._topic}', partition {self._partition}"

    def _complain(self, error: Any) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise DataError(
                f"Topic '{self._topic}', partition {self._partition}: messages were deleted before they were read. "
                "Keep messages for longer than a flow may stand still, or set on_gap='skip' in the source."
            )
        told = explained(error, self._config, self._task)
        if error.fatal() or isinstance(told, AccessError):
            raise told
        self._hear(error)

    def _hear(self, error: Any) -> None:
        self._told = [*self._told[-7:], error.str()]
