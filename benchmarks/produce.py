"""Sends events of W1's shape at a steady rate, each stamped with the wall clock: freshness.py runs it as a process.

    python -m benchmarks.produce BOOTSTRAP TOPIC RATE SECONDS

Every fifth millisecond or so one of the `PROBES` sends, in turn; a reader watches those drivers. At the end it prints
the probes as JSON: [[driver, microseconds], ...].
"""

import json
import random
import sys
import time

from confluent_kafka import Producer

PROBES = tuple(f"probe_{number:02d}" for number in range(40))
PROBE_EVERY_S = 0.005
DRIVERS = 10_000


def message(driver: str, stamp_us: int, amount: float) -> str:
    """A W1 message; its event time is when it was sent, in microseconds."""
    return (
        f'{{"event_type":"pickup","trip_id":"trip-{stamp_us}","driver_id":"{driver}","event_ts":{stamp_us},'
        f'"amount":{amount},"city":"Boston","src":"app"}}'
    )


def main(bootstrap: str, topic: str, rate: float, seconds: float) -> None:
    rng = random.Random(5)
    drivers = [f"driver_{number:05d}" for number in range(DRIVERS)]
    weights = [1 / (number + 1) for number in range(DRIVERS)]
    drawn = rng.choices(drivers, weights, k=100_000)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "enable.idempotence": True})
    producer.list_topics(topic, timeout=10)
    began = time.perf_counter()
    sent = 0
    probes: list[tuple[str, int]] = []
    while (elapsed := time.perf_counter() - began) < seconds:
        due = int(elapsed * rate)
        while sent < due:
            stamp_us = time.time_ns() // 1000
            if elapsed >= len(probes) * PROBE_EVERY_S:
                driver = PROBES[len(probes) % len(PROBES)]
                probes.append((driver, stamp_us))
            else:
                driver = drawn[sent % len(drawn)]
            producer.produce(topic, message(driver, stamp_us, sent % 977 / 10), driver)
            sent += 1
        producer.poll(0)
        time.sleep(0.0005)
    producer.flush(10)
    print(json.dumps(probes))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
