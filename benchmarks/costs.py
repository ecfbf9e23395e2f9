"""What an event, a row and an entity cost: the figures that `headrace size` calculates with.

    python -m benchmarks.costs            prints flows/measured.py

For views with 4 and 16 features (count, sum, mean and maximum over 30 minutes; and over an hour, six hours and a day;
those of state and snapshot: the mean, and all four, over these four windows):

event_us   processor time of a worker process (all its threads) for an event of W1 from Kafka to Redis and Parquet,
           every default: that of a run over two million events less that of a run over the first of them
write_us   processor time of this process to write a row of an entity of its own to Redis, 200,000 at once: W1 has
           10,000 drivers, each of whom is written once for many events
row_us     processor time of redis-server for a row, from its own INFO, over 200,000 rows written at once
online     growth of Redis's used_memory for a row, of 200,000 entities
state      arrays of an operator with 100,000 entities of five events each, all settled; snapshot: its full checkpoint
..._full   the same of 500 entities with an event every 30 seconds of a day
log_row    Parquet bytes of a row of the log of the first run; log_rows: of them for an event
process    resident memory of a worker whose flow has seen one event

A line through both counts of features gives `base` and `each`.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from redis import Redis

from benchmarks.messages import fill
from benchmarks.servers import Servers, servers
from benchmarks.workload import EVENTS, w1
from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource
from headrace.features.views import definition
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.shard import ShardOperator
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.stores.commits import read_manifest
from headrace.stores.opening import open_online

FEATURES = (4, 16)
ROWS = 200_000
ENTITIES = 100_000
BUSY = 500
WINDOWS = ("30m", "1h", "6h", "1d")


class Pickup(Event):
    driver_id: str
    amount: float
    event_ts: EventTime


def view_of(bootstrap: str, topic: str, features: int) -> Any:
    """A view over a topic with so many features, four for each window."""
    source = KafkaSource(topic, Pickup, keyed_by="driver_id", lateness="10s", unit="ms", bootstrap_servers=bootstrap)
    windows = list(WINDOWS[: features // 4])

    class Costly(FeatureView, source=source, entity=Entity("driver", key="driver_id"), ttl="7d"):
        pickups = Pickup.count(last=windows)
        total = Pickup.amount.sum(last=windows)
        mean = Pickup.amount.mean(last=windows)
        most = Pickup.amount.max(last=windows)

    return Costly


def spread_view(bootstrap: str, features: int) -> Any:
    """A view with 4 or 16 features, over the same four windows: state depends on these too."""
    source = KafkaSource("one", Pickup, keyed_by="driver_id", lateness="10s", unit="ms", bootstrap_servers=bootstrap)
    windows = list(WINDOWS)

    class Mean(FeatureView, source=source, entity=Entity("driver", key="driver_id"), ttl="7d"):
        mean = Pickup.amount.mean(last=windows)

    class Four(FeatureView, source=source, entity=Entity("driver", key="driver_id"), ttl="7d"):
        pickups = Pickup.count(last=windows)
        total = Pickup.amount.sum(last=windows)
        mean = Pickup.amount.mean(last=windows)
        most = Pickup.amount.max(last=windows)

    return Mean if features == FEATURES[0] else Four


def as_process(bootstrap: str, redis_url: str, folder: str, topic: str, features: str) -> None:
    settings = FlowSettings(uuid.uuid4().hex[:8], folder, online=redis_url, clock="stream", until_end=True)
    run_worker([view_of(bootstrap, topic, int(features))], settings)
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(used.ru_utime + used.ru_stime, pages * os.sysconf("SC_PAGE_SIZE"))


def run(at: Servers, topic: str, features: int) -> tuple[float, float]:
    """Seconds of processor time and bytes of resident memory of a worker over a whole topic."""
    shutil.rmtree(at.folder / "run", ignore_errors=True)
    with Redis.from_url(at.redis_url) as client:
        client.flushall()
    command = [sys.executable, "-m", "benchmarks.costs", at.bootstrap, at.redis_url, str(at.folder / "run"), topic]
    said = subprocess.run([*command, str(features)], capture_output=True, text=True, check=True).stdout
    seconds, resident = said.split()[-2:]
    return float(seconds), float(resident)


def log_costs(folder: Path) -> tuple[float, float]:
    """Bytes of a row of the log, and rows for an event."""
    (log,) = read_manifest(folder / "log").views.values()
    rows = sum(file.rows for file in log.files)
    size = sum(path.stat().st_size for path in (folder / "log").glob("view=*/*/*.parquet"))
    return size / rows, rows / EVENTS


def redis_costs(at: Servers, view: Any, layout: str) -> tuple[float, float, float]:
    """Bytes of a row in Redis, and microseconds of its processor and of this process's."""
    made = definition(view)
    rows = operator_of(view, ROWS)[1]
    with Redis.from_url(at.redis_url) as client:
        client.flushall()
        before, used = client.info("memory")["used_memory"], client.info("cpu")
        with open_online(at.redis_url, layout=layout) as store:  # type: ignore[arg-type]
            began = time.process_time()
            store.write(made, rows)
            ours = time.process_time() - began
        after, now = client.info("memory")["used_memory"], client.info("cpu")
    spent = sum(now[name] - used[name] for name in ("used_cpu_user", "used_cpu_sys"))
    return (after - before) / ROWS, spent / ROWS * 1e6, ours / ROWS * 1e6


