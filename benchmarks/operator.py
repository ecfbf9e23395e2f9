"""The shard operator alone, from decoded columns, on one core: both readings, every row in Arrow.

    python -m benchmarks.operator

Ours: `process` and `settle` per batch of 10,000 events, which gives the online rows (one per driver and batch, and
those that expire) and the whole settled log (one row per event and per expiry), as Arrow tables.
Limit: a plain NumPy pass over the same columns: per batch the tile of each event, and count, sum and maximum per
driver.
Peers: the exact sliding window as a plain Python loop over objects in memory; Polars and DuckDB over the whole
history at once, sorted beforehand (batch, so no online rows and no expiry), on one thread.
"""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")

from collections import deque
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.workload import DRIVERS, EVENTS, W1, WINDOW_US, LastHalfHour, measure, report, w1
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.shard import ShardOperator

BATCH = 10_000
HOP_US = 30_000_000
LATENESS_US = 10_000_000


def batches(data: W1) -> list[EventBatch]:
    made = []
    for start in range(0, len(data.time), BATCH):
        part = slice(start, start + BATCH)
        time = data.time[part]
        columns = {
            "driver_id": BatchColumn("string", arrow=data.name.slice(start, BATCH)),
            "amount": BatchColumn("float64", values=data.amount[part]),
            "at": BatchColumn("timestamp", values=time),
        }
        made.append(EventBatch.of(columns, time, 0, np.arange(start, start + len(time))))
    return made


def ours(data: list[EventBatch]) -> tuple[int, int]:
    operator = ShardOperator(LastHalfHour)
    online = log = 0
    clock = 0
    for batch in data:
        clock = max(clock, int(batch.time.max()))
        online += operator.process(batch, clock).num_rows
        log += operator.settle(clock - LATENESS_US).num_rows
    return online, log


def numpy_pass(data: W1) -> float:
    total = 0.0
    for start in range(0, len(data.time), BATCH):
        part = slice(start, start + BATCH)
        driver, amount = data.driver[part], data.amount[part]
        tile = (data.time[part] - 1) // HOP_US
        count = np.bincount(driver, minlength=DRIVERS)
        summed = np.bincount(driver, weights=amount, minlength=DRIVERS)
        greatest = np.zeros(DRIVERS)
        np.maximum.at(greatest, driver, amount)
        total += float(summed[driver[-1]] / count[driver[-1]] + greatest[driver[-1]] + tile[-1])
    return total


def plain_loop(events: list[tuple[int, int, float]]) -> int:
    state: dict[int, list[Any]] = {}
    rows = 0
    for driver, time, amount in events:
        own = state.get(driver)
        if own is None:
            own = state[driver] = [deque(), 0.0, deque()]
        window, _, greatest = own
        window.append((time, amount))
        own[1] += amount
        while greatest and greatest[-1][1] <= amount:
            greatest.pop()
        greatest.append((time, amount))
        limit = time - WINDOW_US
        while window[0][0] <= limit:
            own[1] -= window.popleft()[1]
        while greatest[0][0] <= limit:
            greatest.popleft()
        row = (driver, len(window), own[1], own[1] / len(window), greatest[0][1])
        rows += len(row) > 0
    return rows


def polars_rolling(data: W1) -> Any:
    import polars as pl

    frame = pl.DataFrame({"driver": data.driver, "time": data.time, "amount": data.amount}).sort("driver", "time")
    frame = frame.with_columns(pl.from_epoch("time", time_unit="us"))
    wanted = [pl.len(), pl.col("amount").sum().alias("s"), pl.col("amount").mean().alias("m"), pl.col("amount").max()]
    return lambda: frame.rolling("time", period="30m", group_by="driver").agg(wanted).height


def duckdb_over(data: W1) -> Any:
    import duckdb
    import pyarrow as pa

    events = pa.table({"driver": data.driver, "time": data.time, "amount": data.amount})
    connection = duckdb.connect()
    connection.execute("set threads = 1")
    connection.register("incoming", events)
    connection.execute("create table events as select * from incoming")
    query = f"""create or replace temp table answer as
        select driver, time, count(*) over w c, sum(amount) over w s, avg(amount) over w m, max(amount) over w x
        from events
        window w as (partition by driver order by time range between {WINDOW_US - 1} preceding and current row)"""
    return lambda: connection.execute(query).fetchall()


def main() -> None:
    data = w1()
    decoded = batches(data)
    order = np.argsort(data.time, kind="stable")
    columns = (data.driver[order].tolist(), data.time[order].tolist(), data.amount[order].tolist())
    events = list(zip(*columns, strict=True))
    runs = {
        "ours": lambda: ours(decoded),
        "limit": lambda: numpy_pass(data),
        "plain loop": lambda: plain_loop(events),
    }
    for name, make in (("polars", polars_rolling), ("duckdb", duckdb_over)):
        if find_spec(name) is not None:
            runs[name] = make(data)
    rate = {name: EVENTS / seconds for name, seconds in measure(runs).items()}
    peers = {name: value for name, value in rate.items() if name not in ("ours", "limit")}
    report("operator", "W1 sliding", rate["ours"], rate["limit"], peers, "events/s")


if __name__ == "__main__":
    main()
