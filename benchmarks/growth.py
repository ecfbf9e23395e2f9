"""How cost and memory of the shard operator grow: one thing at a time, each case in a process of its own.

    python -m benchmarks.growth                    every axis; one JSON line for each case
    python -m benchmarks.growth entities batch     these axes
    python -m benchmarks.growth --quick            in short: a hundredth of the entities and events, one round
    python -m benchmarks.growth | python -m benchmarks.growth_picture docs/images/growth.png

A view counts, sums, averages and takes the greatest of a number over the last 30 minutes, of 100,000 entities that have
two events each in that time, all equally busy. An axis changes one thing:

entities   10,000 to 5 million. Each is as busy as before, so events come closer together: a batch of 10,000 is fifteen
           minutes of 10,000 entities, and two seconds of 5 million
features   1 (the count); 10 and 50 (sum, mean, min, max and deviation of two and of ten columns); and 50 of one column
           over ten windows, each of which an event enters and leaves
windows    1 minute to 30 days. The same events, 60 of each of 10,000 entities in a window, spread so that the window is
           full when the measurement begins, with an event for each hop or so: nearly all tiles that it can have
keys       a million entities, uniform or Zipf with exponent 1
views      1, 5 and 20 of them in one `SourceFlow`, which judges the events once
batch      1, 10 and 100 events at once, 10,000 a second, with 10,000, a million and 5 million entities in memory that
           had an event each; the same with one of an entity that is new; and one event with which a hop ends, so that
           tiles of a sixtieth of the entities leave

`process` and `settle` as in `benchmarks.operator`, in events per second of processor time, beside a plain NumPy pass
(the limit). First the windows fill (`fill_us` an event, `longest_ms` a batch: tables grow), then rounds are timed that
take turns with the limit's. `process_us` is the part until the online rows are there, `online_rows` and `log_rows` are
those of an event, `state` the operator's arrays and `resident` what the process grew by, both in bytes an entity.
Of `batch`: microseconds until the online rows of a batch are there; `settle`: an event, or all of a hop's end.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace

from benchmarks.growth_stream import Case
from benchmarks.workload import report

FIVE = ("sum", "mean", "min", "max", "std")
TEN = ("1m", "2m", "5m", "10m", "15m", "20m", "30m", "1h", "90m", "2h")
USUAL = Case(entities=100_000)
AXES: dict[str, dict[str, Case]] = {
    "entities": {
        "10k": replace(USUAL, entities=10_000),
        "100k": USUAL,
        "1M": replace(USUAL, entities=1_000_000, events=300_000),
        "5M": replace(USUAL, entities=5_000_000, events=500_000),
    },
    "features": {
        "1": replace(USUAL, kinds=("count",)),
        "10": replace(USUAL, numbers=2, kinds=FIVE),
        "50": replace(USUAL, numbers=10, kinds=FIVE, events=100_000),
        "50, ten windows": replace(USUAL, kinds=FIVE, windows=TEN, per_window=8.0, events=50_000),
    },
    "windows": {
        width: replace(USUAL, entities=10_000, per_window=60.0, windows=(width,))
        for width in ("1m", "30m", "6h", "1d", "30d")
    },
    "keys": {
        name: replace(USUAL, entities=1_000_000, zipf=name == "zipf", events=300_000) for name in ("uniform", "zipf")
    },
    "views": {
        "1": replace(USUAL, views=1),
        "5": replace(USUAL, views=5, events=100_000),
        "20": replace(USUAL, views=20, events=50_000),
    },
    "batch": {
        name: replace(USUAL, entities=entities, per_window=1.0, small=True, events=500)
        for name, entities in (("10k", 10_000), ("1M", 1_000_000), ("5M", 5_000_000))
    },
}


def run(case: Case) -> dict[str, object]:
    """The figures of a case, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth_case", json.dumps(asdict(case))]
    found: dict[str, object] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found


def short(case: Case) -> Case:
    return replace(case, entities=max(100, case.entities // 100), rounds=1, events=max(10, case.events // 100))


def tell(axis: str, name: str, case: Case, found: dict[str, object]) -> None:
    if not case.small:
        report("growth", f"{axis}: {name}", peers={}, unit="events/s", n=case.rounds, **found)  # type: ignore[arg-type]
        return
    for size, figures in found.items():
        told = f"batch: {size}; {name} entities"
        assert isinstance(figures, dict)
        report("growth", told, peers={}, unit="us", n=case.rounds, higher_is_better=False, **figures)


def main() -> None:
    asked = [word for word in sys.argv[1:] if word != "--quick"]
    unknown = [word for word in asked if word not in AXES]
    if unknown:
        raise SystemExit(f"growth: no axis is called {unknown[0]!r}; there are {', '.join(AXES)}")
    began = time.monotonic()
    for axis in asked or AXES:
        for name, case in AXES[axis].items():
            print(f"{time.monotonic() - began:5.0f} s  {axis}: {name}", file=sys.stderr, flush=True)
            asked_for = short(case) if "--quick" in sys.argv else case
            tell(axis, name, asked_for, run(asked_for))


if __name__ == "__main__":
    main()
