"""The loop that one writes by hand: consume, decode, exact sliding window in Python objects, HSET in a pipeline.

    python -m benchmarks.peers.plain_loop BOOTSTRAP TOPIC REDIS_URL [only]

Reads a topic from its end until it is killed. No checkpoints, no offline log, no late events, values that fall only
when their driver's next event comes: what is left when everything but freshness is taken away. With `only` it looks at
nothing but messages of the probes, and writes no more than their time: the least that Kafka and Redis take.
"""

import sys
import uuid
from collections import deque

import msgspec
import redis
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from benchmarks.messages import PARTITIONS
from benchmarks.workload import WINDOW_US


class Pickup(msgspec.Struct, gc=False):
    driver_id: str
    event_ts: int
    amount: float


class Window:
    """The last 30 minutes of a driver."""

    __slots__ = ("events", "greatest", "total")

    def __init__(self) -> None:
        self.events: deque[tuple[int, float]] = deque()
        self.total = 0.0
        self.greatest: deque[tuple[int, float]] = deque()

    def add(self, at: int, amount: float) -> dict[str, float]:
        events, greatest = self.events, self.greatest
        events.append((at, amount))
        self.total += amount
        while greatest and greatest[-1][1] <= amount:
            greatest.pop()
        greatest.append((at, amount))
        while events[0][0] <= at - WINDOW_US:
            self.total -= events.popleft()[1]
        while greatest[0][0] <= at - WINDOW_US:
            greatest.popleft()
        count = len(events)
        return {
            "pickups": count,
            "amount_sum": self.total,
            "amount_mean": self.total / count,
            "amount_max": greatest[0][1],
            "newest_event": at,
        }


def main(bootstrap: str, topic: str, redis_url: str, only: str = "") -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,
            "fetch.wait.max.ms": 5,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_END) for partition in range(PARTITIONS)])
    store = redis.Redis.from_url(redis_url)
    decode = msgspec.json.Decoder(Pickup).decode
    windows: dict[str, Window] = {}
    print("ready", flush=True)
    while True:
        first = consumer.poll(1.0)
        if first is None:
            continue
        pipeline = store.pipeline(transaction=False)
        for message in (first, *consumer.consume(1000, 0)):
            if only and not message.key().startswith(b"probe"):
                continue
            event = decode(message.value())
            if only:
                pipeline.hset(f"driver:{event.driver_id}", "newest_event", event.event_ts)
                continue
            window = windows.get(event.driver_id)
            if window is None:
                window = windows[event.driver_id] = Window()
            pipeline.hset(f"driver:{event.driver_id}", mapping=window.add(event.event_ts, event.amount))
        if pipeline.command_stack:
            pipeline.execute()


if __name__ == "__main__":
    main(*sys.argv[1:])
