"""What a worker sends to Kafka, events on to repartition topics and dead letters to theirs, and whether it arrived."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from headrace.flows.worker.log import ExchangeFailedError

POLL_S = 0.05


class Outbox:
    """A producer that several tasks share; each waits for its own messages only.

    producer: a `confluent_kafka.Producer`, or what behaves like one.
    """

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self._lock = threading.Lock()
        self._last = 0
        self._under_way: dict[str, set[int]] = {}
        self._failed: dict[str, str] = {}

    def send(
        self,
        sender: str,
        topic: str,
        partition: int,
        value: bytes,
        headers: Mapping[str, bytes],
        key: bytes | None = None,
    ) -> None:
        """Send a message for `sender`; waits while the producer's queue is full. partition -1: by the key."""
        with self._lock:
            self._last += 1
            number = self._last
            self._under_way.setdefault(sender, set()).add(number)

        def delivered(error: Any, _message: Any) -> None:
            with self._lock:
                self._under_way.get(sender, set()).discard(number)
                if error is not None:
                    self._failed[sender] = f"topic '{topic}': {error.str()}"

        while True:
            try:
                self._producer.produce(
                    topic, value, key=key, partition=partition, headers=dict(headers), on_delivery=delivered
                )
                return
            except BufferError:  # the queue is full: Kafka is slower than we are, or away
                self._producer.poll(POLL_S)

    def poll(self) -> None:
        """Let the producer report what was delivered; called now and then."""
        self._producer.poll(0)

    def forget(self, sender: str) -> None:
        """A task starts over: what it had sent does not matter any more."""
        with self._lock:
            self._under_way.pop(sender, None)
            self._failed.pop(sender, None)

    def waiter(self, sender: str, give_up: threading.Event) -> Callable[[], None]:
        """A function that waits until all that `sender` has sent until now is acknowledged.

        It raises ExchangeFailedError where a message was not, or `give_up` was set meanwhile.
        """
        with self._lock:
            mark = self._last

        def wait() -> None:
            while True:
                with self._lock:
                    failed = self._failed.get(sender)
                    waiting = min(self._under_way.get(sender, set()), default=mark + 1) <= mark
                if failed is not None:
                    raise ExchangeFailedError(f"'{sender}': a message was not taken by Kafka: {failed}")
                if not waiting:
                    return
                if give_up.is_set():
                    raise ExchangeFailedError(f"'{sender}': told to stop before Kafka had taken all messages")
                self._producer.poll(POLL_S)

        return wait

    def flush(self, timeout_s: float) -> None:
        """Wait until nothing is under way, at most so long."""
        until = time.monotonic() + timeout_s
        while self._producer.flush(POLL_S) and time.monotonic() < until:
            pass
