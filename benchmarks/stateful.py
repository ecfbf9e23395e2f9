"""State by key in plain Python: the mean of a driver's amounts so far, at each event, from a real Kafka.

    python -m benchmarks.stateful

Three million events of W1's drivers within its six hours, so that neither beginning nor end of a run weighs much.
Ours: a flow of steps in one worker process, `run_worker` as `headrace run FILE --until-end` runs it, every default left
as it is: decode, admission, rows in event-time order, checkpoints. Twice: `per-event` is `stateful` with a function of
a state and a row, `micro-batch` is `stateful_batches` with a function of pandas frames of 20 minutes of
event time, some 40,000 rows. Rows are counted and go nowhere. Timed from the turn of the worker in which the first
messages came to its last checkpoint.
Limit: a consumer of the same topic that decodes each message with msgspec and calls the function of `per-event`.
Peer: bytewax's `stateful_map` with the same function, from the same topic, in its own environment (`make bench-peers`;
left out without it). It takes events as they come, and saves nothing.

All take turns, five rounds after one to warm up.
"""

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.live_worker import Pickup
from benchmarks.messages import PARTITIONS, fill
from benchmarks.servers import Servers, servers
from benchmarks.workload import EVENTS, report, take_turns, w1
from headrace.features import Event, EventTime, Flow, KafkaSource
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings

TOPIC = "w1"
BYTEWAX = Path(__file__).parents[1] / ".peers" / "bytewax" / "bin" / "python"
EVERY = "20m"
LONG = 3 * EVENTS
State = tuple[int, float]


class Span(Silent):
    """From the turn in which the first messages came to the last checkpoint, seconds."""

    def __init__(self) -> None:
        self._turned = self._began = self._ended = 0.0

    def alive(self) -> None:
        self._turned = time.perf_counter()

    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None:
        self._began = self._began or self._turned

    def checkpoint(self, part: str, *, seconds: float, nbytes: int, delta: bool) -> None:
        self._ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._ended - self._began


class Mean(Event):
    driver_id: str
    mean: float
    event_ts: EventTime


def mean(state: State | None, event: Any) -> tuple[State, dict[str, Any]]:
    count, total = state or (0, 0.0)
    count, total = count + 1, total + event.amount
    return (count, total), {"driver_id": event.driver_id, "mean": total / count}


def means(state: Any, events: Any) -> Any:
    at = state.index.get_indexer(events.driver_id)
    by_driver = events.amount.groupby(at, sort=False)
    count = by_driver.cumcount() + 1 + state.n.to_numpy()[at]
    total = by_driver.cumsum() + state.total.to_numpy()[at]
    state["n"] += np.bincount(at)
    state["total"] += np.bincount(at, events.amount)
    return state, pd.DataFrame({"driver_id": events.driver_id, "mean": total / count})


def ours(at: Servers, frames: bool) -> float:
    """Events per second of one run over the whole topic."""
    flow, folder, span = Flow("means"), at.folder / "stateful", Span()
    shutil.rmtree(folder, ignore_errors=True)
    source = KafkaSource(TOPIC, Pickup, keyed_by="driver_id", lateness="10s", unit="ms", bootstrap_servers=at.bootstrap)
    keyed = flow.read(source).key_by("driver_id")
    if frames:
        keyed.stateful_batches(means, state={"n": 0, "total": 0.0}, every=EVERY, gives=Mean, name="mean")
    else:
        keyed.stateful(mean, gives=Mean, name="mean")
    summary = run_worker([flow], FlowSettings(uuid.uuid4().hex[:8], str(folder), until_end=True), observer=span)
    if summary.taken != LONG or summary.given["means.mean"] != LONG:
        raise SystemExit(f"stateful: {summary.taken:,} of {LONG:,} events were taken: {summary}")
    return LONG / span.seconds


class Decoded(msgspec.Struct, gc=False):
    driver_id: str
    event_ts: int
    amount: float


def consume_and_call(at: Servers) -> float:
    """Events per second of a consumer that decodes and calls `mean` by driver."""
    tuned = {"fetch.queue.backoff.ms": 2, "queued.min.messages": 1_000_000, "queued.max.messages.kbytes": 262_144}
    settings = {"bootstrap.servers": at.bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
    consumer = Consumer({**settings, "fetch.message.max.bytes": 4_194_304, **tuned})
    consumer.assign([TopicPartition(TOPIC, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    decode = msgspec.json.Decoder(Decoded).decode
    states: dict[str, State] = {}
    began, got = 0.0, 0
    while got < LONG:
        messages = consumer.consume(10_000, 5.0)
        began = began or time.perf_counter()
        for message in messages:
            event = decode(message.value())
            states[event.driver_id], _ = mean(states.get(event.driver_id), event)
        got += len(messages)
    seconds = time.perf_counter() - began
    consumer.close()
    return LONG / seconds


def bytewax(at: Servers) -> float:
    """Events per second of bytewax over the same topic."""
    script = Path(__file__).with_name("peers") / "bytewax_stateful.py"
    ran = subprocess.run([BYTEWAX, script, at.bootstrap, TOPIC], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"stateful: bytewax failed:\n{ran.stderr}")
    told = json.loads(ran.stdout)
    if told["rows"] != LONG:
        raise SystemExit(f"stateful: bytewax gave {told['rows']} rows of {LONG}")
    return float(told["events"] / told["seconds"])


def main() -> None:
    with servers() as at:
        fill(at.bootstrap, TOPIC, w1(LONG))
        runs = {
            "per-event": lambda: ours(at, False),
            "micro-batch": lambda: ours(at, True),
            "limit": lambda: consume_and_call(at),
        }
        if BYTEWAX.exists():
            runs["bytewax"] = lambda: bytewax(at)
        rate = take_turns(runs)
    print(json.dumps({name: round(value) for name, value in rate.items()}), file=sys.stderr)
    peers = {name: value for name, value in rate.items() if name == "bytewax"}
    for case in ("per-event", "micro-batch"):
        report("stateful", case, rate[case], rate["limit"], peers, "events/s")


if __name__ == "__main__":
    main()
