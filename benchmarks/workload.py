"""W1: how many pickups did a driver do in the last 30 minutes.

One million events of 10,000 drivers (Zipf, exponent 1) over six hours, each stamped up to 5 seconds late relative
to its place in the stream; count, sum, mean and maximum of `amount` over the last 30 minutes per driver.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource

EVENTS = 1_000_000
DRIVERS = 10_000
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SPAN_US = 6 * 3600 * 1_000_000
LATE_US = 5_000_000
WINDOW_US = 30 * 60 * 1_000_000


class Pickup(Event):
    driver_id: str
    amount: float
    at: EventTime


pickups = IterableSource([], Pickup, lateness="10s")


class LastHalfHour(FeatureView, source=pickups, entity=Entity("driver", key="driver_id"), ttl="7d"):
    pickups = Pickup.count(last="30m")
    amount_sum = Pickup.amount.sum(last="30m")
    amount_mean = Pickup.amount.mean(last="30m")
    amount_max = Pickup.amount.max(last="30m")


@dataclass(frozen=True)
class W1:
    """The events in columns: driver numbers and names, amounts in euro, event times in microseconds."""

    driver: npt.NDArray[np.int64]
    name: pa.Array
    amount: npt.NDArray[np.float64]
    time: npt.NDArray[np.int64]

    def first(self, count: int) -> "W1":
        """The first events only."""
        return W1(self.driver[:count], self.name[:count], self.amount[:count], self.time[:count])


def w1(events: int = EVENTS, drivers: int = DRIVERS, seed: int = 20240615) -> W1:
    """The workload; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, drivers + 1)
    driver = rng.permutation(drivers)[rng.choice(drivers, size=events, p=weight / weight.sum())]
    place = START_US + np.linspace(0, SPAN_US, events, endpoint=False)
    names = pa.array([f"driver_{i:05d}" for i in range(drivers)])
    return W1(
        driver=driver,
        name=names.take(pa.array(driver)),
        amount=np.round(rng.gamma(3.0, 8.0, events), 2),
        time=(place - rng.uniform(0, LATE_US, events)).astype(np.int64),
    )


def measure(runs: dict[str, Callable[[], object]], n: int = 5) -> dict[str, float]:
    """Median seconds of each run: one warm-up each, then `n` rounds in which all take their turn."""

    def timed(run: Callable[[], object]) -> Callable[[], float]:
        def once() -> float:
            began = time.perf_counter()
            run()
            return time.perf_counter() - began

        return once

    return take_turns({name: timed(run) for name, run in runs.items()}, n)


def take_turns(runs: dict[str, Callable[[], float]], n: int = 5) -> dict[str, float]:
    """Median of the figures that each run gives: one warm-up each, then `n` rounds in which all take their turn."""
    for run in runs.values():
        run()
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(n):
        for name, run in runs.items():
            gc.collect()
            figures[name].append(run())
            print(f"  {name} {turn + 1}/{n}: {figures[name][-1]:,.4g}", file=sys.stderr)
    return {name: statistics.median(found) for name, found in figures.items()}


def report(
    bench: str,
    case: str,
    ours: float,
    limit: float,
    peers: dict[str, float],
    unit: str,
    n: int = 5,
    higher_is_better: bool = True,
    **more: float,
) -> None:
    """One JSON line with raw figures, to four digits; whoever reads it divides. more: what else belongs to the case."""
    line = {
        "bench": bench,
        "case": case,
        "ours": _rounded(ours),
        "limit": _rounded(limit),
        "peers": {name: _rounded(value) for name, value in peers.items()},
        "unit": unit,
        "higher_is_better": higher_is_better,
        "n": n,
        **{name: _rounded(value) for name, value in more.items()},
    }
    print(json.dumps(line), flush=True)


def _rounded(value: float) -> float:
    return round(value) if value >= 1000 else float(f"{value:.4g}")
