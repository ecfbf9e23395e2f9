"""How long after an event was sent its effect can be read from Redis: at 1,000 and at 10,000 events a second.

    python -m benchmarks.freshness

A producer sends W1's events at a steady rate to a real broker, each stamped with the wall clock; 200 of them a second
are of forty drivers that nobody else has, the probes. A reader is told by Redis when a probe's key is written (keyspace
notifications, so that no polling takes time from the others), reads the row as a client does, and notes when it has the
time of the newest event in hand. Freshness of an event is the first such instant at which the row knew of it or of a
later one, less its stamp. All clocks are of one machine.

Ours: a worker with every default: a checkpoint every 10 s, values that fall by themselves, the offline log.
Peer: the loop that one writes by hand (peers/plain_loop.py): consume, decode, exact window, HSET in a pipeline.
Limit: the same loop, which ignores all but the probes and writes nothing but their time.

Five rounds in which each takes its turn on a topic of its own, for 9 s, the first 3 s not counted.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from redis import Redis

from benchmarks.live_worker import last_half_hour
from benchmarks.messages import make_topic
from benchmarks.produce import PROBES
from benchmarks.servers import Servers, servers
from benchmarks.workload import report
from headrace.serving import Client
from headrace.stores.opening import open_online

ROUNDS = 5
SECONDS = 9.0
WARM_S = 3.0
AFTER_S = 1.5
RATES = (1_000, 10_000)
MODULES = {
    "ours": "benchmarks.live_worker",
    "plain loop": "benchmarks.peers.plain_loop",
    "limit": "benchmarks.peers.plain_loop",
}

Seen = list[tuple[str, int, int]]
"""(driver, time of its newest event, when that was read), microseconds."""

Read = Callable[[bytes, str], int | None]
"""From key and driver to the time of the newest event that the row knows of."""


@contextmanager
def running(name: str, at: Servers, topic: str) -> Iterator[None]:
    """One of the systems as a process, ready to take events."""
    folder = at.folder / "live"
    shutil.rmtree(folder, ignore_errors=True)
    more = {"ours": [str(folder)], "limit": ["only"]}.get(name, [])
    command = [sys.executable, "-m", MODULES[name], at.bootstrap, topic, at.redis_url, *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"freshness: {name} ended with code {process.wait()} before it was ready.")
        yield
    finally:
        process.kill()
        process.wait()


def probe_keys(client: "Redis[bytes]") -> dict[bytes, str]:
    """Keys of the probes' rows, whatever their layout, with the driver."""
    found = {}
    for key in client.scan_iter(match=b"*probe_*", count=10_000):
        at = key.index(b"probe_")
        found[key] = key[at : at + len("probe_00")].decode()
    return found


def watch(at: Servers, read: Read, producer: "subprocess.Popen[str]") -> Seen:
    """What a reader sees of the probes until the producer has ended, and `AFTER_S` longer."""
    seen: Seen = []
    with Redis.from_url(at.redis_url) as client, client.pubsub() as told:
        found: dict[bytes, str] = {}
        while len(found) < len(PROBES) and producer.poll() is None:
            time.sleep(0.1)
            found = probe_keys(client)
        keys = {b"__keyspace@0__:" + key: (key, driver) for key, driver in found.items()}
        told.subscribe(*keys)
        ended = 0.0
        while not ended or time.monotonic() < ended + AFTER_S:
            if not ended and producer.poll() is not None:
                ended = time.monotonic()
            message = told.get_message(ignore_subscribe_messages=True, timeout=0.2)
            if message is not None:
                key, driver = keys[message["channel"]]
                newest = read(key, driver)
                if newest is not None:
                    seen.append((driver, newest, time.time_ns() // 1000))
    return seen


def row_reader(at: Servers) -> Read:
    """Reads a row of ours through the lookup client, as a model server does."""
    view = last_half_hour(at.bootstrap, "live", "us")
    client = Client(open_online(at.redis_url, read_only=True))

    def read(_: bytes, driver: str) -> int | None:
        newest = client.get(view, driver_id=driver).newest_event
        return None if newest is None else round(newest.timestamp() * 1e6)

    return read


def field_reader(at: Servers) -> Read:
    """Reads the field that the plain loop writes."""
    client = Redis.from_url(at.redis_url)
    return lambda key, _: int(client.hget(key, "newest_event") or 0) or None


def freshness(name: str, at: Servers, rate: int) -> list[float]:
    """Milliseconds of each probe of one run."""
    topic = f"live-{uuid.uuid4().hex[:8]}"
    make_topic(at.bootstrap, topic)
    with Redis.from_url(at.redis_url) as client:
        client.flushall()
        client.config_set("notify-keyspace-events", "Kh$")

    with running(name, at, topic):
        command = [sys.executable, "-m", "benchmarks.produce", at.bootstrap, topic, str(rate), str(SECONDS)]
        producer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        seen = watch(at, row_reader(at) if name == "ours" else field_reader(at), producer)
        assert producer.stdout is not None
        sent = json.loads(producer.stdout.read())
    return waits(sent, seen, rate)


def waits(sent: list[tuple[str, int]], seen: Seen, rate: int) -> list[float]:
    """Milliseconds from each probe's stamp to the first reading that knew of it."""
    first, last = sent[0][1] + WARM_S * 1e6, sent[-1][1] - 0.5e6
    readings: dict[str, list[tuple[int, int]]] = {}
    for driver, newest, when in seen:
        readings.setdefault(driver, []).append((newest, when))
    found, missing = [], 0
    for driver, stamp in sent:
        if first <= stamp <= last:
            when = min((when for newest, when in readings.get(driver, ()) if newest >= stamp), default=None)
            if when is None:
                missing += 1
            else:
                found.append((when - stamp) / 1000)
    if missing > len(found) / 100:
        raise SystemExit(f"freshness: {missing} of {missing + len(found)} probes at {rate}/s were never seen.")
    return found


def main() -> None:
    with servers() as at:
        for rate in RATES:
            runs: dict[str, list[list[float]]] = {name: [] for name in MODULES}
            for turn in range(ROUNDS):
                for name, its in runs.items():
                    its.append(freshness(name, at, rate))
                    middle, high = np.percentile(its[-1], [50, 99])
                    print(
                        f"  {rate}/s {name} {turn + 1}/{ROUNDS}: p50 {middle:.1f} ms, p99 {high:.1f} ms,"
                        f" {len(its[-1])} probes",
                        file=sys.stderr,
                    )
            for share in (50, 99):
                value = {
                    name: statistics.median(float(np.percentile(run, share)) for run in its)
                    for name, its in runs.items()
                }
                peers = {"plain loop": value["plain loop"]}
                case = f"{rate // 1000}k events/s p{share}"
                report("freshness", case, value["ours"], value["limit"], peers, "ms", ROUNDS, higher_is_better=False)


if __name__ == "__main__":
    main()
