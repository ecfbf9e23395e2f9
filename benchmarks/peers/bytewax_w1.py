"""bytewax's sliding windows on W1, from Kafka: run by flow.py with the interpreter of its own environment.

    .peers/bytewax/bin/python bytewax_w1.py BOOTSTRAP TOPIC        prints {"seconds": .., "events": .., "rows": ..}

Count, sum and maximum over 30 minutes every minute per driver with `fold_window`, as its documentation has it; mean is
their quotient. Rows are counted and go nowhere, and nothing is saved for recovery: both would only slow it down.
Timed from the first message to the end of the topic.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

Fold = tuple[int, float, float]


class Seen:
    first = 0.0
    events = 0
    rows = 0


def decode(message: KafkaSourceMessage) -> dict[str, Any]:
    Seen.first = Seen.first or time.perf_counter()
    Seen.events += 1
    return orjson.loads(message.value)


def fold(into: Fold, event: dict[str, Any]) -> Fold:
    amount = event["amount"]
    return (into[0] + 1, into[1] + amount, max(into[2], amount))


def merge(one: Fold, other: Fold) -> Fold:
    return (one[0] + other[0], one[1] + other[1], max(one[2], other[2]))


class Rows(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        Seen.rows += len(items)


class Counted(DynamicSink[Any]):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> Rows:
        return Rows()


def flow(bootstrap: str, topic: str) -> Dataflow:
    made = Dataflow("w1")
    # fetch.queue.backoff.ms is the setting without which librdkafka starves a fast consumer.
    source = KafkaSource([bootstrap], [topic], tail=False, batch_size=1000, add_config={"fetch.queue.backoff.ms": "2"})
    events = op.map("decode", op.input("in", made, source), decode)
    keyed = op.key_on("driver", events, lambda event: event["driver_id"])
    clock = win.EventClock(
        ts_getter=lambda event: datetime.fromtimestamp(event["event_ts"] / 1000, UTC),
        wait_for_system_duration=timedelta(seconds=10),
        to_system_utc=lambda _: None,  # a replay; its default made it four times slower
    )
    every = win.SlidingWindower(timedelta(minutes=30), timedelta(minutes=1), datetime(2025, 12, 31, tzinfo=UTC))
    rows = win.fold_window("last 30m", keyed, clock, every, lambda: (0, 0.0, 0.0), fold, merge).down
    op.output("out", rows, Counted())
    return made


def main() -> None:
    run_main(flow(*sys.argv[1:]))
    seconds = time.perf_counter() - Seen.first
    print(json.dumps({"seconds": seconds, "events": Seen.events, "rows": Seen.rows}), flush=True)
    os._exit(0)  # its Kafka clients take seconds to say goodbye


if __name__ == "__main__":
    main()
