"""A fleet of workers and Spark on three times W1: what a core gives once it is warm, and what a dead one costs.

    python -m benchmarks.scaleout

Each engine replays a topic of 3 million events in four partitions, keyed by the driver, to Redis and Parquet. Its rate
is that of the last 2 million: begun when the first million was taken, ended with the last, so the start of interpreters
and of Spark's JVM is not in it. `fleet 1 worker` and `fleet 2 workers`: processes of a consumer group with checkpoints
each second. `spark 1 core`, `spark 2 cores`: `--engine spark --master local[N]` with turns of 400,000 events, a
checkpoint in each. The answers are counted: every event is taken once.
Limit: the bare operators of the four partitions in a loop of one process over events that are decoded already, with
the log's rows and a checkpoint of all four after every 400,000 events, as Spark's tasks have it. No Kafka, no Redis.

`recovery 1M entities`: two workers of a flow that holds a million entities; one is killed with SIGKILL. Seconds from
then until a new event of each of its partitions is readable in Redis. Limit: Kafka's session timeout, before which the
group cannot know, and reading the checkpoints of its two partitions from disk.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer
from redis import Redis

from benchmarks.live_worker import last_half_hour
from benchmarks.messages import PARTITIONS, fill, make_topic
from benchmarks.servers import Servers, servers
from benchmarks.workload import EVENTS, W1, report, take_turns, w1
from headrace.features.views import definition
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.pipeline import SourceFlow
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.serving import Client
from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.offline import OfflineLog
from headrace.stores.opening import open_online

TOPIC = "long"
LONG = 3 * EVENTS
TURN = 400_000
BATCH = 20_000
ENTITIES = 1_000_000
SESSION_S = 6.0


class Taken(Silent):
    """Prints a line of (time, events) for each batch that was processed; for several processes one clock."""

    def batch(self, part: str, events: int, nbytes: int, steps: Any) -> None:
        print(f"took {time.monotonic()} {events}", flush=True)


def warm_rate(lines: Sequence[str], case: str) -> float:
    """Events per second behind the first million, from all processes' lines."""
    told = sorted((float(at), int(events)) for _, at, events in (line.split() for line in lines))
    total, began = 0, 0.0
    for at, events in told:
        began = at if total < EVENTS else began
        if total < EVENTS:
            first = total + events
        total += events
    if total != LONG:
        raise SystemExit(f"scaleout: {case} took {total:,} of {LONG:,} events")
    return (total - first) / (told[-1][0] - began)


