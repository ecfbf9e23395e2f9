"""What a live flow is told besides its views: where to write, how often to checkpoint, which clock."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from headrace.features.errors import DefinitionError
from headrace.flows.changes import OnChange

ClockName: TypeAlias = Literal["wall", "stream"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def _default_worker() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:80] or "worker"


@dataclass(frozen=True)
class FlowSettings:
    """A live flow's settings.

    Attributes:
        name: of the flow; its consumer group and repartition topics are named after it. The same name, data and group
            make processes workers of one flow.
        data: folder or URL (fsspec) of the offline log and the checkpoints; shared by all workers.
        online: URL of the online store, such as "redis://localhost:6379/0"; None: an embedded store in `data`, which
            must be a folder then.
        project: namespace of the rows in the online store (Feast's project).
        layout: of rows in Redis, "feast" or "packed".
        group: Kafka consumer group; None: "headrace." + name.
        worker: name of this process in logs, metrics and as Kafka's client id; two of one name disturb nothing.
        clock: "wall" for a live flow; "stream" to replay a topic in its own time.
        until_end: stop at the offsets that were the topics' ends at the start.
        checkpoint_every_s: seconds between the checkpoints of a task.
        batch_size: most messages taken at once.
        on_change: what to do with features that a checkpoint does not know; "refuse", "start" (empty) or "backfill".
        dead_letter_topic: topic to which dead letters go besides the log; None: only the log.
        drift_topic: topic to which the drifts go that the views' detectors find; None: they are counted and kept in
            checkpoints only.
        kafka: librdkafka settings for every client of the flow; they win over the source's and over the defaults.
    """

    name: str
    data: str
    online: str | None = None
    project: str = "headrace"
    layout: str = "feast"
    group: str | None = None
    worker: str = field(default_factory=_default_worker)
    clock: ClockName = "wall"
    until_end: bool = False
    checkpoint_every_s: float = 10.0
    batch_size: int = 20_000
    on_change: OnChange = "refuse"
    dead_letter_topic: str | None = None
    drift_topic: str | None = None
    kafka: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DefinitionError(
                f"A flow is named {self.name!r}; expected letters, digits, '-' and '_', at most 100. It becomes part "
                "of names of topics and consumer groups."
            )
        object.__setattr__(self, "data", os.fspath(self.data))
        for what, given, known in (
            ("clock", self.clock, ("wall", "stream")),
            ("on_change", self.on_change, ("refuse", "start", "backfill")),
        ):
            if given not in known:
                raise DefinitionError(f"Flow '{self.name}': {what}={given!r} is unknown. Choose one of {known}.")
        if self.checkpoint_every_s <= 0:
            raise DefinitionError(
                f"Flow '{self.name}': checkpoint_every_s is {self.checkpoint_every_s}, expected seconds above 0."
            )
        if self.batch_size < 1:
            raise DefinitionError(f"Flow '{self.name}': batch_size is {self.batch_size}, expected 1 or more.")

    @property
    def consumer_group(self) -> str:
        """The Kafka consumer group of the flow."""
        return self.group or f"headrace.{self.name}"
