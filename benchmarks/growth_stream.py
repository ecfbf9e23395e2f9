"""What is measured in a case of `benchmarks.growth`: a view, and events of its entities."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.workload import START_US
from headrace.features import Entity, Event, EventTime, IterableSource, ViewDefinition, define
from headrace.features.time import duration_us
from headrace.features.windows import default_hop_us
from headrace.flows.batch import BatchColumn, EventBatch

BATCH = 10_000
LATENESS_US = 10_000_000
LATE_US = 5_000_000
LIVE_GAP_US = 100.0  # between two events of small batches
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Pickup(Event):
    driver_id: str
    a: float
    b: float
    c: float
    d: float
    e: float
    f: float
    g: float
    h: float
    i: float
    j: float
    at: EventTime


NUMBERS = "abcdefghij"
PICKUPS = IterableSource([], Pickup, lateness="10s")


@dataclass(frozen=True)
class Case:
    """What is measured, and over how much.

    Attributes:
        entities: how many there are. per_window: events of each in the longest window, on average.
        zipf: the second busiest entity has half as many events as the busiest, the third a third, ...; else all have
            as many. numbers: columns that are aggregated. kinds: the features of each column over each of `windows`.
        views: of them in one flow, all alike; 0: a bare operator.
        small: what small batches cost, instead of those of 10,000. rounds, events: how many rounds of how many events;
            of small batches: of so many batches of each size.
    """

    entities: int
    per_window: float = 2.0
    zipf: bool = False
    numbers: int = 1
    kinds: tuple[str, ...] = ("count", "sum", "mean", "max")
    windows: tuple[str, ...] = ("30m",)
    views: int = 0
    small: bool = False
    rounds: int = 3
    events: int = 200_000

    def view(self, name: str) -> ViewDefinition:
        features = {}
        for window in self.windows:
            if "count" in self.kinds:
                features[f"count_{window}"] = Pickup.count(last=window)
            for column in NUMBERS[: self.numbers]:
                for kind in self.kinds:
                    if kind != "count":
                        features[f"{column}_{kind}_{window}"] = getattr(getattr(Pickup, column), kind)(last=window)
        return define(name, source=PICKUPS, entity=Entity("driver", key="driver_id"), ttl="60d", features=features)


class Batch(NamedTuple):
    """Events as the operator takes them, and as the limit does: entities (n,), amounts (numbers, n)."""

    events: EventBatch
    who: Ints
    amounts: Floats


class Stream:
    """The events of a case, evenly spaced, each late by up to five seconds, or a twelfth of the window if that is less.

    Attributes:
        hop_us: how often a tile ends.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._rng = np.random.default_rng(20240615)
        self._names = pa.array([f"driver_{i:08d}" for i in range(case.entities)])
        width = max(duration_us(window, "window") for window in case.windows)
        self.hop_us = default_hop_us(width)
        self._gap_us = width / (case.per_window * case.entities)
        self._late_us = min(LATE_US, width / 12)
        self._sent, self._at = 0, float(START_US)
        self._busiest = self._rng.permutation(case.entities)
        self._shares = np.cumsum(1 / np.arange(1, case.entities + 1))

    def filling(self) -> Iterator[Batch]:
        """An event of each entity, and then as many of any as fill the longest window; made as they are asked for."""
        everyone = self._rng.permutation(self._case.entities)
        for start in range(0, len(everyone), BATCH):
            yield self._batch(everyone[start : start + BATCH])
        yield from self._batches(int(self._case.per_window * self._case.entities) - len(everyone))

    def round(self) -> list[Batch]:
        return list(self._batches(self._case.events))

    def small(self, size: int, *, fresh: bool) -> Batch:
        """So few events, 10,000 a second. fresh: one is of an entity that was never there before."""
        who = self._rng.integers(0, self._case.entities, size)
        names = self._names.take(pa.array(who))
        if fresh:
            names = pa.concat_arrays([names[1:], pa.array([f"fresh_{self._sent:08d}"])])
        return self._batch(who, names, LIVE_GAP_US)

    def pass_to_hop(self) -> None:
        """The next event comes when a hop has just ended, for the settled reading too."""
        self._at = (self._at // self.hop_us + 1) * self.hop_us + LATENESS_US + LATE_US

    def _batches(self, events: int) -> Iterator[Batch]:
        for start in range(0, events, BATCH):
            yield self._batch(self._chosen(min(BATCH, events - start)))

    def _chosen(self, count: int) -> Ints:
        if not self._case.zipf:
            return self._rng.integers(0, self._case.entities, count)
        places = np.searchsorted(self._shares, self._rng.random(count) * self._shares[-1])
        return cast(Ints, self._busiest[places])

    def _batch(self, who: Ints, names: pa.Array | None = None, gap_us: float | None = None) -> Batch:
        n, gap = len(who), self._gap_us if gap_us is None else gap_us
        at = (self._at + np.arange(n) * gap - self._rng.uniform(0, self._late_us, n)).astype(np.int64)
        amounts = np.round(self._rng.gamma(3.0, 8.0, (self._case.numbers, n)), 2)
        columns = {
            "driver_id": BatchColumn("string", arrow=self._names.take(pa.array(who)) if names is None else names),
            "at": BatchColumn("timestamp", values=at),
        }
        for name, values in zip(NUMBERS, amounts, strict=False):
            columns[name] = BatchColumn("float64", values=values)
        first = self._sent
        self._at += n * gap
        self._sent += n
        return Batch(EventBatch.of(columns, at, 0, np.arange(first, first + n)), who, amounts)
