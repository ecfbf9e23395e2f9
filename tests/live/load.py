"""A producer at work while a flow runs and things break: constant load, stamped with the wall's time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer

from tests.live.streams import Message, Traffic

# Each message once and in order, whatever becomes of the broker meanwhile.
SURE = {
    "enable.idempotence": True,
    "message.timeout.ms": 120_000,
    "linger.ms": 5,
    "reconnect.backoff.max.ms": 500,
    "retry.backoff.ms": 50,
    # A connection or a leader that is gone is noticed within seconds: messages time out after two minutes.
    "socket.timeout.ms": 10_000,
    "topic.metadata.refresh.interval.ms": 2_000,
    "log_level": 0,
}


class Sink:
    """Sends messages to where they say, and knows that each came to the offset it was made for."""

    def __init__(self, bootstrap: str) -> None:
        self._said: list[str] = []
        heard = {"error_cb": lambda error: self._said.append(f"{time.strftime('%T')} {error.str()}")}
        self._producer = Producer({"bootstrap.servers": bootstrap, **SURE, **heard})
        self._expected: dict[tuple[str, int], int] = {}
        self.wrong: list[str] = []

    def put(self, messages: list[Message]) -> None:
        for message in messages:
            place = (message.topic, message.partition)
            offset = self._expected.get(place, 0)
            self._expected[place] = offset + 1
            while True:
                try:
                    self._producer.produce(
                        message.topic, message.payload, partition=message.partition, on_delivery=self._told(offset)
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self._producer.poll(0)

    def _told(self, offset: int) -> Any:
        def told(error: Any, message: Any) -> None:
            if error is not None or message.offset() != offset:
                self.wrong.append(f"{error or message.offset()} instead of offset {offset}")

        return told

    def flush(self) -> None:
        """Wait until all is there."""
        left = self._producer.flush(120)
        said = f"The producer said at last: {self._said[-5:]}"
        assert not left, f"{left} messages did not reach Kafka by {time.strftime('%T')}. {said}"
        assert not self.wrong, f"messages were not delivered as made: {self.wrong[:3]}. {said}"


@dataclass
class Load:
    """Sends the traffic of a source at `rate` messages a second until it is stopped; their events are of now.

    Attributes:
        messages: all that was sent, in order.
    """

    bootstrap: str
    traffic: Traffic
    rate: int
    messages: list[Message] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._failure: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._sink = Sink(self.bootstrap)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(150)

    def _run(self) -> None:
        try:
            began = time.monotonic()
            while not self._stop.wait(0.05):
                due = int((time.monotonic() - began) * self.rate) - len(self.messages)
                self.traffic.now = max(self.traffic.now, time.time_ns() // 1000)
                some = self.traffic.take(due)
                self.messages += some
                self._sink.put(some)
        except BaseException as error:
            self._failure.append(error)

    def put(self, messages: list[Message]) -> None:
        """Send a few messages more, after the end."""
        self._sink.put(messages)
        self._sink.flush()

    def end(self) -> list[Message]:
        """Stop, wait until Kafka has everything, and give all that was sent."""
        self._stop.set()
        self._thread.join(30)
        assert not self._failure, self._failure
        self._sink.flush()
        return self.messages


def send(bootstrap: str, messages: list[Message]) -> None:
    """Send messages to topics that are empty, at once."""
    sink = Sink(bootstrap)
    sink.put(messages)
    sink.flush()
