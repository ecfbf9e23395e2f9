"""The summary of a worker's run, from what it tells its observer."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.features.streams import Flow
from headrace.flows.kafka.statistics import ClientStatistics
from headrace.flows.recording import Summary
from headrace.flows.worker.observing import Observer


class Counting:
    """An observer that counts and tells the next one."""

    def __init__(self, after: Observer) -> None:
        self._after = after
        self._lock = threading.Lock()
        self._read: Counter[str] = Counter()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._rows: Counter[tuple[str, str]] = Counter()

    def assigned(self, part: str, topic: str, partition: int) -> None:
        self._after.assigned(part, topic, partition)

    def revoked(self, part: str) -> None:
        self._after.revoked(part)

    def ready(self, yes: bool) -> None:
        self._after.ready(yes)

    def alive(self) -> None:
        self._after.alive()

    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None:
        self._read[part] += events
        self._after.batch(part, events, nbytes, steps)

    def counted(self, part: str, what: str, count: int) -> None:
        self._counts[part, what] += count
        self._after.counted(part, what, count)

    def wrote(self, view: str, where: str, rows: int, seconds: float) -> None:
        with self._lock:
            self._rows[view, where] += rows
        self._after.wrote(view, where, rows, seconds)

    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None:
        self._after.position(part, offset=offset, lag=lag, watermark_us=watermark_us)

    def freshness(self, seconds: npt.NDArray[np.float64]) -> None:
        self._after.freshness(seconds)

    def checkpoint(self, part: str, *, seconds: float, nbytes: int, delta: bool) -> None:
        self._after.checkpoint(part, seconds=seconds, nbytes=nbytes, delta=delta)

    def client(self, topic: str, statistics: ClientStatistics) -> None:
        self._after.client(topic, statistics)

    def trouble(self, what: str, message: str) -> None:
        self._after.trouble(what, message)

    def recovered(self, what: str) -> None:
        self._after.recovered(what)

    def summary(self, sources: Iterable[tuple[Any, Any]], flows: Iterable[Flow] = ()) -> Summary:
        """What was counted. `taken` is of the sources' own partitions, not once more of the repartition topics'."""
        made = Summary()
        for source, _ in sources:
            direct = f"{source.name}-"
            for part, events in self._read.items():
                if part.startswith(direct):
                    made.read[source.name] += events
            for (part, what), count in self._counts.items():
                own = part.startswith(direct) or part == source.name
                if not own and not part.startswith(f"{source.name}.by."):
                    continue
                kind, _, detail = what.partition(":")
                if kind == "taken" and own:
                    made.taken += count
                elif kind == "duplicate":
                    made.duplicates += count
                elif kind == "dead":
                    made.dead[detail] += count
                elif kind == "missing" and own:
                    made.missing[f"{source.name}.{detail}"] += count
        stages = tuple(f"{flow.name}.by." for flow in flows)
        for (part, what), count in self._counts.items():
            kind, _, detail = what.partition(":")
            if kind == "given":
                made.given[detail] += count
            elif kind == "dead" and part.startswith(stages):
                made.dead[detail] += count
        for (view, where), rows in self._rows.items():
            (made.online_rows if where == "online" else made.log_rows)[view] += rows
        return made