def run_engine(at: Servers, case: str, engine: str, count: int) -> float:
    """Warm events per second of `count` worker processes, or of Spark on so many cores."""
    folder = at.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    with Redis.from_url(at.redis_url) as client:
        client.flushall()
    name = uuid.uuid4().hex[:8]
    processes = 1 if engine == "spark" else count
    command = [sys.executable, "-m", "benchmarks.scaleout", engine, at.bootstrap, at.redis_url, str(folder), name]
    running = [
        subprocess.Popen([*command, str(count)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(processes)
    ]
    heard = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"scaleout: {case} failed with {[process.returncode for process in running]}")
    return warm_rate([line for text in heard for line in text.splitlines() if line.startswith("took ")], case)


def views(bootstrap: str) -> list[Any]:
    return [last_half_hour(bootstrap, TOPIC, "ms")]


def as_process(engine: str, bootstrap: str, redis_url: str, folder: str, name: str, count: str) -> None:
    settings = FlowSettings(
        name, folder, online=redis_url, clock="stream", until_end=True, checkpoint_every_s=1.0, worker=str(os.getpid())
    )
    if engine == "workers":
        run_worker(views(bootstrap), settings, observer=Taken())
        return
    from headrace.flows.spark.query import run_on_spark
    from headrace.flows.spark.settings import SparkSettings

    spark = SparkSettings(f"local[{count}]", max_events=TURN)
    run_on_spark(views(bootstrap), settings, spark, load=partial(views, bootstrap), observer=Taken())


# The bare operators


def in_partitions(data: W1) -> list[list[EventBatch]]:
    """The events of each partition in batches; a driver's are in one."""
    target = data.driver % PARTITIONS
    found = []
    for partition in range(PARTITIONS):
        its = np.flatnonzero(target == partition)
        batches = []
        for start in range(0, len(its), BATCH // PARTITIONS):
            rows = its[start : start + BATCH // PARTITIONS]
            columns = {
                "driver_id": BatchColumn("string", arrow=data.name.take(pa.array(rows))),
                "amount": BatchColumn("float64", values=data.amount[rows]),
                "event_ts": BatchColumn("timestamp", values=data.time[rows]),
            }
            offset = np.arange(start, start + len(rows), dtype=np.int64)
            batches.append(EventBatch.of(columns, data.time[rows], partition, offset))
        found.append(batches)
    return found


def bare(folder: Path, partitions: Sequence[Sequence[EventBatch]]) -> float:
    """Warm events per second of the operators alone, with log and checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)
    view = last_half_hour("localhost:1", TOPIC, "ms")
    flows = [SourceFlow(definition(view).source, [view], partitions=[n]) for n in range(len(partitions))]
    logs = [OfflineLog(folder, part=f"{TOPIC}-{n:04d}") for n in range(len(partitions))]
    done, since, began, first = 0, 0, 0.0, 0
    for step in range(max(map(len, partitions))):
        for flow, log, batches in zip(flows, logs, partitions, strict=True):
            if step < len(batches):
                output = flow.push(batches[step])
                for name, rows in output.log.items():
                    log.append(next(each for each in flow.views if each.name == name), rows)
                done += len(batches[step])
                since += len(batches[step])
        if since >= TURN:
            since = 0
            for flow, log in zip(flows, logs, strict=True):
                log.commit(settled_us=flow.settled_us(), snapshots=flow.save())
        if not began and done >= EVENTS:
            began, first = time.perf_counter(), done
    rate = (done - first) / (time.perf_counter() - began)
    for log in logs:
        log.close()
    return rate


# A dead worker


def recover(at: Servers) -> tuple[float, float]:
    """Seconds until the partitions of a killed worker are fresh again, and the limit."""
    topic, folder = f"many-{uuid.uuid4().hex[:6]}", at.folder / "many"
    shutil.rmtree(folder, ignore_errors=True)
    with Redis.from_url(at.redis_url) as client:
        client.flushall()
    make_topic(at.bootstrap, topic)
    producer = Producer(
        {
            "bootstrap.servers": at.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": 2_000_000,
        }
    )
    now_us = time.time_ns() // 1000

    def put(entity: int, at_us: int) -> None:
        said = json.dumps({"driver_id": f"d{entity:07d}", "event_ts": at_us, "amount": 1.0})
        producer.produce(topic, said, partition=entity % PARTITIONS)

    for entity in range(ENTITIES):
        put(entity, now_us)
        if entity % 10_000 == 0:
            producer.poll(0)
    producer.flush(60)
    name = uuid.uuid4().hex[:8]
    command = [
        sys.executable,
        "-m",
        "benchmarks.scaleout",
        "live",
        at.bootstrap,
        at.redis_url,
        str(folder),
        name,
        topic,
    ]
    workers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    view = last_half_hour(at.bootstrap, topic, "us")
    client = Client(open_online(at.redis_url, read_only=True))

    def seen(entity: int, count: int) -> bool:
        return bool(client.get(view, driver_id=f"d{entity:07d}")["pickups"] == count)

    def wait(true: Any, what: str) -> None:
        until = time.monotonic() + 180
        while not true():
            if time.monotonic() > until:
                raise SystemExit(f"scaleout: not within three minutes: {what}")
            time.sleep(0.02)

    try:
        parts = [f"{topic}-{n:04d}" for n in range(PARTITIONS)]
        whole = ENTITIES // PARTITIONS

        def committed() -> bool:
            found = [read_offset(folder / "log", part) for part in parts]
            return all(offset >= whole for offset in found)

        wait(committed, "a checkpoint of all entities")
        wait(lambda: all(seen(ENTITIES - 1 - n, 1) for n in range(PARTITIONS)), "rows of all partitions")
        time.sleep(3)
        workers[0].send_signal(signal.SIGKILL)
        began = time.perf_counter()
        for entity in range(PARTITIONS):
            put(entity, time.time_ns() // 1000)
        producer.flush(30)
        wait(lambda: all(seen(entity, 2) for entity in range(PARTITIONS)), "fresh rows after the kill")
        took = time.perf_counter() - began
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    began = time.perf_counter()
    for part in parts[:2]:
        read_checkpoint(folder / "log", part=part)
    return took, SESSION_S + time.perf_counter() - began


def read_offset(root: Path, part: str) -> int:
    from headrace.stores.commits import newest_commits
    from headrace.stores.places import open_place

    commit = newest_commits(open_place(root), part).get(part) if root.exists() else None
    return -1 if commit is None else max((at for its in commit.offsets.values() for at in its.values()), default=-1)


def live(bootstrap: str, redis_url: str, folder: str, name: str, topic: str) -> None:
    settings = FlowSettings(name, folder, online=redis_url, checkpoint_every_s=1.0, worker=str(os.getpid()))
    run_worker([last_half_hour(bootstrap, topic, "us")], settings, stop=threading.Event())


def main() -> None:
    data = w1(LONG)
    partitions = in_partitions(data)
    with servers() as at:
        fill(at.bootstrap, TOPIC, data)
        cases = {
            "fleet 1 worker": ("workers", 1),
            "fleet 2 workers": ("workers", 2),
            "spark 1 core": ("spark", 1),
            "spark 2 cores": ("spark", 2),
        }
        try:
            import pyspark  # noqa: F401
        except ImportError:
            cases = {case: how for case, how in cases.items() if how[0] != "spark"}
        runs: dict[str, Any] = {case: partial(run_engine, at, case, *how) for case, how in cases.items()}
        runs["limit"] = lambda: bare(at.folder / "bare", partitions)
        rate = take_turns(runs)
        for case in cases:
            report("scaleout", case, rate[case], rate["limit"], {}, "events/s")
        took = [recover(at) for _ in range(5)]
        ours, limit = (float(np.median([each[i] for each in took])) for i in range(2))
        report("scaleout", "recovery 1M entities", ours, limit, {}, "s", higher_is_better=False)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "live":
        live(*sys.argv[2:])
    else:
        as_process(*sys.argv[1:])
