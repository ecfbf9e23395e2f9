"""What a worker tells about itself while it runs: for metrics, health and logs. No-ops unless somebody listens."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headrace.flows.kafka.statistics import ClientStatistics


class Observer(Protocol):
    """Is told what happens in a worker; called from its threads, must return at once and never raise.

    `part` names a task: "rides-0003" for partition 3 of the source rides, "rides.by.city-0001" for one of a
    repartition topic.
    """

    def assigned(self, part: str, topic: str, partition: int) -> None:
        """A task was taken over by this worker and goes on from its checkpoint."""

    def revoked(self, part: str) -> None:
        """A task has left this worker."""

    def ready(self, yes: bool) -> None:
        """Whether tasks are assigned and none is still restoring or replaying what was written online before."""

    def alive(self) -> None:
        """The main loop has turned once more."""

    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None:
        """A batch of `events` messages of `nbytes` payload was processed; seconds per step (decode, admit, process)."""

    def counted(self, part: str, what: str, count: int) -> None:
        """`count` events more of a kind: "taken", "duplicate", "tombstone", "missing:COLUMN", "dead:REASON"."""

    def wrote(self, view: str, where: str, rows: int, seconds: float) -> None:
        """`rows` of a view were written "online" or to the "log"."""

    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None:
        """How far a task is: next offset, messages behind the partition's end, watermark."""

    def freshness(self, seconds: npt.NDArray[np.float64]) -> None:
        """For events now readable in the online store: seconds since their records' timestamps."""

    def checkpoint(self, part: str, *, seconds: float, nbytes: int, delta: bool) -> None:
        """A checkpoint of a task was committed."""

    def client(self, topic: str, statistics: ClientStatistics) -> None:
        """What librdkafka measures of the consumer of a topic (several with commas), every few seconds."""

    def trouble(self, what: str, message: str) -> None:
        """Something (`"online store"`, `"kafka"`, `"log"`, ...) fails and is being retried."""

    def recovered(self, what: str) -> None:
        """It works again."""


class Silent:
    """Nobody listens."""

    def assigned(self, part: str, topic: str, partition: int) -> None: ...
    def revoked(self, part: str) -> None: ...
    def ready(self, yes: bool) -> None: ...
    def alive(self) -> None: ...
    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None: ...
    def counted(self, part: str, what: str, count: int) -> None: ...
    def wrote(self, view: str, where: str, rows: int, seconds: float) -> None: ...
    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None: ...
    def freshness(self, seconds: npt.NDArray[np.float64]) -> None: ...
    def checkpoint(self, part: str, *, seconds: float, nbytes: int, delta: bool) -> None: ...
    def client(self, topic: str, statistics: ClientStatistics) -> None: ...
    def trouble(self, what: str, message: str) -> None: ...
    def recovered(self, what: str) -> None: ...
