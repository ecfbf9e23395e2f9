"""Both layouts of the Redis store beside prebuilt bytes: the figures of docs/decisions/0008-redis-layout.md.

    python -m benchmarks.redis_store

Rows of 100,000 entities, keys like "driver-12345", 4 or 10 features (counts, sums, means, maxima), written by one
writer in batches of 100 and 10,000. The limit: the same values as HSET or SET commands that were built beforehand, sent
as fast as the server takes them, with nothing compared. Cases alternate; medians of 5. Processor time is that of each
side per row, which other work on the machine disturbs least.
"""

from __future__ import annotations

import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import hiredis
import numpy as np
import pyarrow as pa
import redis
from tests.servers.redis import RedisServer

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource
from headrace.stores.feast_rows import FeastRows
from headrace.stores.layout import arrow_schema, row_layout
from headrace.stores.online import Portion
from headrace.stores.packed_rows import PackedRows
from headrace.stores.redis import RedisStore

ENTITIES, RUNS = 100_000, 5
AT = 1_767_225_600_000_000
Layout = Literal["feast", "packed"]


class Ride(Event):
    driver: str
    fare: float
    at: EventTime


RIDES = IterableSource([], Ride)


class Four(FeatureView, source=RIDES, entity=Entity("driver", key="driver")):
    rides = Ride.count(last="1h")
    total = Ride.fare.sum(last="1h")
    mean = Ride.fare.mean(last="1h")
    most = Ride.fare.max(last="1h")


class Ten(FeatureView, source=RIDES, entity=Entity("driver", key="driver")):
    rides = Ride.count(last=["30m", "1h", "1d"])
    total = Ride.fare.sum(last=["1h", "1d"])
    mean = Ride.fare.mean(last=["1h", "1d"])
    most = Ride.fare.max(last=["30m", "1h", "1d"])


def rows(view: Any, n: int, after_s: int) -> pa.Table:
    """n rows of different entities, as of instants within a second."""
    draw = np.random.default_rng(after_s)
    layout = row_layout(view)
    at = AT + after_s * 1_000_000 + draw.integers(0, 1_000_000, n)
    columns: dict[str, Any] = {
        "driver": [f"driver-{each}" for each in draw.choice(ENTITIES, n, replace=False)],
        "event_timestamp": pa.array(at).cast(pa.timestamp("us", tz="UTC")),
        "newest_event": pa.array(at - 1000).cast(pa.timestamp("us", tz="UTC")),
    }
    for name, dtype in layout.features:
        columns[name] = draw.integers(0, 3000, n) if dtype == "int64" else draw.random(n) * 100
    return pa.table(columns).cast(arrow_schema(layout))


def prebuilt(view: Any, layout: Layout, table: pa.Table) -> bytes:
    """The table as commands that compare nothing."""
    known = FeastRows(row_layout(view), "raw") if layout == "feast" else PackedRows(row_layout(view), "raw")
    encoded = known.encode(table)
    made = []
    for key, *values in zip(encoded.keys, *encoded.values, strict=True):
        if layout == "feast":
            pairs = [each for pair in zip(known.fields, values, strict=True) for each in pair]
            made.append(hiredis.pack_command(("HSET", key, *pairs)))
        else:
            made.append(hiredis.pack_command(("SET", key, *values)))
    return b"".join(made)


def pour(port: int, data: bytes, answers: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        while answers > 0:
            answers -= connection.recv(1 << 20).count(b"\n")
        sender.join()


def timed(client: redis.Redis, n: int, work: Callable[[], object]) -> dict[str, float]:
    """Rows per second, and microseconds of processor time per row of the server and of this process."""

    def server() -> float:
        told = client.info("cpu")
        return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])

    used, own, began = server(), time.process_time(), time.perf_counter()
    work()
    seconds, own = time.perf_counter() - began, time.process_time() - own
    return {"rows_s": n / seconds, "client_us": own / n * 1e6, "server_us": (server() - used) / n * 1e6}


def middle(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in found), 2) for name in found[0]}


def case(server: RedisServer, view: Any, layout: Layout) -> None:
    """One layout and view: memory, then writes in both sizes of batch, and reads."""
    shown = f"{layout}, {len(row_layout(view).features)} features"
    with server.client() as client, RedisStore(server.url, layout=layout) as store:
        client.flushall()
        before = client.info("memory")["used_memory"]
        store.write(view, rows(view, ENTITIES, 0))
        memory = (client.info("memory")["used_memory"] - before) / ENTITIES
        print(json.dumps({"bench": "redis_store", "case": f"{shown}, memory", "ours": round(memory), "unit": "B/row"}))
        store.take_over("bench", 1)
        for size, count in ((100, 50), (10_000, 5)):
            ours, limit, encode = [], [], []
            for run in range(RUNS):
                tables = [rows(view, size, 1 + 100 * size + run * count + each) for each in range(count)]
                data = [prebuilt(view, layout, table) for table in tables]
                known = FeastRows(row_layout(view), "x") if layout == "feast" else PackedRows(row_layout(view), "x")

                def write(tables: list[pa.Table] = tables) -> None:
                    for table in tables:
                        assert store.write_portions([Portion("bench", 1, 0, AT, [(view, table)])]) == ["written"]

                def send(data: list[bytes] = data, size: int = size) -> None:
                    for each in data:
                        pour(server.port, each, size)

                def only_encode(tables: list[pa.Table] = tables, known: Any = known) -> None:
                    for table in tables:
                        known.encode(table)

                limit.append(timed(client, size * count, send))
                ours.append(timed(client, size * count, write))
                encode.append(timed(client, size * count, only_encode))
            told = {"ours": middle(ours), "limit": middle(limit), "encoding alone": middle(encode)["rows_s"]}
            print(json.dumps({"bench": "redis_store", "case": f"{shown}, write {size}", **told, "n": RUNS}), flush=True)
        keys = [{"driver": f"driver-{each}"} for each in range(100)]
        found = [timed(client, 5000, lambda: [store.read(view, keys) for _ in range(50)]) for _ in range(RUNS)]
        print(json.dumps({"bench": "redis_store", "case": f"{shown}, read 100", "ours": middle(found), "n": RUNS}))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            for view in (Four, Ten):
                for layout in ("feast", "packed"):
                    case(server, view, layout)  # type: ignore[arg-type]
        finally:
            server.kill()


if __name__ == "__main__":
    main()