def operator_of(view: Any, entities: int, turns: int = 5, every_s: int = 300) -> tuple[ShardOperator, pa.Table]:
    """An operator with so many events of each entity, and the rows of all entities."""
    operator = ShardOperator(view)
    rng, now = np.random.default_rng(1), time.time_ns() // 1000
    names = pa.array([f"driver_{i:08d}" for i in range(entities)])
    rows: Any = None
    for turn in range(turns):
        times = now - (turns + 1 - turn) * every_s * 1_000_000 + np.arange(entities, dtype=np.int64)
        columns = {
            "driver_id": BatchColumn("string", arrow=names),
            "amount": BatchColumn("float64", values=np.round(rng.gamma(3.0, 8.0, entities), 2)),
            "event_ts": BatchColumn("timestamp", values=times),
        }
        offsets = np.arange(turn * entities, (turn + 1) * entities)
        rows = operator.process(EventBatch.of(columns, times, 0, offsets), int(times[-1]))
        operator.settle(int(times[-1]) + 1)
    return operator, rows


def line(low: float, high: float) -> str:
    each = (high - low) / (FEATURES[1] - FEATURES[0])
    return f"Cost({low - each * FEATURES[0]:.4g}, {each:.4g})"


def main() -> None:
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)
        print(f"  {name}: {value:,.4g}", file=sys.stderr)

    def note_state(suffix: str, operator: ShardOperator, entities: int) -> None:
        note(f"state{suffix}", operator.nbytes / entities)
        note(f"snapshot{suffix}", len(operator.save(True).data) / entities)

    data = w1(2 * EVENTS)
    with servers() as at:
        fill(at.bootstrap, "one", data.first(1))
        fill(at.bootstrap, "half", data.first(EVENTS))
        fill(at.bootstrap, "whole", data)
        for features in FEATURES:
            run(at, "one", features)  # compiles what is not
            whole = [run(at, "whole", features)[0] for _ in range(3)]
            half = [run(at, "half", features)[0] for _ in range(3)]
            note("event_us", (float(np.median(whole)) - float(np.median(half))) / EVENTS * 1e6)
            size, rows = log_costs(at.folder / "run")
            note("log_row", size)
            note("log_rows", rows)
            note("process", run(at, "one", features)[1])
            view = view_of(at.bootstrap, "one", features)
            nbytes, spent, ours = redis_costs(at, view, "feast")
            note("online_feast", nbytes)
            note("row_us", spent)
            note("write_us", ours)
            note("online_packed", redis_costs(at, view, "packed")[0])
            spread = spread_view(at.bootstrap, features)
            note_state("", operator_of(spread, ENTITIES)[0], ENTITIES)
            note_state("_full", operator_of(spread, BUSY, 2880, 30)[0], BUSY)
    said = (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
    names = ("event_us", "write_us", "row_us", "state", "state_full", "snapshot", "snapshot_full")
    lines = [f"    {name}={line(*found[name])}," for name in (*names, "online_feast", "online_packed", "log_row")]
    print('"""What `python -m benchmarks.costs` has measured; it prints this file."""\n')
    print("from headrace.flows.sizing import Cost, Costs\n\nMEASURED = Costs(")
    print("\n".join(lines))
    print(f"    log_rows={np.mean(found['log_rows']):.3g},\n    process={max(found['process']):.3g},")
    print(f'    said="{said}",\n)')


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else as_process(*sys.argv[1:])
