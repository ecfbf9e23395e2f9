"""Memory follows what the windows hold: entities leave when theirs have emptied, and pools are used again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.features import (
    Entity,
    Event,
    EventTime,
    Hopping,
    IterableSource,
    LastN,
    Lifetime,
    Session,
    Sliding,
    Tumbling,
    ViewDefinition,
    define,
)
from headrace.features.columns import Column
from headrace.features.ordered import FirstN
from headrace.flows import runs
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.shard import ShardOperator

ROOT = Path(__file__).parents[2]
MINUTE = 60_000_000
START = 1_767_225_600_000_000  # 2026-01-01T00:00Z


class Ride(Event):
    driver: Column[str]
    fare: Column[float]
    at: EventTime


WINDOWS: dict[str, Any] = {
    "sliding": Sliding("10m", hop="1m"),
    "exact": Sliding("7m", exact=True),
    "hopping": Hopping("20m", hop="5m"),
    "tumbling": Tumbling("10m"),
    "current": Tumbling("10m", current=True),
    "session": Session("3m"),
    "sliding ending": Sliding("10m", hop="1m", ending="15m"),
    "session ending": Session("3m", ending="15m"),
}
ENDLESS: dict[str, Any] = {"last": LastN(3), "lifetime": Lifetime()}


def view(window: Any) -> ViewDefinition:
    features = {"mean": Ride.fare.mean(over=window), "fares": Ride.fare.first_n(2, over=window)}
    return define("watched", source=IterableSource([], Ride), entity=Entity("driver", key="driver"), features=features)


def batch(drivers: list[str], times: list[int], effective: list[int] | None = None) -> EventBatch:
    columns = {
        "driver": BatchColumn("string", values=np.array(drivers, dtype=object)),
        "fare": BatchColumn("float64", values=np.arange(len(drivers), dtype=np.float64)),
        "at": BatchColumn("timestamp", values=np.array(times)),
    }
    return EventBatch.of(columns, times, effective=effective)


def ever_new(operator: ShardOperator, batches: int, late: int = 0) -> list[tuple[int, int, int]]:
    """Every batch, five minutes after the one before, brings 100 entities that never come back.

    Returns (entities, keys, bytes) after each. `late`: events are that old when they come, let in by `late="count"`.
    """
    found = []
    for b in range(batches):
        times = [START + (5 * b) * MINUTE + i * MINUTE // 25 for i in range(100)]
        drivers = [f"d{100 * b + i}" for i in range(100)]
        operator.process(batch(drivers, [t - late for t in times], times if late else None), times[-1])
        operator.settle(times[-1] - MINUTE)
        found.append((operator.entities, len(operator._keys), operator.nbytes))
    return found


@pytest.mark.parametrize("window", WINDOWS)
def test_entities_leave_when_their_windows_have_emptied(window: str) -> None:
    operator = ShardOperator(view(WINDOWS[window]))
    found = ever_new(operator, 60)
    entities, keys, size = zip(*found, strict=True)
    assert max(entities) <= 900, "at most 30 minutes of entities are in a window, or on their way into one"
    assert max(keys) <= 3 * 900 + 1100, "a table is tidied when half of it has gone"
    assert max(size[30:]) <= 2 * max(size[:30]), "what is freed is used again"
    assert len(operator.save().data) < 2 * operator.nbytes
    for reading in (operator._settled, operator._online):
        for feature in reading.objects._features:
            assert len(feature._windows) <= keys[-1]
            assert len(feature._last) <= keys[-1]


@pytest.mark.parametrize("window", WINDOWS)
def test_entities_of_which_all_comes_too_late_leave_memory(window: str) -> None:
    operator = ShardOperator(view(WINDOWS[window]))
    entities, keys, size = zip(*ever_new(operator, 60, late=100 * MINUTE), strict=True)
    assert entities[-1] <= 101
    assert max(keys) <= 2 * 101 + 1200
    assert max(size[30:]) <= 2 * max(size[:30])


@pytest.mark.parametrize("window", WINDOWS)
def test_silence_empties_the_operator(window: str) -> None:
    operator = ShardOperator(view(WINDOWS[window]))
    ever_new(operator, 3)
    later = START + 600 * MINUTE
    operator.advance(later)
    operator.settle(later)
    assert operator.entities == 0
    assert len(operator._keys) == 0
    assert operator.tail().num_rows == 0


@pytest.mark.parametrize("window", ENDLESS)
def test_windows_without_end_keep_their_entities(window: str) -> None:
    operator = ShardOperator(view(ENDLESS[window]))
    assert ever_new(operator, 4)[-1][0] == 400


@pytest.mark.parametrize("window", WINDOWS)
def test_an_entity_that_comes_back_begins_anew(window: str) -> None:
    """The same rows, whether it had left memory or not."""
    rows = []
    for company in (0, 200):
        operator = ShardOperator(view(WINDOWS[window]))
        log = []
        for minute in (0, 1, 2, 200, 201, 400):
            t = START + minute * MINUTE
            operator.process(batch(["me"], [t]), t)
            others = [f"other {minute} {i}" for i in range(company)]
            if others:
                operator.process(batch(others, [t] * company), t)
            log.append(operator.settle(t))
        log.append(operator.tail())
        mine = [row for table in log for row in table.to_pylist() if row["driver"] == "me"]
        rows.append(mine)
        if company:
            assert len(operator._keys) < 1200
    assert rows[0] == rows[1]
    assert len(rows[0]) > 6


def test_one_hot_entity_takes_the_memory_of_its_window() -> None:
    features = {"mean": Ride.fare.mean(over=Sliding("10000us", exact=True))}
    source = IterableSource([], Ride)
    operator = ShardOperator(define("hot", source=source, entity=Entity("driver", key="driver"), features=features))
    sizes = []
    for b in range(30):
        times = list(range(START + 2000 * b, START + 2000 * (b + 1)))
        operator.process(batch(["me"] * 2000, times), times[-1])
        operator.settle(times[-1])
        sizes.append(operator.nbytes)
    columns = operator._settled.columns
    assert len(columns.state.ei) <= 10_000 + 2 * 2000 + 10_000 // 2 + 1024
    assert max(sizes[10:]) == min(sizes[10:]), "nothing grows once the window is full"
    (row,) = operator.advance(START + 60_000).to_pylist()
    assert row["mean"] == pytest.approx(999.5, rel=1e-2)


def test_a_python_object_costs_no_more_in_a_wide_exact_window(monkeypatch: pytest.MonkeyPatch) -> None:
    merged = [0]
    real = FirstN.merge

    def counting(agg: FirstN, a: Any, b: Any) -> Any:
        merged[0] += 1
        return real(agg, a, b)

    monkeypatch.setattr(FirstN, "merge", counting)
    over: dict[str, Any] = {"exact": Sliding("10000us", exact=True), "last": LastN(10_000)}
    features = {name: Ride.fare.first_n(2, over=window) for name, window in over.items()}
    source = IterableSource([], Ride)
    operator = ShardOperator(define("hot", source=source, entity=Entity("driver", key="driver"), features=features))
    for b in range(15):
        times = list(range(START + 1000 * b, START + 1000 * (b + 1)))
        operator.process(batch(["me"] * 1000, times), times[-1])
        log = operator.settle(times[-1])
    assert merged[0] / 15_000 < 2 * 2 * 6, "two readings of two features"
    assert log.column("exact").to_pylist()[-1] == log.column("last").to_pylist()[-1]


def merges(width: int, events: int, disorder: int) -> float:
    """How many folds of two states an event costs, on one entity with an exact window of `width` events.

    Counted in interpreted kernels: NUMBA_DISABLE_JIT=1.
    """
    counted = [0]
    module: Any = runs
    real = module.merge_ops

    def counting(*arguments: Any) -> None:
        counted[0] += 1
        real(*arguments)

    module.merge_ops = counting
    source = IterableSource([], Ride)
    features = {"total": Ride.fare.sum(over=Sliding(f"{width}us", exact=True))}
    operator = ShardOperator(define("hot", source=source, entity=Entity("driver", key="driver"), features=features))
    rng = np.random.default_rng(7)
    times = np.arange(START, START + events)
    times = times[np.argsort(times + rng.integers(0, disorder + 1, events), kind="stable")]
    for at in range(0, events, 500):
        some = times[at : at + 500].tolist()
        operator.process(batch(["me"] * len(some), some), int(times[: at + 500].max()))
        operator.settle(int(times[: at + 500].max()) - disorder)
    return counted[0] / events


@pytest.mark.parametrize("disorder", [0, 20])
def test_an_event_costs_a_few_folds_however_wide_the_window(disorder: int) -> None:
    code = (
        "from tests.flows.test_memory import merges; "
        f"print(merges(100, 3000, {disorder}), merges(1500, 6000, {disorder}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    narrow, wide = map(float, ran.stdout.split())
    # Two readings, each folds a state once into a stack as it comes and once as the stacks turn.
    assert 1 < narrow < 6
    assert 1 < wide < 6
