"""SQLite (WAL) against LMDB as the embedded online store: the figures of docs/decisions/embedded-store.md.

A writer upserts batches of coalesced rows (one row per entity, never older over newer) while a second process
reads single rows and hundreds of rows; then the writer is killed with SIGKILL at random moments and every row of
the reopened store is compared with a replay of the batches it had acknowledged.

    python benchmarks/embedded_store.py            # needs `pip install lmdb` beside the project's own packages

Rows: 100,000 entities drawn by a Zipf law (exponent 1.1), coalesced to one row per entity and sorted by key; a row is
ten features and two times, about 110 bytes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

ENTITIES = 100_000
VIEW = b"driver_activity\x00"
SECONDS = 2.5
Row = tuple[bytes, int, bytes]


class Sqlite:
    """A table without rowid, keyed by (view, key), in WAL mode; `synchronous` is SQLite's own word."""

    def __init__(self, folder: Path, synchronous: str = "NORMAL", read_only: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.db = sqlite3.connect(folder / "online.sqlite", isolation_level=None, cached_statements=16)
        if not read_only:
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute(
                "CREATE TABLE IF NOT EXISTS rows (view INTEGER, key BLOB, at INTEGER, value BLOB,"
                " PRIMARY KEY (view, key)) WITHOUT ROWID"
            )
            self.db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER)")
        self.db.execute(f"PRAGMA synchronous={synchronous}")
        self.db.execute("PRAGMA mmap_size=268435456")
        self.db.execute("PRAGMA cache_size=-65536")
        self.db.execute("PRAGMA wal_autocheckpoint=8192")

    def write(self, batch: int, rows: list[Row]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(
            "INSERT INTO rows VALUES (1, ?, ?, ?) ON CONFLICT (view, key) DO UPDATE SET at = excluded.at,"
            " value = excluded.value WHERE excluded.at >= at",
            rows,
        )
        self.db.execute("INSERT OR REPLACE INTO meta VALUES ('batch', ?)", (batch,))
        self.db.execute("COMMIT")

    def read(self, key: bytes) -> bytes | None:
        row = self.db.execute("SELECT value FROM rows WHERE view = 1 AND key = ?", (key,)).fetchone()
        return row[0] if row else None

    def read_many(self, keys: list[bytes]) -> list[bytes | None]:
        self.db.execute("BEGIN")
        found = [self.read(key) for key in keys]
        self.db.execute("COMMIT")
        return found

    def batch(self) -> int:
        row = self.db.execute("SELECT value FROM meta").fetchone()
        return row[0] if row else -1

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        assert self.db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        yield from self.db.execute("SELECT key, value FROM rows")

    def bytes(self) -> int:
        return sum(f.stat().st_size for f in self.folder.iterdir())

    def close(self) -> None:
        self.db.close()


class Lmdb:
    """One LMDB database; the value opens with its time, compared inside the write transaction."""

    def __init__(self, folder: Path, sync: bool, metasync: bool, read_only: bool = False) -> None:
        import lmdb

        self.folder = folder
        self.env = lmdb.open(
            str(folder), map_size=4 << 30, sync=sync, metasync=metasync, readonly=read_only, max_readers=64
        )

    def write(self, batch: int, rows: list[Row]) -> None:
        with self.env.begin(write=True) as txn:
            get, put = txn.get, txn.put
            for key, at, value in rows:
                key, at8 = VIEW + key, struct.pack(">Q", at)
                old = get(key)
                if old is None or bytes(old[:8]) <= at8:
                    put(key, at8 + value)
            put(b"\x00batch", struct.pack(">q", batch))

    def read(self, key: bytes) -> bytes | None:
        with self.env.begin() as txn:
            value = txn.get(VIEW + key)
        return None if value is None else value[8:]

    def read_many(self, keys: list[bytes]) -> list[bytes | None]:
        with self.env.begin() as txn:
            found = [txn.get(VIEW + key) for key in keys]
        return [None if value is None else value[8:] for value in found]

    def batch(self) -> int:
        with self.env.begin() as txn:
            value = txn.get(b"\x00batch")
        return -1 if value is None else struct.unpack(">q", value)[0]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        with self.env.begin() as txn:
            for key, value in txn.cursor():
                if key != b"\x00batch":
                    yield bytes(key[len(VIEW) :]), bytes(value[8:])

    def bytes(self) -> int:
        return sum(f.stat().st_blocks * 512 for f in self.folder.iterdir())

    def close(self) -> None:
        self.env.close()


STORES: dict[str, Callable[..., Any]] = {
    "sqlite wal, synchronous=normal": lambda f, **k: Sqlite(f, "NORMAL", **k),
    "sqlite wal, synchronous=full": lambda f, **k: Sqlite(f, "FULL", **k),
    "lmdb, sync": lambda f, **k: Lmdb(f, True, True, **k),
    "lmdb, sync, no metasync": lambda f, **k: Lmdb(f, True, False, **k),
    "lmdb, no sync": lambda f, **k: Lmdb(f, False, False, **k),
}


def batch_rows(number: int, size: int) -> list[Row]:
    """Batch `number`: `size` rows of distinct entities, sorted by key. The same rows whenever asked."""
    rng = np.random.default_rng(number)
    keys = np.unique(rng.zipf(1.1, size * 40) % ENTITIES)
    keys = rng.permutation(keys)[:size] if len(keys) > size else keys
    encode = msgspec.msgpack.Encoder().encode
    at = 1_767_225_600_000_000 + number * 1000
    floats = rng.normal(size=(len(keys), 7)).tolist()
    return sorted(
        (encode([f"driver-{key}"]), at, encode([at, at - 5, number, 3, "berlin", *values]))
        for key, values in zip(keys.tolist(), floats, strict=True)
    )


def keep_writing(name: str, folder: Path, size: int, seconds: float, pipe: Any) -> None:
    store = STORES[name](folder)
    batches = [batch_rows(i, size) for i in range(40)]
    store.write(0, [row for i in range(1000, 1020) for row in batch_rows(i, 10_000)])
    store.write(0, batches[0])
    pipe.send("ready")
    spent, rows, i = [], 0, 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        i += 1
        batch = [(key, at + 10_000_000_000 + i, value) for key, at, value in batches[i % 40]]
        start = time.perf_counter()
        store.write(i, batch)
        spent.append(time.perf_counter() - start)
        rows += len(batch)
    pipe.send(
        {
            "rows_per_s": rows / sum(spent),
            "batch_ms": statistics.median(spent) * 1e3,
            "bytes": store.bytes(),
            "rows_in_batch": rows / i,
            "batch_p99_ms": sorted(spent)[int(len(spent) * 0.99)] * 1e3,
        }
    )
    store.close()


def measure(name: str, size: int) -> dict[str, float]:
    """Rows/s of the writer and read latencies (µs) of this second process at the same time."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    ours, theirs = multiprocessing.Pipe()
    writer = multiprocessing.Process(target=keep_writing, args=(name, folder, size, SECONDS, theirs))
    writer.start()
    ours.recv()
    store = STORES[name](folder, read_only=True)
    encode = msgspec.msgpack.Encoder().encode
    rng = random.Random(7)
    keys = [encode([f"driver-{rng.randrange(ENTITIES)}"]) for _ in range(5000)]
    one, many = [], []
    while not ours.poll():
        for key in rng.sample(keys, 200):
            start = time.perf_counter_ns()
            store.read(key)
            one.append(time.perf_counter_ns() - start)
        some = rng.sample(keys, 100)
        start = time.perf_counter_ns()
        store.read_many(some)
        many.append(time.perf_counter_ns() - start)
    figures = ours.recv()
    writer.join()
    store.close()
    shutil.rmtree(folder)
    at = lambda sample, q: sorted(sample)[int(len(sample) * q)] / 1e3  # noqa: E731
    return figures | {
        "read_p50_us": at(one, 0.5),
        "read_p99_us": at(one, 0.99),
        "read_p999_us": at(one, 0.999),
        "read100_p50_us": at(many, 0.5),
        "read100_p99_us": at(many, 0.99),
    }


def write_until_killed(name: str, folder: Path, first: int, pipe: Any) -> None:
    store = STORES[name](folder)
    for i in range(first, first + 10_000):
        store.write(i, batch_rows(i, 1000))
        pipe.send(i)


def survive(name: str, rounds: int) -> dict[str, int]:
    """Kill the writer `rounds` times; count lost acknowledged batches, torn batches and failed opens."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    rng, expected, upto = random.Random(1), {}, -1
    lost = torn = failed = 0
    for _ in range(rounds):
        ours, theirs = multiprocessing.Pipe()
        writer = multiprocessing.Process(target=write_until_killed, args=(name, folder, upto + 1, theirs))
        writer.start()
        ours.recv()
        time.sleep(rng.uniform(0, 0.3))
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        acknowledged = upto + 1
        while ours.poll():
            try:
                acknowledged = ours.recv()
            except EOFError:
                break
        try:
            store = STORES[name](folder)
            batch = store.batch()
            lost += batch < acknowledged
            for i in range(upto + 1, batch + 1):
                expected.update({key: value for key, _, value in batch_rows(i, 1000)})
            torn += dict(store.items()) != expected
            upto = batch
            store.close()
        except Exception as error:  # the figure is whether it opens at all, whatever the reason
            print(name, error, file=sys.stderr)
            failed += 1
    shutil.rmtree(folder)
    return {"kills": rounds, "lost": lost, "torn": torn, "failed to open": failed, "batches": upto + 1}


def main() -> None:
    multiprocessing.set_start_method("spawn")
    for size in (1000, 10_000):
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in STORES}
        for _ in range(5):
            for name in STORES:
                runs[name].append(measure(name, size))
        for name, figures in runs.items():
            middle = {key: round(statistics.median(f[key] for f in figures), 1) for key in figures[0]}
            print(json.dumps({"store": name, "batch": size, **middle}), flush=True)
    for name in STORES:
        print(json.dumps({"store": name, **survive(name, 20)}), flush=True)


if __name__ == "__main__":
    main()
