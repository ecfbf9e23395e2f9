"""A consumer of a group as a reader uses it: messages or words about what is wrong, and nothing lost in callbacks."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException

from headrace.flows.kafka.errors import AccessError, explained
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.statistics import ClientStatistics, statistics_config
from headrace.flows.worker.observing import Observer

logger = logging.getLogger("headrace.worker")

Place = tuple[str, int]
"""Topic and partition."""
Partitions = Callable[[Any, list[Any]], None]
"""What is called with the client and partitions that come or go."""

KEEP_BACK_S = 1.0
"""After this long messages that could not be taken are tried again."""
ASTRAY_S = (30.0, 480.0)
"""How long a client that was in its group may be out of it, while brokers answer, before another takes its place: at
first, and at most after it had to be done again and again."""
COMMIT_S = 5.0
"""How long the last offsets may take to be told."""
CLOSE_S = 10.0
"""How long leaving the group may take; it misses who has not left after the session timeout anyway."""


class GroupConsumer:
    """One client in a consumer group.

    Args:
        config: of the client. topics: to subscribe to. batch: most messages at once. with_ends: tell where partitions
            end. assigned, revoked, lost: called while polling when partitions come and go; what they raise is raised by
            the call that was under way.
        gap: called with the place of a partition whose next offset is not there any more.

    Attributes:
        client: the `confluent_kafka.Consumer`. ends: by place, ends that were come to since they were last taken.
        troubled: whether Kafka was said to be in trouble and has not been heard since.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Sequence[str],
        batch: int,
        observer: Observer,
        *,
        with_ends: bool,
        assigned: Partitions,
        revoked: Partitions,
        lost: Partitions,
        gap: Callable[[Place], None],
    ) -> None:
        self._config = dict(config)
        self._topics = list(topics)
        self._batch, self._observer, self._gap = batch, observer, gap
        self.troubled = False
        self.ends: dict[Place, int] = {}
        self._back: list[Any] = []
        self._back_s = 0.0
        self._failure: BaseException | None = None
        self._closed = False
        self._with_ends = with_ends
        self._callbacks = {"on_assign": self._joined(assigned), "on_revoke": revoked, "on_lost": lost}
        self._joined_s: float | None = None
        self._astray_s = ASTRAY_S[0]
        self.client = self._subscribed()

    def _subscribed(self) -> Consumer:
        own = {"enable.partition.eof": self._with_ends, "logger": logger_of(self._config), "error_cb": self._hear}
        client = Consumer({**statistics_config(self._measured), **self._config, **own})
        client.subscribe(self._topics, **{name: self._kept(each) for name, each in self._callbacks.items()})
        return client

    def _measured(self, found: ClientStatistics) -> None:
        self._observer.client(",".join(self._topics), found)
        if found.joining == "steady":
            self._joined_s, self._astray_s = time.monotonic(), ASTRAY_S[0]

    def poll(self, timeout_s: float) -> list[Any]:
        """Messages that have come, at most a batch; waits for the first of them.

        Raises:
            ClusterError: the consumer cannot go on.
        """
        first = self._call(lambda: self.client.poll(timeout_s))
        if first is None:
            return self._kept_back()
        more = self._batch - 1
        messages = [first, *self._call(lambda: self.client.consume(more, 0))] if more else [first]
        good = [message for message in messages if message.error() is None]
        if len(good) < len(messages):
            for message in messages:
                if message.error() is not None:
                    self._complain(message)
        if good and self.troubled:
            self.recovered()
        return [*self._kept_back(), *good]

    def keep_back(self, messages: list[Any]) -> None:
        """Messages that cannot be taken now are given again after a while; nothing more is read until then."""
        self._back, self._back_s = messages, time.monotonic() + KEEP_BACK_S

    def forget(self, at: Place) -> None:
        """The partition is read again from further back, or by another: what was kept back of it is not given."""
        self._back = [message for message in self._back if (message.topic(), message.partition()) != at]

    @property
    def keeps_back(self) -> bool:
        """Whether messages wait to be given again."""
        return bool(self._back)

    def _kept_back(self) -> list[Any]:
        if not self._back or time.monotonic() < self._back_s:
            return []
        messages, self._back = self._back, []
        return messages

    def _call(self, call: Callable[[], Any]) -> Any:
        """A call of the consumer in which partitions may come and go; what fails then is raised from here.

        An exception that leaves a callback is lost in the client.
        """
        try:
            return call()
        finally:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure

    def _complain(self, message: Any) -> None:
        error = message.error()
        at = (message.topic(), message.partition())
        if error.code() == KafkaError._PARTITION_EOF:
            self.ends[at] = message.offset()  # which counts once the messages that came with it were taken
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET or error.code() == KafkaError.OFFSET_OUT_OF_RANGE:
            self._gap(at)
            return
        told = explained(error, self._config, f"read topic '{at[0]}'")
        if error.fatal() or isinstance(told, AccessError):
            raise told
        self.trouble(str(told))

    def _hear(self, error: KafkaError) -> None:
        """A client with one broker left goes on; what ends a partition comes as a message."""
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL):
            self.trouble(str(explained(error, self._config, "read its topics")))

    def trouble(self, message: str) -> None:
        """Say that something about Kafka fails and is being retried."""
        self.troubled = True
        self._observer.trouble("kafka", message)

    def recovered(self) -> None:
        """Kafka was heard again."""
        self.troubled = False
        self._observer.recovered("kafka")

    def is_back(self) -> bool:
        """Whether a broker answers again; nobody else says so where no messages come."""
        try:
            self.client.list_topics(self._topics[0], timeout=0.2)
        except KafkaException:
            return False
        return True

    def is_astray(self) -> bool:
        """Whether the client was in its group, has been out of it for long, and brokers answer all the same.

        librdkafka's link to the group's coordinator was seen to stay down for good after a broker had stood still for
        some seconds: such a client neither joins again nor closes.
        """
        return self._joined_s is not None and time.monotonic() - self._joined_s >= self._astray_s and self.is_back()

    def renew(self) -> None:
        """Another client in place of this one, of which nothing is assigned any more."""
        logger.warning("the Kafka client of %s was out of its group for long; a new one joins", ", ".join(self._topics))
        old, self.client = self.client, self._subscribed()
        self._joined_s, self._astray_s = time.monotonic(), min(2 * self._astray_s, ASTRAY_S[1])
        self.ends.clear()
        self._back = []
        _left(old)

    def commit(self, offsets: list[Any]) -> None:
        """Tell the group's coordinator offsets, and wait for a while until it has them.

        They are of use to lag monitors, and to workers that wait for each other's end; checkpoints have them too. The
        client itself would wait for as long as its link to the coordinator is down.
        """

        client = self.client

        def tell() -> None:
            try:
                client.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                logger.debug("the group's offsets were not committed: %s", error)

        _for_a_while(tell, COMMIT_S, "the group's offsets were not committed")

    def close(self) -> None:
        """Leave the group; what was assigned must have been handed over before."""
        if not self._closed:
            self._closed = True
            _left(self.client)

    def _joined(self, assigned: Partitions) -> Partitions:
        def called(consumer: Any, partitions: list[Any]) -> None:
            self._joined_s = time.monotonic()
            assigned(consumer, partitions)

        return called

    def _kept(self, callback: Partitions) -> Partitions:
        def called(consumer: Any, partitions: list[Any]) -> None:
            if self._closed or consumer is not self.client:
                return  # the client then does by itself what the group wants
            try:
                callback(consumer, partitions)
            except BaseException as error:  # raised again by `_call`
                self._failure = error

        return called


def _left(client: Any) -> None:
    """Close a client, which leaves its group; one that hangs meanwhile is left to itself.

    A client that is not closed may hang the interpreter when it is collected. The thread keeps it from that.
    """
    _for_a_while(client.close, CLOSE_S, "a Kafka client did not leave its group")


def _for_a_while(call: Callable[[], Any], timeout_s: float, otherwise: str) -> None:
    """Wait for a call of a client; one that hangs is left to a thread of its own, and said."""
    thread = threading.Thread(target=call, name="kafka client", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        logger.warning("%s within %.0f s", otherwise, timeout_s)
