"""W1 from a real Kafka to Redis and Parquet, with checkpoints, in one worker process.

    python -m benchmarks.flow

Ours: `run_worker` as `headrace run FILE --clock stream --until-end` runs it: decode, admission, both readings, online
rows to Redis in Feast's layout, the settled log to Parquet, a checkpoint of each partition every second and at the end;
all else as it is by default. Timed from the first partition's assignment to the last checkpoint. The answers are
checked: the number of log rows, and online values of some drivers against a count by hand.
Limit: a consumer of the same topic that decodes each message with msgspec into a typed object, and forgets it. Timed
from its first message.
Peers, from the same broker, each in an environment of its own (`make bench-peers`; left out without it): the exact
window by Flink SQL (`OVER ... RANGE`, peers/flink/W1.java) and by Quix Streams (`sliding_window`, peers/quix_w1.py),
and bytewax's window of 30 minutes every minute (`fold_window`, peers/bytewax_w1.py). Their rows go nowhere and nothing
is saved. They are slow, so they read topics of the first 200,000, 5,000 and 30,000 events only, 72, 2 and 11 minutes:
windows have not filled or hold few events, which is to their favour. Their rates are over those; Flink's is of a JVM
that has done a job before.

All take turns, five rounds after one to warm up.
"""

import shutil
import sys
import time
import uuid
from functools import partial
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from redis import Redis

from benchmarks.live_worker import last_half_hour
from benchmarks.messages import PARTITIONS, fill
from benchmarks.peers.w1_elsewhere import installed, topics
from benchmarks.servers import Servers, servers
from benchmarks.workload import EVENTS, W1, WINDOW_US, report, take_turns, w1
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.serving import Client
from headrace.stores.opening import open_online

TOPIC = "w1"
HOP_US = 30_000_000


class Span(Silent):
    """When the first partition was assigned."""

    began = 0.0

    def assigned(self, part: str, topic: str, partition: int) -> None:
        self.began = self.began or time.perf_counter()


def ours(at: Servers, data: W1) -> float:
    """Events per second of one run over the whole topic, whose answers are right."""
    view, folder, span = last_half_hour(at.bootstrap, TOPIC, "ms"), at.folder / "flow", Span()
    shutil.rmtree(folder, ignore_errors=True)
    with Redis.from_url(at.redis_url) as client:
        client.flushall()
    settings = FlowSettings(
        uuid.uuid4().hex[:8],
        str(folder),
        online=at.redis_url,
        clock="stream",
        until_end=True,
        checkpoint_every_s=1.0,
    )
    summary = run_worker([view], settings, observer=span)
    seconds = time.perf_counter() - span.began
    if summary.taken != EVENTS:
        raise SystemExit(f"flow: {summary.taken:,} of {EVENTS:,} events were taken: {summary}")
    check(view, at, data)
    online, log = summary.online_rows.total(), summary.log_rows.total()
    print(f"  ours: {online:,} online rows, {log:,} log rows, {seconds:.2f} s", file=sys.stderr)
    return EVENTS / seconds


def check(view: Any, at: Servers, data: W1) -> None:
    """Online values of drivers of every size against a count by hand."""
    now = int(data.time.max())
    drivers = np.unique(np.geomspace(1, len(np.unique(data.driver)), 12).astype(int)) - 1
    by_size = np.argsort(-np.bincount(data.driver))
    client = Client(open_online(at.redis_url, read_only=True))
    for driver in by_size[drivers].tolist():
        its = (data.driver == driver) & (data.time > (now - WINDOW_US) // HOP_US * HOP_US)
        vector = client.get(view, driver_id=f"driver_{driver:05d}")
        expected = (int(its.sum()), float(data.amount[its].sum()))
        got = (vector["pickups"], vector["amount_sum"])
        if got[0] != expected[0] or abs(got[1] - expected[1]) > 1e-6:
            raise SystemExit(f"flow: driver_{driver:05d} has (pickups, amount_sum) {got}, expected {expected}")


class Decoded(msgspec.Struct, gc=False):
    driver_id: str
    event_ts: int
    amount: float


def consume_and_decode(at: Servers) -> float:
    """Events per second of a consumer that decodes and does nothing else."""
    tuned = {"fetch.queue.backoff.ms": 2, "queued.min.messages": 1_000_000, "queued.max.messages.kbytes": 262_144}
    consumer = Consumer(
        {
            "bootstrap.servers": at.bootstrap,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 4_194_304,
            **tuned,
        }
    )
    consumer.assign([TopicPartition(TOPIC, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    decode = msgspec.json.Decoder(Decoded).decode
    began, got = 0.0, 0
    while got < EVENTS:
        messages = consumer.consume(10_000, 5.0)
        began = began or time.perf_counter()
        for message in messages:
            decode(message.value())
        got += len(messages)
    seconds = time.perf_counter() - began
    consumer.close()
    return EVENTS / seconds


def main() -> None:
    data = w1()
    with servers() as at:
        fill(at.bootstrap, TOPIC, data)
        peers = installed()
        topics(at, data, peers)
        runs = {"ours": lambda: ours(at, data), "limit": lambda: consume_and_decode(at)}
        rate = take_turns({**runs, **{name: partial(run, at) for name, run in peers.items()}})
    found = {name: value for name, value in rate.items() if name in peers}
    report("flow", "W1 sliding, checkpoints each second", rate["ours"], rate["limit"], found, "events/s")


if __name__ == "__main__":
    main()
