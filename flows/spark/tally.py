"""What tasks in an executor tell, kept until the driver is told of it: an observer that collects, and a replay."""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.flows.kafka.statistics import ClientStatistics
from headrace.flows.worker.observing import Observer

logger = logging.getLogger("headrace.worker")


class Tally:
    """Collects what an observer is told, as plain data."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: list[list[Any]] = []

    def take(self) -> list[list[Any]]:
        """What was told since the last time."""
        with self._lock:
            told, self._told = self._told, []
        return told

    def _tell(self, *words: Any) -> None:
        with self._lock:
            self._told.append(list(words))

    def assigned(self, part: str, topic: str, partition: int) -> None:
        self._tell("assigned", part, topic, partition)

    def revoked(self, part: str) -> None:
        self._tell("revoked", part)

    def ready(self, yes: bool) -> None: ...
    def alive(self) -> None: ...

    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None:
        self._tell("batch", part, events, nbytes, dict(steps))

    def counted(self, part: str, what: str, count: int) -> None:
        self._tell("counted", part, what, count)

    def wrote(self, view: str, where: str, rows: int, seconds: float) -> None:
        self._tell("wrote", view, where, rows, seconds)

    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None: ...

    def freshness(self, seconds: npt.NDArray[np.float64]) -> None:
        self._tell("freshness", np.asarray(seconds).tolist())

    def checkpoint(self, part: str, *, seconds: float, nbytes: int, delta: bool) -> None:
        self._tell("checkpoint", part, seconds, nbytes, delta)

    def client(self, topic: str, statistics: ClientStatistics) -> None: ...

    def trouble(self, what: str, message: str) -> None:
        logger.warning("%s: %s", what, message)
        self._tell("trouble", what, message)

    def recovered(self, what: str) -> None:
        self._tell("recovered", what)


def retell(told: Sequence[Sequence[Any]], observer: Observer) -> None:
    """Tell an observer what another process has told."""
    for what, *words in told:
        if what == "freshness":
            observer.freshness(np.asarray(words[0], dtype=np.float64))
        elif what == "checkpoint":
            part, seconds, nbytes, delta = words
            observer.checkpoint(part, seconds=seconds, nbytes=nbytes, delta=delta)
        else:
            getattr(observer, what)(*words)
