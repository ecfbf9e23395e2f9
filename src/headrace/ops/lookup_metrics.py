"""Metrics of the lookup server for Prometheus, counted by its workers together. docs/serving.md lists every one.

`ServerMetrics` is told of every request and of every answer, which costs some microseconds. What needs more (the age of
rows, counts of a whole plan) is noted, and added up by `turn` once in a while.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from headrace.features.features import MISSING
from headrace.features.reading import Status
from headrace.features.services import FeatureService
from headrace.ops.cells import SharedCells, observe, observe_all
from headrace.ops.lookup_layout import (
    AGE_S,
    FAILURES,
    LATENCY_S,
    LIST,
    NOT_PRESENT,
    STATUS_CLASSES,
    LookupLayout,
    Served,
)
from headrace.version import VERSION

if TYPE_CHECKING:
    from headrace.serving.asking import Plan
    from headrace.serving.caching import RowCache
    from headrace.serving.table import FeatureTable
    from headrace.serving.watching import Answer

# The system takes longer to tell of a process the more connections it has.
PROCESS_S = 2.0
MOST_PENDING = 4096
MOST_PLANS = 256


@dataclass(slots=True)
class _Tally:
    """What was asked of one plan since the last turn.

    Attributes:
        lookups, entities: cells. columns: for each its cells: all values; those not present. defaults: number, cell and
        default of columns that have one. views: their names. asked: entities.
    """

    lookups: int
    entities: int
    columns: list[tuple[int, tuple[int, ...]] | None]
    defaults: list[tuple[int, int, Any]]
    views: list[str]
    asked: int = 0


class ServerMetrics:
    """One worker's share of the server's metrics: a `Watcher` of its client and a `ServerWatcher` of its requests.

    All calls but `scrape` come from the thread of the event loop.

    Args:
        cells: of all workers. worker: number of this one.

    Attributes:
        cache: whose counts are read at each `turn`.
    """

    def __init__(self, layout: LookupLayout, cells: SharedCells, worker: int = 0) -> None:
        self._of, self._shared, self.worker = layout, cells, worker
        self._cells = cells.row(worker)
        self._plans: dict[Plan, _Tally] = {}
        self._ages: list[tuple[str, int, Sequence[int | None]]] = []
        self._pending = 0
        self._turned: float | None = None
        self._process_due = 0.0
        self._seen: dict[int, float] = {}
        self.cache: RowCache | None = None
        for at in (*layout.of_process, layout.in_flight):
            self._cells[at] = 0.0
        self._cells[layout.starts] += 1.0
        self._cells[layout.started_at] = time.time()
        self._processor_before = self._cells[layout.processor]
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Everything(cells, layout.served))

    # Of requests.

    def began(self, route: str) -> None:
        self._cells[self._of.in_flight] += 1.0

    def ended(
        self, route: str, method: str, status: int, seconds: float, bytes_in: int, bytes_out: int, trace: str
    ) -> None:
        cells, of = self._cells, self._of
        cells[of.in_flight] -= 1.0
        if route not in of.seconds:
            route = "other"
        cells[of.requests[route, STATUS_CLASSES[status // 100 - 1]]] += 1.0
        cells[of.bytes_in[route]] += bytes_in
        cells[of.bytes_out[route]] += bytes_out
        observe(cells, of.seconds[route], LATENCY_S, seconds)

    def refused(self, reason: str) -> None:
        self._cells[self._of.refused.get(reason, self._of.refused["other"])] += 1.0

    # Of lookups.

    def answered(self, answer: Answer) -> None:
        table = answer.table
        tally = self._plans.get(answer.plan)
        if tally is None:
            tally = self._tally(answer.plan, answer.service)
        n = len(table)
        tally.asked += n
        cells = self._cells
        seconds = answer.seconds
        cells[tally.lookups + bisect_left(LATENCY_S, seconds)] += 1.0
        cells[tally.lookups + len(LATENCY_S) + 1] += seconds
        self._count_absent(table, tally, n)
        for view, origin in zip(tally.views, table.origins, strict=False):
            self._ages.append((view, table.at_us, origin.event_times_us))
            self._pending += n
        if self._pending > MOST_PENDING:
            self._add_ages()
        for view in table.failures:
            if view in self._of.view_failures:
                cells[self._of.view_failures[view]] += 1.0

    def failed(self, shown: str, error: Exception, seconds: float, trace: str | None) -> None:
        kind = next((name for of, name in FAILURES if isinstance(error, of)), "other")
        self._cells[self._of.failures[kind]] += 1.0

    def retried(self) -> None:
        self._cells[self._of.retries] += 1.0

    def _count_absent(self, table: FeatureTable, tally: _Tally, n: int) -> None:
        """Values that are not PRESENT. Mostly every row is there and holds no null, which is seen row by row."""
        for origin in table.origins:
            if origin.why is not None:
                self._count_statuses(table, tally, n)
                return
        cells = self._cells
        for row in table.rows:
            if None in row:
                for its, values in zip(tally.columns, table.values, strict=True):
                    nulls = values.count(None)
                    if nulls and its is not None:
                        cells[its[1][_NULL]] += nulls
                break
        for number, cell, default in tally.defaults:
            defaults = table.values[number].count(default)
            if defaults:
                cells[cell] += defaults

    def _count_statuses(self, table: FeatureTable, tally: _Tally, n: int) -> None:
        cells = self._cells
        for its, statuses in zip(tally.columns, table.statuses, strict=True):
            left = n - statuses.count(Status.PRESENT)
            for place, status in enumerate(NOT_PRESENT):
                if not left or its is None:
                    break
                found = statuses.count(status)
                if found:
                    cells[its[1][place]] += found
                    left -= found

    def _tally(self, plan: Plan, service: FeatureService | None) -> _Tally:
        of = self._of
        if len(self._plans) >= MOST_PLANS:
            self._add_tallies()
            self._plans.clear()
        name = LIST if service is None or service.name not in of.lookups else service.name
        columns: list[tuple[int, tuple[int, ...]] | None] = []
        for column in plan.columns:
            if column.origin < len(plan.parts):
                view = plan.parts[column.origin].view
                feature = column.name if column.name in view.dtypes else column.name.removeprefix(f"{view.name}__")
                known = (view.name, feature)
            else:
                known = (name, column.name)
            columns.append((of.values[known], of.absent[known]) if known in of.values else None)
        defaults = [
            (number, its[1][_DEFAULT], column.default)
            for number, (column, its) in enumerate(zip(plan.columns, columns, strict=True))
            if its is not None and column.default is not MISSING and column.default is not None
        ]
        views = [part.view.name for part in plan.parts]
        tally = _Tally(of.lookups[name], of.entities[name], columns, defaults, views)
        self._plans[plan] = tally
        return tally

    # Some times a second.

    def turn(self, ready: bool, every_s: float) -> None:
        """Adds up what was noted, and says how the process does.

        Args:
            ready: as `/readyz`. every_s: when this is called again.
        """
        cells, of = self._cells, self._of
        self.add_up()
        now = time.monotonic()
        if self._turned is not None:
            cells[of.delay] = max(0.0, now - self._turned - every_s)
        self._turned = now
        cells[of.turned_at] = time.time()
        cells[of.ready] = float(ready)
        if now >= self._process_due:
            self._process_due = now + PROCESS_S
            cells[of.processor] = self._processor_before + time.process_time()
            cells[of.memory] = float(memory_bytes())
            cells[of.files] = float(open_files())

    def add_up(self) -> None:
        """What was noted, and what others count."""
        self._add_tallies()
        self._add_ages()
        if self.cache is not None:
            self._add_to(self._of.cache_hits, self.cache.hits)
            self._add_to(self._of.cache_misses, self.cache.misses)

    def feature_log(self, kept: int, dropped: int) -> None:
        """How many rows the feature log has kept and dropped since the process started."""
        self._add_to(self._of.logged, kept)
        self._add_to(self._of.log_drops, dropped)

    def turned_at(self) -> float:
        """When this process's loop last turned; 0 before the first time."""
        return self._cells[self._of.turned_at]

    def requests_so_far(self) -> float:
        """Requests that this worker's row has seen end."""
        return sum(self._cells[at] for at in self._of.requests.values())

    def scrape(self, accept: str) -> tuple[str, bytes]:
        """Content type and body for `/metrics`, of all workers; what any of them noted since its `add_up` is not in it.
        For any thread: of thousands of features it takes a while."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)

    def _add_to(self, cell: int, total: float) -> None:
        """A count that something else keeps for this process."""
        self._cells[cell] += total - self._seen.get(cell, 0.0)
        self._seen[cell] = total

    def _add_tallies(self) -> None:
        cells, of = self._cells, self._of
        for tally in self._plans.values():
            n, tally.asked = tally.asked, 0
            if not n:
                continue
            cells[tally.entities] += n
            for view in tally.views:
                if view in of.rows:
                    cells[of.rows[view]] += n
            for its in tally.columns:
                if its is not None:
                    cells[its[0]] += n

    def _add_ages(self) -> None:
        noted, self._ages, self._pending = self._ages, [], 0
        by_view: dict[str, list[float]] = {}
        for view, at_us, times in noted:
            by_view.setdefault(view, []).extend([at_us - each for each in times if each is not None])
        for view, ages in by_view.items():
            if ages and view in self._of.age:
                observe_all(self._cells, self._of.age[view], AGE_S, np.maximum(np.array(ages), 0) / 1e6)


_NULL, _DEFAULT = NOT_PRESENT.index(Status.NULL), NOT_PRESENT.index(Status.DEFAULT)


class _Everything(Collector):
    """The cells, and what runs."""

    def __init__(self, cells: SharedCells, served: Served) -> None:
        self._cells, self._served = cells, served

    def collect(self) -> Iterable[Metric]:
        info = GaugeMetricFamily(
            "headrace_server_info", "1; labels say what runs.", labels=("version", "workers", "views", "services")
        )
        served = self._served
        info.add_metric((VERSION, str(self._cells.workers), str(len(served.views)), str(len(served.services))), 1.0)
        yield info
        yield from self._cells.collect()


def memory_bytes() -> int:
    """Memory that this process holds; where the system does not tell, the most it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def open_files() -> int:
    """Open files and connections of this process; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
