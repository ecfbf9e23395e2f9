"""The shard operator at work on a described view: rows kept as a store and a log would keep them, and judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.features.reading import read_at
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.shard import ShardOperator
from tests.oracle.definitions import definition_of
from tests.oracle.described import COLUMNS, Clock, Sent, View
from tests.oracle.judging import check_log, check_reading, settled_before
from tests.oracle.naive import FAR, Key, Oracle, Reading, Taken, judge

ZERO = {"int64": 0, "float64": 0.0, "bool": False, "string": None}
NUMPY = {"int64": np.int64, "float64": np.float64, "bool": np.bool_, "string": object}


def batch_of(taken: Sequence[Taken]) -> EventBatch:
    """Accepted events in arrival order as a batch."""
    columns = {}
    for name, dtype in COLUMNS.items():
        cells = [one.event.columns[name] for one in taken]
        values = np.empty(len(cells), dtype=NUMPY[dtype])
        for i, cell in enumerate(cells):
            values[i] = ZERO[dtype] if cell is None else cell
        valid = np.array([cell is not None for cell in cells], dtype=np.bool_)
        columns[name] = BatchColumn(dtype, values=values, valid=valid)
    times = [one.event.time for one in taken]
    columns["at"] = BatchColumn("timestamp", values=np.array(times, dtype=np.int64))
    return EventBatch.of(
        columns,
        np.array(times, dtype=np.int64),
        np.array([one.event.partition for one in taken], dtype=np.int32),
        np.array([one.event.offset for one in taken], dtype=np.int64),
        np.array([one.since for one in taken], dtype=np.int64),
    )


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Plain rows: instants as microseconds, maps as dicts."""
    out = []
    for row in table.to_pylist():
        for name, value in row.items():
            if isinstance(value, datetime):
                row[name] = int(np.datetime64(value.replace(tzinfo=None), "us").astype(np.int64))
            elif isinstance(value, list) and pa.types.is_map(table.schema.field(name).type):
                row[name] = dict(value)
        out.append(row)
    return out


class Operator:
    """One view's operator with what it has written so far.

    Attributes:
        taken: how many events it has been sent, of those that count after a crash.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.definition = definition_of(view)
        self.shard = ShardOperator(self.definition)
        self.chain: list[bytes] = []
        self.online: dict[Key, dict[str, Any]] = {}
        self.log: list[dict[str, Any]] = []
        self.taken = 0
        self._kept = (0, 0)
        self._reached = -FAR

    def send(self, taken: Sequence[Taken], clock: int, watermark: int) -> None:
        """Process accepted events at `clock`, then settle to `watermark`."""
        self._reached = max(self._reached, clock)
        self._write(self.shard.process(batch_of(taken), clock))
        self.log += rows_of(self.shard.settle(watermark))
        self.taken += len(taken)

    def advance(self, clock: int) -> None:
        self._reached = max(self._reached, clock)
        self._write(self.shard.advance(clock))

    def checkpoint(self) -> None:
        """Save what has changed since the last time."""
        part = self.shard.save()
        self.chain = [*self.chain, part.data] if part.delta else [part.data]
        self._kept = (self.taken, len(self.log))

    def crash(self) -> None:
        """Go on with a new operator from the last checkpoint: rows online are those of the one before, log rows that
        were not committed are gone, and events since are to be sent again."""
        self.shard = ShardOperator(self.definition)
        if self.chain:
            self.shard.load(self.chain)
        self.shard.follow(self._reached)
        self.taken, rows = self._kept
        del self.log[rows:]

    def restart(self) -> None:
        """Go on with a new operator, from the chain of checkpoints; it is the one before to the last bit."""
        self.checkpoint()
        before, self.shard = self.shard, ShardOperator(self.definition)
        self.shard.load(self.chain)
        again = ShardOperator(self.definition)
        again.load(self.chain)
        assert again.save(full=True).data == before.save(full=True).data

    def tail(self) -> list[dict[str, Any]]:
        return rows_of(self.shard.tail())

    def key(self, row: dict[str, Any]) -> Key:
        return tuple(row[name] for name in self.view.keys)

    def _write(self, table: pa.Table) -> None:
        for row in rows_of(table):
            old = self.online.get(self.key(row))
            back = old is not None and old["event_timestamp"] > row["event_timestamp"]
            assert not back, f"an online row went back in time (C14): {old}, then {row}"
            self.online[self.key(row)] = row

    def read(self, key: Key, t: int) -> Reading:
        """What a reader of the online row gets at `t`."""
        row = self.online.get(key)
        as_of, newest = (None, None) if row is None else (row["event_timestamp"], row["newest_event"])
        values, statuses = read_at(self.definition, row, as_of, newest, t)
        return Reading(values, {name: str(status) for name, status in statuses.items()}, newest)


def cut(steps: Sequence[Any], at: Iterable[int]) -> list[list[Any]]:
    """`steps` cut before each index of `at`; no part is empty."""
    edges = sorted({0, len(steps), *(i % max(1, len(steps)) for i in at)})
    return [list(steps[a:b]) for a, b in pairwise(edges)]


def drive(
    view: View,
    script: list[Sent | Clock],
    cuts: list[int],
    restarts: frozenset[int],
    crashes: frozenset[int] = frozenset(),
) -> Operator:
    """Run the script in batches, settling after each, restarting before the batches named; check every online row."""
    operator = Operator(view)
    done: list[Sent | Clock] = []
    for number, steps in enumerate(cut(script, cuts)):
        if number in restarts:
            operator.restart()
        if number in crashes:
            operator.crash()
        done += steps
        judged = judge(view.stream, done)
        if judged.clock == -FAR:
            continue
        operator.send(judged.taken[operator.taken :], judged.clock, judged.watermark)
        if number % 3:
            operator.checkpoint()
        oracle = Oracle(view, done)
        for key in oracle.entities:
            check_reading(oracle, key, judged.clock, operator.read(key, judged.clock))
    return operator


def check(
    view: View,
    script: list[Sent | Clock],
    cuts: list[int],
    restarts: frozenset[int],
    asked: list[int],
    crashes: frozenset[int] = frozenset(),
) -> None:
    operator = drive(view, script, cuts, restarts, crashes)
    oracle = Oracle(view, script)
    check_log(oracle, operator.log, settled_before(oracle))
    check_log(oracle, operator.log + operator.tail(), None)
    for number, t in enumerate(asked):
        if t < oracle.judged.clock:
            continue
        if number in crashes:
            operator.crash()
            operator.send(oracle.judged.taken[operator.taken :], t, oracle.judged.watermark)
        else:
            operator.advance(t)
        for key in oracle.entities:
            check_reading(oracle, key, t, operator.read(key, t))
