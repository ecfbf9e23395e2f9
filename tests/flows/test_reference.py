"""The kernels against the plain reference: the same view computed by the Python algebra of `headrace.features`.

`ShardOperator(view, plain=True)` makes every feature an object feature, so values share no code with the lanes, the
tables of results and the two stacks of a window. What is compared is what a reader gets, at every instant at which one
of the two wrote a row.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from tests.flows.streams import Step, stream
from tests.oracle.definitions import definition_of
from tests.oracle.described import Feature, View, Where, Window, happened
from tests.oracle.naive import Taken
from tests.oracle.operator import batch_of, rows_of
from tests.oracle.strategies import COMPILED, UNITS, views

from headrace.features.reading import read_at
from headrace.features.views import ViewDefinition
from headrace.flows.shard import ShardOperator

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]
Key = tuple[Any, ...]


class Run:
    """An operator fed a stream; rows as a store and a log would keep them."""

    def __init__(self, view: ViewDefinition, plain: bool) -> None:
        self.view = view
        self.operator = ShardOperator(view, plain=plain)
        self.online: dict[Key, Row] = {}
        self.log: list[Row] = []

    def take(self, step: Step) -> None:
        self._write(rows_of(self.operator.process(batch_of(step.taken), step.clock)))
        self.log += rows_of(self.operator.settle(step.watermark))

    def advance(self, clock: int) -> None:
        self._write(rows_of(self.operator.advance(clock)))

    def key(self, row: Row) -> Key:
        return tuple(row[name] for name in self.view.entity.keys)

    def _write(self, rows: list[Row]) -> None:
        self.online.update((self.key(row), row) for row in rows)

    def read(self, row: Row | None, t: int) -> dict[str, Any]:
        if row is None:
            return read_at(self.view, None, None, None, t)[0]
        return read_at(self.view, row, row["event_timestamp"], row["newest_event"], t)[0]


def close(got: Any, expected: Any) -> bool:
    """Equal, floats to 1e-9 relative (below 1e-9, where only a difference of larger values leads, absolute)."""
    if isinstance(expected, float) and isinstance(got, float):
        return got == expected or abs(got - expected) <= 1e-9 * max(1.0, abs(expected))
    return type(got) is type(expected) and bool(got == expected)


def differing(got: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    return {n: (got[n], expected[n]) for n in expected if not close(got[n], expected[n])}


def compare_online(compiled: Run, plain: Run, t: int) -> None:
    assert compiled.online.keys() == plain.online.keys()
    for key, row in plain.online.items():
        other = compiled.online[key]
        wrong = differing(compiled.read(other, t), plain.read(row, t))
        assert not wrong, f"online at {t}, {key}: (compiled, plain) {wrong}"
        assert other["newest_event"] == row["newest_event"]


def compare_logs(compiled: Run, plain: Run, logs: tuple[list[Row], list[Row]]) -> None:
    """At every instant at which one log has a row, both say the same.

    A row may be in one alone if it only says how far a sum has decayed. So a thinned log, which keeps the last row of
    an interval, is asked at the end of the interval.
    """
    every = compiled.view.log_every_us or 1
    kept: list[dict[Key, Row]] = [{}, {}]
    found: list[dict[tuple[int, Key], list[Row]]] = [{}, {}]
    for log, places in zip(logs, found, strict=True):
        for row in log:
            at = -(-row["event_timestamp"] // every) * every
            places.setdefault((at, compiled.key(row)), []).append(row)
        assert all(len(rows) == 1 for rows in places.values()), "two rows of one entity in one interval"
    for t, key in sorted(found[0].keys() | found[1].keys()):
        for side, places in zip(kept, found, strict=True):
            if (t, key) in places:
                side[key] = places[t, key][-1]
        a, b = (side.get(key) for side in kept)
        assert a is not None
        assert b is not None
        wrong = differing(compiled.read(a, t), plain.read(b, t))
        assert not wrong, f"log at {t}, {key}: (compiled, plain) {wrong}"
        assert a["newest_event"] == b["newest_event"]


def check(described: View, steps: list[Step]) -> None:
    view = definition_of(described)
    compiled, plain = Run(view, plain=False), Run(view, plain=True)
    assert not plain.operator._plan.numbers
    for step in steps:
        compiled.take(step)
        plain.take(step)
        compare_online(compiled, plain, step.clock)
    compare_logs(compiled, plain, (compiled.log, plain.log))
    tails = [rows_of(run.operator.tail()) for run in (compiled, plain)]
    compare_logs(compiled, plain, (compiled.log + tails[0], plain.log + tails[1]))
    later = sorted({row["event_timestamp"] for tail in tails for row in tail})
    for t in [t for t in later if t > steps[-1].clock][:20]:
        compiled.advance(t)
        plain.advance(t)
        compare_online(compiled, plain, t)


# A shorter seed is no simpler stream, so there is nothing to shrink.
@settings(phases=[Phase.explicit, Phase.generate])
@given(st.data())
def test_kernels_agree_with_the_python_algebra(data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(UNITS))
    described = data.draw(views(unit, COMPILED, most=5))
    lateness = data.draw(st.sampled_from((0, 0, 1, 4, 12))) * unit
    n = data.draw(st.sampled_from((5, 40, 150, 300)))
    seed = data.draw(st.integers(0, 10**6))
    note(f"{described}\nunit {unit}, {n} events, seed {seed}, lateness {lateness}")
    check(described, stream(seed, n, unit=unit, lateness=lateness))


MINUTE = 60_000_000
WINDOWS = {
    "sliding": Window("sliding", 30 * MINUTE, 5 * MINUTE),
    "exact": Window("sliding", 7 * MINUTE, 1),
    "hopping": Window("hopping", 20 * MINUTE, 5 * MINUTE),
    "tumbling": Window("tumbling", 10 * MINUTE),
    "current": Window("current", 10 * MINUTE),
    "session": Window("session", 3 * MINUTE),
    "last": Window("last", n=5),
    "lifetime": Window("lifetime"),
}


@pytest.mark.parametrize("ending", [0, 4 * MINUTE])
@pytest.mark.parametrize("window", WINDOWS)
def test_every_aggregation_over_a_window(window: str, ending: int) -> None:
    described = all_of(window, ending)
    assert not ShardOperator(definition_of(described))._plan.objects, "these are to be computed by kernels"
    check(described, stream(len(window), 250, unit=MINUTE, lateness=5 * MINUTE))


def all_of(window: str, ending: int = 0) -> View:
    """Every compiled aggregation over one window, and some over filtered events."""
    over = Window(**{**vars(WINDOWS[window]), "ending": ending})
    made = []
    for at, kind in enumerate(COMPILED):
        column = None if kind == "count" else ("amount", "units")[at % 2]
        params = {"half_life": 4 * MINUTE} if kind.startswith("decayed") else {}
        where = Where("==", ("paid", True)) if at % 3 == 0 else None
        made.append(Feature(f"f{at}", kind, over, column, where, params=params))
    return View(tuple(made))


def test_a_decayed_sum_that_comes_to_the_same_number_later_gets_a_row() -> None:
    # |  30s     2@33s     |34s    1@35s   |36s            the tile completed last, at half a unit twice: 35 s and 36 s
    second = 1_000_000
    over = Window("tumbling", 2 * second)
    view = View((Feature("s", "decayed_sum", over, "units", params={"half_life": second}),))
    events = [happened(33 * second, units=2), happened(35 * second, 0, 1, units=1)]
    steps = [Step([Taken(event, event.time)], event.time, event.time) for event in events]
    check(view, steps)
    run = Run(definition_of(view), plain=False)
    for step in steps:
        run.take(step)
    rows = [(row["event_timestamp"] // second, row["s"]) for row in run.log + rows_of(run.operator.tail())]
    assert rows == [(33, None), (34, 1.0), (35, 0.5), (36, 0.5), (38, None)]
    run.advance(36 * second)
    assert run.online[("a",)]["event_timestamp"] == 36 * second


def outcome() -> list[Any]:
    """Every row of a short stream, in the order written."""
    rows: list[Any] = []
    for window in WINDOWS:
        operator = ShardOperator(definition_of(all_of(window)))
        for step in stream(7, 60, unit=MINUTE, lateness=3 * MINUTE):
            rows += rows_of(operator.process(batch_of(step.taken), step.clock))
            rows += rows_of(operator.settle(step.watermark))
        rows += rows_of(operator.tail())
    return rows


def test_interpreted_kernels_give_the_same_rows() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from tests.flows.test_reference import outcome; print(outcome())"],
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(outcome())
