"""What each step of an event's way costs in batches of 1, 100 and 10,000: nanoseconds of wall time an event.

    python -m benchmarks.steps

W1's drivers at 10,000 events a second, real Kafka messages of one partition, real Redis, files on disk; the objects
that a worker calls, in its order, in one thread, so that nothing overlaps:

decode     a message's parts and its JSON to columns            limit: msgspec decodes each value into a typed object
process    admission, online rows; settling, once a second or   limit: a NumPy pass: tiles, and count, sum and maximum
           a thousand events as a live flow does                by driver
write      the newest row of each driver to Redis: coalesced,   limit: the same bytes through a bare socket, and the
           encoded, sent, answered                              answers read
log        settled rows staged and committed, flushed to the    limit: Arrow writes the same rows as Parquet, flushed
           disk, each round
checkpoint what a checkpoint of the flow holds, each round      limit: a copy of its bytes in memory

Log and checkpoint are those of a round of 10,000 events (of 1,000 in batches of one), a hundred times as often as in a
live flow: the figures are for a comparison of steps. Five rounds in which each takes its turn with its limit, after one
to warm up; medians.
"""

import dataclasses
import os
import socket
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from redis import Redis

from benchmarks.live_worker import last_half_hour
from benchmarks.messages import PARTITIONS, fill
from benchmarks.operator import HOP_US
from benchmarks.servers import Servers, servers
from benchmarks.workload import DRIVERS, report, w1
from headrace.features.views import definition
from headrace.flows.batch import EventBatch
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.pipeline import SourceFlow
from headrace.flows.warm import warm
from headrace.flows.worker.newest import NewestRows
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Portion
from headrace.stores.opening import open_online

TOPIC = "steps"
SIZES = {1: 1_000, 100: 10_000, 10_000: 10_000}
"""Events of a round, by size of batch."""
ROUNDS = 5
BEFORE = 20_000
APART_US = 100


class Decoded(msgspec.Struct, gc=False):
    driver_id: str
    event_ts: int
    amount: float


class Way:
    """One flow and what it takes to send events through it, step by step."""

    def __init__(self, at: Servers, size: int) -> None:
        view = last_half_hour(at.bootstrap, TOPIC, "ms")
        self.view = definition(view)
        self.spent: dict[str, float] = defaultdict(float)
        self.log = OfflineLog(at.folder / f"log-{size}", part="steps")
        self.store = open_online(at.redis_url, expire=True)
        self.store.take_over(f"steps-{size}", 1)
        self._writer = f"steps-{size}"
        self._flow = SourceFlow(self.view.source, [view], live=True)
        self._decoder = MessageDecoder(self.view.source, {})
        self._offset = 0

    def timed(self, step: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        made = call()
        self.spent[step] += time.perf_counter() - began
        return made

    def take(self, messages: Sequence[Any]) -> tuple[EventBatch, pa.Table | None, pa.Table | None]:
        """One batch; its events, the log's rows and the online rows that were written."""
        numbers = np.zeros(len(messages), dtype=np.int32)
        batch = self.timed("decode", lambda: self._decoder.decode(messages, numbers))[0]
        clock = int(batch.time.max())
        out = self.timed("process", lambda: self._flow.push(batch, clock, clock))
        self._offset += len(messages)
        rows = self.timed("write", lambda: self._write(out.online, clock))
        settled = out.log.get(self.view.name)
        if settled is not None:
            self.timed("log", lambda: self.log.append(self.view, settled))
        return batch, settled, rows

    def _write(self, online: dict[str, pa.Table], clock: int) -> pa.Table | None:
        gathered = NewestRows({self.view.name: self.view})
        gathered.add(online)
        newest = gathered.take().get(self.view.name)
        rows = [] if newest is None else [(self.view, newest)]
        told = self.store.write_portions([Portion(self._writer, 1, self._offset, clock, rows)])
        assert told == ["written"]
        return newest

    def commit(self) -> bytes:
        """What a checkpoint holds, after the log's rows were made to count."""
        self.timed("log", lambda: self.log.commit(settled_us={}))
        parts = self.timed("checkpoint", lambda: [part.data for part in self._flow.save(full=True).values()])
        return b"".join(parts)


class Limits:
    """The least that each step takes, on what the steps had and gave."""

    def __init__(self, at: Servers) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._file = at.folder / "limit.parquet"
        self._decode = msgspec.json.Decoder(Decoded).decode
        with Redis.from_url(at.redis_url) as client:
            self._socket = socket.create_connection(("127.0.0.1", client.connection_pool.connection_kwargs["port"]))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def timed(self, step: str, call: Callable[[], Any]) -> None:
        began = time.perf_counter()
        call()
        self.spent[step] += time.perf_counter() - began

    def take(self, messages: Sequence[Any], batch: EventBatch, rows: pa.Table | None, command: bytes) -> None:
        self.timed("decode", lambda: [self._decode(message.value()) for message in messages])
        driver = np.asarray([hash(name) % DRIVERS for name in batch.values("driver_id")])
        amount, when = batch.values("amount"), batch.time
        self.timed("process", lambda: numpy_pass(driver, amount, when))
        if rows is not None:
            self.timed("write", lambda: self._exchange(command, rows.num_rows))

    def _exchange(self, data: bytes, answers: int) -> None:
        self._socket.sendall(data)
        got = 0
        while got < answers:
            got += self._socket.recv(1 << 16).count(b"\n")

    def commit(self, settled: Sequence[pa.Table], held: bytes) -> None:
        if settled:
            table = pa.concat_tables(settled)
            self.timed("log", lambda: self._parquet(table))
        self.timed("checkpoint", lambda: bytearray(held))

    def _parquet(self, table: pa.Table) -> None:
        with self._file.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())


