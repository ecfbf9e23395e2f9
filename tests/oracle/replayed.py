"""`headrace.testing.replay` at work on a described view: admission, operator, store and reader together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from types import TracebackType
from typing import Any

import pyarrow as pa

from headrace.features.time import instant_us
from headrace.testing import replay
from tests.oracle.definitions import definition_of
from tests.oracle.described import Clock, Sent, View
from tests.oracle.judging import check_log, check_reading, settled_before
from tests.oracle.naive import FAR, Key, Oracle, Reading
from tests.oracle.operator import cut, rows_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(t: int) -> datetime:
    return EPOCH + timedelta(microseconds=t)


class Replayed:
    """One view under `replay`, driven by the steps of a script."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.definition = definition_of(view)
        self.t = replay(self.definition)

    def __enter__(self) -> Replayed:
        self.t.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.t.__exit__(kind, error, trace)

    def take(self, steps: Sequence[Sent | Clock]) -> None:
        """Send events, those of one partition in a row as one batch, and move the clock."""
        for partition, some in groupby(steps, lambda step: step.partition if isinstance(step, Sent) else None):
            if partition is None:
                for step in some:
                    self.t.at(instant(step.time))
            else:
                rows = [dict(step.columns) | {"at": instant(step.time)} for step in some if isinstance(step, Sent)]
                self.t.send(rows, partition=partition)

    def read(self, key: Key, t: int) -> Reading:
        """What a reader gets at `t`; the clock must stand there."""
        assert self.t.clock_us == t, f"the clock stands at {self.t.clock_us}, expected {t}"
        row = self.t.get(**dict(zip(self.view.keys, key, strict=True)))
        newest = None if row.newest_event is None else instant_us(row.newest_event, "newest_event")
        return Reading(dict(row), {name: str(status) for name, status in row.status.items()}, newest)

    def log(self, tail: bool = False) -> list[dict[str, Any]]:
        return rows_of(self.t.log_table(tail=tail))

    def training_set(self, questions: Sequence[tuple[Key, int]]) -> list[dict[str, Any]]:
        """One row of features per question (key, instant)."""
        columns = {
            name: pa.array([key[i] for key, _ in questions], type=pa.string() if name == "who" else pa.int64())
            for i, name in enumerate(self.view.keys)
        }
        at = pa.array([t for _, t in questions], type=pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        return rows_of(self.t.training_set(pa.table({**columns, "event_timestamp": at})))


def check(view: View, script: list[Sent | Clock], cuts: list[int], restarts: frozenset[int], asked: list[int]) -> None:
    with Replayed(view) as replayed:
        done: list[Sent | Clock] = []
        for number, steps in enumerate(cut(script, cuts)):
            if number in restarts:
                replayed.t.restart()
            replayed.take(steps)
            done += steps
            oracle = Oracle(view, done)
            if oracle.judged.clock > -FAR:
                for key in oracle.entities:
                    check_reading(oracle, key, oracle.judged.clock, replayed.read(key, oracle.judged.clock))
        oracle = Oracle(view, script)
        dead = [(letter.partition, letter.offset, letter.reason) for letter in replayed.t.dead]
        assert dead == [(event.partition, event.offset, reason) for event, reason in oracle.judged.dead]
        assert replayed.t.duplicates == oracle.judged.duplicates
        if oracle.judged.taken:
            check_log(oracle, replayed.log(), settled_before(oracle))
            check_log(oracle, replayed.log(tail=True), None)
        for t in asked:
            if t >= oracle.judged.clock:
                replayed.take([Clock(t)])
                for key in oracle.entities:
                    check_reading(oracle, key, t, replayed.read(key, t))
