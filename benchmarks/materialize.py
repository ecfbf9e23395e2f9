"""Materializing a Feast view of ten features from a Parquet file to Redis, each row another entity's.

    python -m benchmarks.materialize
    python -m benchmarks.materialize --quick      20,000 rows, one round, without peers: whether all still runs

Ours: `FeatureStore.materialize` with `batch_engine: {type: headrace.materialize.feast.HeadraceEngine}` and no other
option, reading included. Limit: `redis-cli --pipe` of the very hashes that this left, as HSET commands in the order of
the rows that were built beforehand: nothing is read, encoded or compared. Peer `feast`: the same repository with
Feast's local engine, in its own environment. All take turns, each run a fresh process on an emptied Redis; imports do
not count. Medians; `n` is the number of rounds, for Feast with a million rows fewer.

Peak memory is that of the process; its limit is a process that imports Feast, opens the repository and reads nothing.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from tests.servers.install import missing_redis
from tests.servers.redis import RedisServer

from benchmarks.served_rows import FEAST, ROOT
from benchmarks.workload import START_US, report

FEATURES = 10
ROUNDS, ROUNDS_OF_FEAST = 5, {200_000: 5, 1_000_000: 3}
PROGRAM = ROOT / "benchmarks" / "peers" / "feast_materialize.py"
ENGINE = "headrace.materialize.feast.HeadraceEngine"
PROJECT = b"bench"
CONFIG = """\
project: bench
provider: local
registry: {folder}/registry.db
offline_store: {{ type: file }}
online_store: {{ type: redis, connection_string: "127.0.0.1:{port}" }}
entity_key_serialization_version: 3
batch_engine: {{ type: {engine} }}
"""
Figures = dict[str, float]
"""`seconds` and `mb`."""


def write_rows(path: Path, rows: int) -> None:
    """user_id, f0 to f9 (floats and integers in turn) and instants within an hour, in no order."""
    draw = np.random.default_rng(20240615)
    columns = {
        f"f{at}": draw.integers(0, 1_000_000, rows) if at % 2 else draw.normal(size=rows) for at in range(FEATURES)
    }
    times = pa.array(START_US + draw.integers(0, 3_600_000_000, rows)).cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"user_id": draw.permutation(rows), **columns, "event_timestamp": times}), path)


def repository(folder: Path, python: Path, engine: str, rows: Path, port: int) -> Callable[[str], Figures]:
    """A Feast repository of its own over the rows; runs the program in it."""
    folder.mkdir()
    (folder / "rows.parquet").symlink_to(rows)
    (folder / "feature_store.yaml").write_text(CONFIG.format(folder=folder, port=port, engine=engine))
    program = shutil.copy(PROGRAM, folder)  # its own folder is the first on its path, where no other `feast` may be

    def run(what: str) -> Figures:
        told = subprocess.run([python, program, folder, what], capture_output=True, text=True, cwd=folder)
        if told.returncode:
            raise SystemExit(f"materialize: {engine}, {what}, failed:\n{told.stderr[-3000:]}")
        figures: Figures = json.loads(told.stdout.splitlines()[-1])
        return figures

    run("apply")
    return run


def prebuilt(client: redis.Redis, rows: Path, path: Path) -> None:
    """All hashes that Redis holds, as HSET commands in a file, in the order of the rows: in the order in which Redis
    itself tells its keys it takes them a fifth faster than in any that a source has."""
    place = {user: at for at, user in enumerate(pq.read_table(rows, columns=["user_id"])["user_id"].to_pylist())}
    keys = list(client.scan_iter(count=10_000))
    # In Feast's key of one integer its 8 bytes come before the project's name.
    end = len(PROJECT)
    keys.sort(key=lambda key: place[int.from_bytes(key[-end - 8 : -end], "little")])
    with path.open("wb") as file:
        for start in range(0, len(keys), 10_000):
            pipe = client.pipeline(transaction=False)
            for key in keys[start : start + 10_000]:
                pipe.hgetall(key)
            for key, row in zip(keys[start : start + 10_000], pipe.execute(), strict=True):
                file.write(command([b"HSET", key, *(each for pair in row.items() for each in pair)]))


def command(words: Iterable[bytes]) -> bytes:
    said = list(words)
    return b"*%d\r\n" % len(said) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in said)


def piped(path: Path, port: int) -> Figures:
    """`redis-cli --pipe` of the file."""
    began = time.perf_counter()
    with path.open("rb") as file:
        subprocess.run(["redis-cli", "-p", str(port), "--pipe"], stdin=file, stdout=subprocess.DEVNULL, check=True)
    return {"seconds": time.perf_counter() - began, "mb": 0.0}


def compare(server: RedisServer, folder: Path, rows: int, rounds: int, quick: bool) -> None:
    """One size: its two cases."""
    folder.mkdir()
    write_rows(folder / "rows.parquet", rows)
    ours = repository(folder / "ours", Path(sys.executable), ENGINE, folder / "rows.parquet", server.port)
    runs: dict[str, Callable[[], Figures]] = {"ours": lambda: ours("materialize")}
    turns = {"ours": rounds, "limit": rounds}
    if not quick and (FEAST / "feast").exists():
        feast = repository(folder / "feast", FEAST / "python", "local", folder / "rows.parquet", server.port)
        runs["feast"] = lambda: feast("materialize")
        turns["feast"] = min(rounds, ROUNDS_OF_FEAST[rows])
    elif not quick:
        print("  feast is not installed in .peers/feast: left out (make bench-peers)", file=sys.stderr)
    with server.client() as client:
        first = runs["ours"]()
        assert client.dbsize() == rows
        prebuilt(client, folder / "rows.parquet", folder / "hashes")
        runs["limit"] = lambda: piped(folder / "hashes", server.port)
        found: dict[str, list[Figures]] = {name: [] for name in runs}
        if quick:
            found["ours"], turns["ours"] = [first], 0
        for turn in range(rounds):
            for name, run in runs.items():
                if turn < turns[name]:
                    client.flushall()
                    found[name].append(run())
                    assert client.dbsize() == rows
                    print(f"  {rows} x {FEATURES} {name} {turn + 1}/{turns[name]}: {found[name][-1]}", file=sys.stderr)
    idle = [ours("open")["mb"] for _ in range(1 if quick else ROUNDS)]
    middle = {
        name: {of: statistics.median(each[of] for each in figures) for of in ("seconds", "mb")}
        for name, figures in found.items()
    }
    rates = {name: rows / figures["seconds"] for name, figures in middle.items()}
    shown = f"{rows // 1_000_000}M" if rows % 1_000_000 == 0 else f"{rows // 1000}k"
    case, n = f"{shown} x {FEATURES}", min(len(each) for each in found.values())
    peers = [name for name in runs if name not in ("ours", "limit")]
    report("materialize", case, rates["ours"], rates["limit"], {name: rates[name] for name in peers}, "rows/s", n)
    memory = {name: middle[name]["mb"] for name in peers}
    least = statistics.median(idle)
    report("materialize", f"{case} peak memory", middle["ours"]["mb"], least, memory, "MB", n, higher_is_better=False)


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    trouble = missing_redis()
    if trouble is None and shutil.which("redis-cli") is None:
        trouble = "redis-cli is not here; it comes with Redis."
    if trouble is not None:
        print(f"Left out, because it needs a real server. {trouble}", file=sys.stderr)
        sys.exit(1 if os.environ.get("CI") else 0)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        server = RedisServer(Path(name) / "redis")
        server.start()
        try:
            for rows in (20_000,) if quick else tuple(ROUNDS_OF_FEAST):
                compare(server, Path(name) / str(rows), rows, 1 if quick else ROUNDS, quick)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
