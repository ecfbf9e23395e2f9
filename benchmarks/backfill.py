"""Backfilling W1's view over ten million events: from a Parquet file to Parquet files.

    python -m benchmarks.backfill
    python -m benchmarks.backfill --quick      20,000 events, one round: whether all still runs

The events lie in one file in the order in which they came; count, sum, mean and maximum of the last half hour. Two
threads for everybody. Each run is a process of its own, whose greatest resident memory is a case, too.

Ours: `headrace.flows.backfill`, every default: judged by lateness, a 30 s hop, one row per event and one per expiry
(1.44 an event), in order of instant, with tail, online store and checkpoint, flushed to the disk.
Limit: the file read and as many rows of as many columns written, by Arrow.
Peers: DuckDB's `OVER (... RANGE ...)` and Polars' `rolling`, which sort by driver and time, compute the exact window
and write one row per event in the order of drivers; no expiry, and nothing to go on from.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workload import LATE_US, SPAN_US, START_US, WINDOW_US, Pickup, report, take_turns, w1

EVENTS = 10_000_000
FEW = 20_000
THREADS = 2


def write_events(path: Path, events: int) -> None:
    """W1 drawn out: 10,000 drivers, and six hours for every million events."""
    data = w1(events)
    place = START_US + np.linspace(0, SPAN_US * events / 1_000_000, events, endpoint=False)
    late = np.random.default_rng(1).uniform(0, LATE_US, events)
    times = pa.array((place - late).astype(np.int64)).cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(
        pa.table({"driver_id": data.name, "amount": data.amount, "at": times}), path, row_group_size=1_000_000
    )


def ours(path: Path, out: Path) -> int:
    from headrace.features import Entity, FileSource, define
    from headrace.flows.backfill import backfill

    source = FileSource(path, Pickup, lateness="10s")
    features = {
        "pickups": Pickup.count(last="30m"),
        "amount_sum": Pickup.amount.sum(last="30m"),
        "amount_mean": Pickup.amount.mean(last="30m"),
        "amount_max": Pickup.amount.max(last="30m"),
    }
    view = define("last_half_hour", source=source, entity=Entity("driver", key="driver_id"), features=features)
    return backfill([view], out, threads=THREADS).log_rows["last_half_hour"]


def limit(path: Path, out: Path) -> int:
    table = pq.read_table(path)
    amount, at = table["amount"], table["at"]
    counts = pa.array(np.arange(table.num_rows) % 100)
    columns = [table["driver_id"], at, at, counts, amount, amount, amount]
    rows = pa.table(columns, names=["driver_id", "at", "newest", "pickups", "amount_sum", "amount_mean", "amount_max"])
    more = pa.concat_tables([rows, rows.slice(0, int(0.44 * rows.num_rows))])
    pq.write_table(more, out / "rows.parquet", compression="zstd")
    return more.num_rows


def duckdb(path: Path, out: Path) -> int:
    import duckdb

    connection = duckdb.connect(config={"threads": THREADS})
    query = f"""copy (
        select driver_id, instant, count(*) over w, sum(amount) over w, avg(amount) over w, max(amount) over w
        from (select driver_id, amount, epoch_us("at") as instant from read_parquet('{path}'))
        window w as (
            partition by driver_id order by instant
            range between {WINDOW_US - 1} preceding and current row
        )
    ) to '{out / "rows.parquet"}' (format parquet, compression zstd)"""
    ((rows,),) = connection.execute(query).fetchall()
    return int(rows)


def polars(path: Path, out: Path) -> int:
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    import polars as pl

    frame = pl.read_parquet(path).sort("driver_id", "at")
    amount = pl.col("amount")
    wanted = [pl.len(), amount.sum().alias("s"), amount.mean().alias("m"), amount.max().alias("x")]
    rows = frame.rolling("at", period="30m", group_by="driver_id").agg(wanted)
    rows.write_parquet(out / "rows.parquet", compression="zstd")
    return rows.height


RUNS = {"ours": ours, "limit": limit, "duckdb": duckdb, "polars": polars}


def alone(name: str, path: Path, out: Path) -> dict[str, Any]:
    """One run in this process: seconds, rows and megabytes."""
    if name == "ours":
        from headrace.flows.warm import warm

        warm()
    out.mkdir(parents=True)
    began = time.perf_counter()
    rows = RUNS[name](path, out)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "rows": rows, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    events, rounds = (FEW, 1) if quick else (EVENTS, 5)
    names = ["ours", "limit"] if quick else ["ours", "limit", *(n for n in ("duckdb", "polars") if find_spec(n))]
    megabytes: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        path = Path(folder) / "pickups.parquet"
        # In a process of its own: a child begins with the peak memory of its parent.
        subprocess.run([sys.executable, "-m", "benchmarks.backfill", "--write", str(path), str(events)], check=True)

        def run(name: str) -> float:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.backfill",
                    "--one",
                    name,
                    str(path),
                    str(Path(out) / "out"),
                ]
                told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if name != "limit" and told["rows"] < events * 0.9:  # the last ten seconds have not settled
                raise SystemExit(f"backfill: {name} gave {told['rows']} rows of {events} events.")
            megabytes[name].append(told["mb"])
            return events / float(told["seconds"])

        rates = take_turns({name: lambda name=name: run(name) for name in names}, rounds)  # type: ignore[misc]
    most = {name: max(found) for name, found in megabytes.items()}
    size = f"{events // 1_000_000}M" if events >= 1_000_000 else f"{events // 1000}k"
    for case, found, unit, higher in (
        (f"W1 {size}", rates, "events/s", True),
        (f"W1 {size} peak memory", most, "MB", False),
    ):
        peers = {name: found[name] for name in names if name not in ("ours", "limit")}
        report("backfill", case, found["ours"], found["limit"], peers, unit, rounds, higher_is_better=higher)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(alone(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
    elif sys.argv[1:2] == ["--write"]:
        write_events(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
