"""W1 as JSON messages of about 150 bytes in a Kafka topic of four partitions, keyed by the driver."""

from collections.abc import Iterator

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.workload import W1

PARTITIONS = 4
CITIES = ("San Francisco", "New York", "Chicago", "Los Angeles", "Boston", "Seattle", "Austin", "Denver")


def payloads(data: W1) -> Iterator[tuple[str, str]]:
    """(driver, message) of each event, in order."""
    columns = (data.name.to_pylist(), (data.time // 1000).tolist(), data.amount.tolist())
    for number, (driver, time_ms, amount) in enumerate(zip(*columns, strict=True)):
        yield (
            driver,
            f'{{"event_type":"pickup","trip_id":"trip-{number:09d}","driver_id":"{driver}","event_ts":{time_ms},'
            f'"amount":{amount},"city":"{CITIES[number % 8]}","src":"app"}}',
        )


def make_topic(bootstrap: str, topic: str) -> None:
    """A new topic of `PARTITIONS` partitions."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)


def fill(bootstrap: str, topic: str, data: W1) -> None:
    """A new topic with every event of `data`."""
    make_topic(bootstrap, topic)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,  # a retry must not change the order: events would be late
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for number, (driver, message) in enumerate(payloads(data)):
        while True:
            try:
                producer.produce(topic, message, driver)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    left = producer.flush(60)
    if left:
        raise RuntimeError(f"{left} messages did not reach the topic {topic}")
