"""A training set of 100,000 spine rows and 10 features over a log of 5 million rows.

    python -m benchmarks.training [--quick]

Shallow: 50,000 entities of 100 rows each. Deep: 500 entities of 10,000 rows each. Both over 30 days, in Parquet as the
offline log has it; entities and instants of the spine are drawn evenly. Ours: `training_set` to an Arrow table, in the
spine's order, with a ttl of 7 days.

Limit: DuckDB reads every column of the log once (`max` of each).
Peers: DuckDB's own ASOF JOIN of the spine with the same files, to an Arrow table in any order, without ttl; and Feast's
DuckDB offline store, `get_historical_features(...).to_arrow()` over the same files with the same ttl (`make
bench-peers`). All use as many threads as there are cores. Feast joins every spine row with all rows of its entity in
the ttl before it picks one: in the deep case a quarter of a billion, for which 23 GB of memory were not enough. There
it is asked with 5,000 spine rows.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.served_rows import FEAST, ROOT
from benchmarks.workload import START_US, report, take_turns
from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource
from headrace.materialize.training import training_set
from headrace.stores.layout import arrow_schema, row_layout
from headrace.stores.offline import OfflineLog
from headrace.stores.sql import connect

SPAN_US = 30 * 86_400_000_000
COMMIT = 500_000
WIDTHS = ["1m", "2m", "5m", "10m", "15m", "30m", "1h", "2h", "6h", "1d"]


class Ride(Event):
    driver_id: int
    fare: float
    at: EventTime


class Fares(
    FeatureView, source=IterableSource([], Ride, lateness="10s"), entity=Entity("driver", key="driver_id"), ttl="7d"
):
    fare = Ride.fare.sum(last=WIDTHS)


NAMES = row_layout(Fares).feature_names


@dataclass(frozen=True)
class Case:
    """How many entities have how many rows each, how much is asked, and whether Feast is asked as well."""

    name: str
    entities: int
    each: int
    asked: int
    feast: bool = False


ROUNDS = 5
CASES = (
    Case("shallow 100k x 10 of 5M", 50_000, 100, 100_000, feast=True),
    Case("deep 100k x 10 of 5M", 500, 10_000, 100_000),
    Case("deep 5k x 10 of 5M", 500, 10_000, 5_000, feast=True),
)
QUICK = (Case("shallow 1k x 10 of 20k", 200, 100, 1_000), Case("deep 1k x 10 of 20k", 20, 1_000, 1_000))


def write_log(case: Case, folder: Path) -> OfflineLog:
    """The log of a case; the same for the same case."""
    draw = np.random.default_rng(3)
    n = case.entities * case.each
    drivers = draw.permutation(np.repeat(np.arange(case.entities), case.each))
    times = pa.array(START_US + np.arange(n) * (SPAN_US // n)).cast(pa.timestamp("us", tz="UTC"))
    columns = {"driver_id": pa.array(drivers), "event_timestamp": times, "newest_event": times}
    columns |= {name: pa.array(np.round(draw.gamma(3.0, 8.0, n), 2)) for name in NAMES}
    rows = pa.table(columns).cast(arrow_schema(row_layout(Fares)))
    with OfflineLog(folder) as log:
        for start in range(0, n, COMMIT):
            log.append(Fares, rows.slice(start, COMMIT))
            log.commit()
    return OfflineLog(folder)


def spine_of(case: Case) -> pa.Table:
    draw = np.random.default_rng(5)
    times = START_US + draw.integers(0, SPAN_US, case.asked)
    return pa.table(
        {
            "driver_id": draw.integers(0, case.entities, case.asked),
            "event_timestamp": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
            "label": np.arange(case.asked),
        }
    )


def plain_join(files: str, spine: pa.Table) -> pa.Table:
    with connect() as connection:
        connection.register("spine", spine)
        columns = ", ".join(f"r.{name}" for name in NAMES)
        return connection.sql(
            f"SELECT s.*, {columns} FROM spine s ASOF LEFT JOIN read_parquet('{files}') r "
            "ON s.driver_id = r.driver_id AND s.event_timestamp >= r.event_timestamp"
        ).to_arrow_table()


def read_once(files: str) -> Any:
    with connect() as connection:
        columns = ", ".join(f"max({name})" for name in ("driver_id", "event_timestamp", *NAMES))
        return connection.sql(f"SELECT {columns} FROM read_parquet('{files}')").fetchall()


def check_equal(ours: pa.Table, joined: pa.Table) -> None:
    """Both have the same values wherever the ttl leaves any: a benchmark of two different answers says nothing."""
    joined = joined.sort_by("label")
    for name in NAMES:
        a, b = ours.column(name).to_numpy(), joined.column(name).to_numpy()
        same = (a == b) | (np.isnan(b) & (a == 0)) | (a == 0)
        if not same.all() or not (a > 0).any():
            raise SystemExit(f"training: {name} differs from the plain join in {(~same).sum()} rows")


@contextmanager
def feast_run(folder: Path, case: Case, log: Path, spine: pa.Table) -> Iterator[Callable[[], float] | None]:
    """Seconds of one `get_historical_features`, in a process that stays; None when Feast is not there."""
    if not (FEAST / "feast").exists():
        print("  feast is not installed in .peers/feast: left out (make bench-peers)", file=sys.stderr)
        yield None
        return
    pq.write_table(spine, folder / "spine.parquet")
    program = ROOT / "benchmarks" / "peers" / "feast_training.py"
    command = [str(FEAST / "python"), str(program), str(folder), str(log / "view=fares"), *NAMES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told, asked = process.stdout, process.stdin

        def once() -> float:
            asked.write("\n")
            asked.flush()
            line = told.readline()
            if not line:
                raise SystemExit("training: Feast's process ended; what it said is above")
            answer = json.loads(line)
            if answer["rows"] != case.asked:
                raise SystemExit(f"training: Feast gave {answer['rows']} rows for {case.asked}")
            return float(answer["seconds"])

        try:
            yield once if told.readline() == "ready\n" else None
        finally:
            asked.close()


def run(case: Case, folder: Path, n: int) -> None:
    log = write_log(case, folder / "log")
    spine, files = spine_of(case), log.sql_path(Fares)
    check_equal(training_set(spine, Fares, log=log), plain_join(files, spine))
    runs = {
        "ours": _seconds(lambda: training_set(spine, Fares, log=log)),
        "limit": _seconds(lambda: read_once(files)),
        "duckdb": _seconds(lambda: plain_join(files, spine)),
    }
    with ExitStack() as stack:
        feast = stack.enter_context(feast_run(folder, case, folder / "log", spine)) if case.feast else None
        if feast is not None:
            runs["feast"] = feast
        rate = {name: case.asked / seconds for name, seconds in take_turns(runs, n).items()}
    peers = {name: value for name, value in rate.items() if name not in ("ours", "limit")}
    report("training", case.name, rate["ours"], rate["limit"], peers, "spine rows/s", n)


def _seconds(run: Callable[[], object]) -> Callable[[], float]:
    def once() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return once


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    for case in QUICK if quick else CASES:
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
            run(case, Path(name), 1 if quick else ROUNDS)


if __name__ == "__main__":
    main()
