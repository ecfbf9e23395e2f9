"""A flow with a sink of every kind, killed at any moment and started again: each delivers what it promises."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from tests.servers.fixtures import RedisAddress

EVENTS = 6_000
KILLS = int(os.environ.get("SINK_KILLS", "2"))
LEFT_OUT = 7
"""Every so many rides are not long, and go nowhere."""

PROGRAM = """
import sys
from headrace.features import Event, EventTime, FileSource
from headrace.features.sinks import CallableSink, DuckDBSink, ParquetSink, RedisSink
from headrace.features.streams import Flow
from headrace.flows.runner import run

folder, url = sys.argv[1:]

class Ride(Event):
    number: int
    driver_id: str
    km: float
    at: EventTime

class Priced(Event):
    number: int
    driver_id: str
    fare: float
    at: EventTime

def price(ride) -> Priced:
    return Priced(number=ride.number, driver_id=ride.driver_id, fare=3.0 + 2 * ride.km, at=ride.at)

def append(rows, ids):
    with open(f"{folder}/lines", "a") as file:
        file.write("".join(f"{each} {row['number']}\\n" for row, each in zip(rows, ids)))

flow = Flow("pickups")
priced = flow.read(FileSource(f"{folder}/rides.jsonl", Ride)).filter(Ride.km > 0).map_rows(price)
priced.write(ParquetSink(f"{folder}/parquet"))
priced.write(DuckDBSink(f"{folder}/rides.duckdb", "priced"))
priced.write(RedisSink(url, "alerts", into="stream"))
priced.write(RedisSink(url, "driver:{driver_id}"))
priced.write(CallableSink(append, ids=True))

def shown(step):
    print(step.done, flush=True)

run([flow], f"{folder}/data", batch_size=50, checkpoint_every_s=0.02, progress=shown)
print("end", flush=True)
"""


def ride(number: int) -> dict[str, Any]:
    at = f"2026-05-01T{10 + number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
    return {"number": number, "driver_id": f"d{number % 4}", "km": float(number % LEFT_OUT), "at": at}


def start(folder: Path, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(folder / "program.py"), str(folder), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment(tmp_path: Path, redis_server: RedisAddress) -> None:
    (tmp_path / "rides.jsonl").write_text("".join(json.dumps(ride(i)) + "\n" for i in range(EVENTS)))
    (tmp_path / "program.py").write_text(PROGRAM)
    expected = [i for i in range(EVENTS) if i % LEFT_OUT]
    rng = random.Random(int(os.environ.get("SINK_SEED", "11")))
    client = redis_server.client()

    def stream() -> list[int]:
        return [int(fields[b"number"]) for _, fields in client.xrange("alerts")]

    for _ in range(KILLS):
        process = start(tmp_path, redis_server.url)
        assert process.stdout is not None
        for _ in range(rng.randint(1, 20)):
            line = process.stdout.readline()
            assert line
            if line == "end\n":
                break
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        for seen in (parquet(tmp_path), table(tmp_path), stream()):
            assert seen == expected[: len(seen)]
    process = start(tmp_path, redis_server.url)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert parquet(tmp_path) == table(tmp_path) == stream() == expected
    newest = {key: int(client.hget(key, "number") or -1) for key in client.scan_iter("driver:*")}
    assert newest == {b"driver:d%d" % k: max(i for i in expected if i % 4 == k) for k in range(4)}
    lines = [line.split() for line in (tmp_path / "lines").read_text().splitlines()]
    assert sorted({int(number) for _, number in lines}) == expected
    assert len({row_id for row_id, _ in lines}) == len(expected)  # a repetition has the id of the first time
    client.close()


def parquet(folder: Path) -> list[int]:
    files = (folder / "parquet").rglob("*.parquet")
    return sorted(number for file in files for number in pq.ParquetFile(file).read().column("number").to_pylist())


def table(folder: Path) -> list[int]:
    if not (folder / "rides.duckdb").exists():
        return []
    with duckdb.connect(str(folder / "rides.duckdb")) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM priced ORDER BY number").fetchall()]
