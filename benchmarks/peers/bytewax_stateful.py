"""bytewax's `stateful_map` on W1, from Kafka: run by stateful.py with the interpreter of its own environment.

    .peers/bytewax/bin/python bytewax_stateful.py BOOTSTRAP TOPIC     prints {"seconds": .., "events": .., "rows": ..}

The mean of a driver's amounts so far at each event, with the function of stateful.py. Events are taken as they come, in
no order of event time. Rows are counted and go nowhere, and nothing is saved for recovery: both would slow it down.
Timed from the first message to the end of the topic.
"""

import json
import os
import sys
import time
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

State = tuple[int, float]


class Seen:
    first = 0.0
    events = 0
    rows = 0


def decode(message: KafkaSourceMessage) -> dict[str, Any]:
    Seen.first = Seen.first or time.perf_counter()
    Seen.events += 1
    return orjson.loads(message.value)


def mean(state: State | None, event: dict[str, Any]) -> tuple[State, dict[str, Any]]:
    count, total = state or (0, 0.0)
    count, total = count + 1, total + event["amount"]
    return (count, total), {"driver_id": event["driver_id"], "mean": total / count}


class Rows(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        Seen.rows += len(items)


class Counted(DynamicSink[Any]):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> Rows:
        return Rows()


def flow(bootstrap: str, topic: str) -> Dataflow:
    made = Dataflow("stateful")
    # fetch.queue.backoff.ms is the setting without which librdkafka starves a fast consumer.
    source = KafkaSource([bootstrap], [topic], tail=False, batch_size=1000, add_config={"fetch.queue.backoff.ms": "2"})
    events = op.map("decode", op.input("in", made, source), decode)
    keyed = op.key_on("driver", events, lambda event: event["driver_id"])
    op.output("out", op.stateful_map("mean", keyed, mean), Counted())
    return made


def main() -> None:
    run_main(flow(*sys.argv[1:]))
    seconds = time.perf_counter() - Seen.first
    print(json.dumps({"seconds": seconds, "events": Seen.events, "rows": Seen.rows}), flush=True)
    os._exit(0)  # its Kafka clients take seconds to say goodbye


if __name__ == "__main__":
    main()