def numpy_pass(driver: Any, amount: Any, when: Any) -> Any:
    tile = (when - 1) // HOP_US
    greatest = np.zeros(int(driver.max()) + 1)
    np.maximum.at(greatest, driver, amount)
    return np.bincount(driver), np.bincount(driver, weights=amount), greatest, tile


def commands(store: Any, view: Any, rows: pa.Table | None) -> bytes:
    """HSET of each row, as it is sent."""
    if rows is None:
        return b""
    from hiredis import pack_command

    known = store._views.registered(view)
    encoded = known.rows.encode(rows)
    fields = known.rows.fields
    return b"".join(
        pack_command(("HSET", key, *(each for pair in zip(fields, values, strict=True) for each in pair)))
        for key, *values in zip(encoded.keys, *encoded.values, strict=True)
    )


def consumed(at: Servers, count: int) -> list[Any]:
    """Messages of the topic's first partition."""
    consumer = Consumer({"bootstrap.servers": at.bootstrap, "group.id": "steps", "enable.auto.commit": False})
    consumer.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
    found: list[Any] = []
    while len(found) < count:
        found += [message for message in consumer.consume(10_000, 5.0) if message.error() is None]
    consumer.close()
    return found[:count]


def measure(at: Servers, size: int, messages: Sequence[Any]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Nanoseconds an event of each step in each round, ours and the limits."""
    way, limits = Way(at, size), Limits(at)
    for start in range(0, BEFORE, 1000):
        way.take(messages[start : start + 1000])
    way.commit()
    count = SIZES[size]
    ours: dict[str, list[float]] = defaultdict(list)
    least: dict[str, list[float]] = defaultdict(list)
    for turn in range(ROUNDS + 1):
        way.spent.clear()
        limits.spent.clear()
        begin = BEFORE + turn * count
        done = []
        for start in range(begin, begin + count, size):
            batch, settled, rows = way.take(messages[start : start + size])
            done.append((batch, settled, rows, commands(way.store, way.view, rows)))
        held = way.commit()
        for start, (batch, _, rows, command) in zip(range(begin, begin + count, size), done, strict=True):
            limits.take(messages[start : start + size], batch, rows, command)
        limits.commit([settled for _, settled, _, _ in done if settled is not None], held)
        if turn:
            for found, spent in ((ours, way.spent), (least, limits.spent)):
                for step, seconds in spent.items():
                    found[step].append(seconds / count * 1e9)
    way.log.close()
    way.store.close()
    return ours, least


def main() -> None:
    warm()
    wanted = BEFORE + (ROUNDS + 1) * max(SIZES.values())
    data = w1(wanted * PARTITIONS * 2)
    now = time.time_ns() // 1000
    data = dataclasses.replace(data, time=now - 600_000_000 + np.arange(len(data.time)) * APART_US)
    with servers() as at:
        fill(at.bootstrap, TOPIC, data)
        messages = consumed(at, wanted)
        for size in SIZES:
            ours, least = measure(at, size, messages)
            for step, figures in ours.items():
                limit = statistics.median(least[step])
                case = f"{step}, batches of {size:,}"
                report("steps", case, statistics.median(figures), limit, {}, "ns/event", ROUNDS, higher_is_better=False)
                print(f"  {case}: {statistics.median(figures):,.0f} ns, limit {limit:,.0f}", file=sys.stderr)


if __name__ == "__main__":
    main()
