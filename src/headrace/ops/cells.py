"""Numbers that several processes count up together: one row of cells for each worker, in memory that all of them share.

Every series of every metric has a cell, known before the first worker starts. A worker adds in its own row only, so no
lock is needed and counting costs what `+=` costs; whoever is asked for the metrics adds the rows up. A worker that is
started again goes on in the row of the one that died: counters never go back, and nothing is left to tidy up.
docs/decisions/0015-metrics-of-workers.md has the measurements behind this.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from headrace.features.errors import HeadraceError

CELL_BYTES = 8
HEAD_BYTES = 64
"""Before the rows: the mark of the layout."""

Cells: TypeAlias = MutableSequence[float]
"""A worker's row; `cells[at] += 1`."""


class ChangedCellsError(HeadraceError):
    """The cells were laid out for other metrics than this process has."""


@dataclass
class Family:
    """A metric with all its series.

    Attributes:
        labels: names of the labels. bounds: of a histogram's buckets, upper ends. summed: False: a series for each
            worker, with the label `worker`. sparse: a series that is 0 is left out. cells: values of the labels ->
            first cell.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    documentation: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    summed: bool = True
    sparse: bool = False
    cells: dict[tuple[str, ...], int] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Cells of one series: of a histogram its buckets, the one without end, and the sum of values."""
        return 1 if self.kind != "histogram" else len(self.bounds) + 2


class Layout:
    """Which cell is which. The same calls in the same order give the same layout."""

    def __init__(self) -> None:
        self.families: list[Family] = []
        self.count = 0

    def family(self, family: Family) -> Family:
        """Takes a metric up."""
        self.families.append(family)
        return family

    def cell(self, family: Family, *values: str) -> int:
        """The first cell of a series, made when it is new."""
        found = family.cells.get(values)
        if found is None:
            found = family.cells[values] = self.count
            self.count += family.width
        return found

    def mark(self) -> bytes:
        """32 bytes that differ between layouts."""
        told = repr([(each.kind, each.name, each.labels, each.bounds, each.cells) for each in self.families])
        return hashlib.sha256(told.encode()).digest()


class SharedCells:
    """The rows of all workers of a layout.

    Attributes:
        fileno: file descriptor, for workers to inherit.
    """

    def __init__(self, layout: Layout, workers: int, fileno: int) -> None:
        self.layout, self.workers, self.fileno = layout, workers, fileno
        self._map = mmap.mmap(fileno, self.nbytes(layout, workers))

    @staticmethod
    def nbytes(layout: Layout, workers: int) -> int:
        """Size of the memory."""
        return HEAD_BYTES + max(1, workers * layout.count) * CELL_BYTES

    @classmethod
    def made(cls, layout: Layout, workers: int) -> SharedCells:
        """New cells, all 0."""
        if hasattr(os, "memfd_create"):
            fileno = os.memfd_create("headrace-metrics")
        else:
            with tempfile.TemporaryFile(prefix="headrace-metrics") as file:
                fileno = os.dup(file.fileno())
        os.ftruncate(fileno, cls.nbytes(layout, workers))
        cells = cls(layout, workers, fileno)
        cells._map[:32] = layout.mark()
        return cells

    @classmethod
    def inherited(cls, layout: Layout, workers: int, fileno: int) -> SharedCells:
        """The cells that a parent made.

        Raises:
            ChangedCellsError: for another layout.
        """
        if os.fstat(fileno).st_size != cls.nbytes(layout, workers) or os.pread(fileno, 32, 0) != layout.mark():
            raise ChangedCellsError(
                "The views or the services have changed since the server was started: this worker would serve others "
                "than its siblings. Restart the server."
            )
        return cls(layout, workers, fileno)

    def row(self, worker: int) -> Cells:
        """The cells of one worker, float64."""
        length = self.layout.count * CELL_BYTES
        start = HEAD_BYTES + worker * length
        return cast(Cells, memoryview(self._map)[start : start + length].cast("d"))

    def values(self) -> npt.NDArray[np.float64]:
        """(workers, cells) as they are now."""
        rows = np.frombuffer(self._map, np.float64, self.workers * self.layout.count, HEAD_BYTES)
        return rows.reshape(self.workers, self.layout.count).copy()

    def collect(self) -> Iterator[Metric]:
        """The metrics as Prometheus reads them; a collector of its registry."""
        rows = self.values()
        total = rows.sum(axis=0)
        for family in self.layout.families:
            if family.kind == "histogram":
                yield _histogram(family, total)
                continue
            labels = family.labels if family.summed else (*family.labels, "worker")
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            found = kind(family.name, family.documentation, labels=labels)
            for values, at in family.cells.items():
                if family.sparse and not total[at]:
                    continue
                if family.summed:
                    found.add_metric(values, float(total[at]))
                    continue
                for worker in range(self.workers):
                    found.add_metric((*values, str(worker)), float(rows[worker, at]))
            yield found


def _histogram(family: Family, total: npt.NDArray[np.float64]) -> HistogramMetricFamily:
    found = HistogramMetricFamily(family.name, family.documentation, labels=family.labels)
    names = [*(repr(bound) for bound in family.bounds), "+Inf"]
    for values, at in family.cells.items():
        below = np.cumsum(total[at : at + len(names)]).tolist()
        found.add_metric(values, list(zip(names, below, strict=True)), float(total[at + len(names)]))
    return found


def observe(cells: Cells, at: int, bounds: Sequence[float], value: float) -> None:
    """Counts a value in the histogram whose first cell is `at`; one equal to a bound is below it."""
    cells[at + bisect_left(bounds, value)] += 1.0
    cells[at + len(bounds) + 1] += value


def observe_all(cells: Cells, at: int, bounds: Sequence[float], values: npt.NDArray[np.float64]) -> None:
    """Counts many values, as `observe` each."""
    found = np.bincount(np.searchsorted(np.asarray(bounds), values, side="left"), minlength=len(bounds) + 1)
    for place in np.flatnonzero(found).tolist():
        cells[at + place] += float(found[place])
    cells[at + len(bounds) + 1] += float(values.sum())
