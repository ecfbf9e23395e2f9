"""The task of a partition of a repartition topic of steps: rows come by key from all tasks before it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from headrace.features.errors import DataError
from headrace.flows.batch import EventBatch
from headrace.flows.graph.cutting import Stage
from headrace.flows.worker.edges import StageInbox, Told
from headrace.flows.worker.routed_task import LET_GO_S
from headrace.flows.worker.task import Stamps, Task, together
from headrace.stores.checkpoints import SnapshotPart

INBOX = "-inbox"
"""Name of the part of a checkpoint that tells which rows have come."""


class StageTask(Task):
    """A partition of the repartition topic of a stage.

    Args:
        stage: what is computed. inbox: what is known of the senders. let_go: called with topic, partition and offset
            before which nothing is read any more.
    """

    def __init__(
        self, *, stage: Stage, inbox: StageInbox, let_go: Callable[[str, int, int], None], **common: Any
    ) -> None:
        super().__init__(**common)
        self._stage, self.inbox, self._let_go = stage, inbox, let_go
        self._let_go_s = time.monotonic()
        self._ended = False

    def take(self, messages: Sequence[Any], offset: int, stamps: Stamps, clock_us: int | None = None) -> int:
        """Take messages of senders in the order of the topic; `offset`: the next to read after them.

        Returns how many rows had not come before.

        Raises:
            DataError: a message is no sender's, or rows between messages are missing.
        """
        rows: dict[str, list[EventBatch]] = {}
        taken = 0
        for message in messages:
            with self._naming(message):
                back = self.inbox.is_back(message.headers())
            if back:  # what went on without its sender does so however messages are batched
                self.offset = message.offset()
                taken += self._take(rows, stamps, clock_us)
                rows = {}
            with self._naming(message):
                found = self.inbox.take(message.value(), message.headers())
            if found is not None:
                rows.setdefault(found[0].name, []).append(found[1])
        self.offset = offset
        return taken + self._take(rows, stamps, clock_us)

    @contextmanager
    def _naming(self, message: Any) -> Iterator[None]:
        """Errors of a message say where it is."""
        try:
            yield
        except DataError as error:
            at = f"Repartition topic '{self.topic}', partition {self.partition}, offset {message.offset()}"
            raise DataError(f"{at}: {error}.") from None

    def _take(self, rows: Mapping[str, Sequence[EventBatch]], stamps: Stamps, clock_us: int | None) -> int:
        self._pass_on({name: EventBatch.concat(its) for name, its in rows.items()}, None, stamps, clock_us)
        return sum(len(each) for its in rows.values() for each in its)

    def end(self, ends: Mapping[str, int]) -> bool:
        """Whether every sender has given all that it had up to where sources end for this run ("rides/3": offset).

        Rows that wait for the watermark go on then.
        """
        reached = self.inbox.ended
        if reached is None or any(reached.get(name, -1) < end for name, end in ends.items()):
            return False
        if not self._ended:
            self._ended = True
            self._pass_on({}, reached, None)
        return True

    def _pass_on(
        self,
        rows: Mapping[str, EventBatch],
        ended: dict[str, int] | None,
        stamps: Stamps | None,
        clock_us: int | None = None,
    ) -> None:
        told = Told(self.inbox.watermark_us, self.inbox.newest_us, False, ended)
        for graph in self.graphs:
            self.gave(graph.take(rows, told, self.clock(clock_us)))
        output = together([each for graph in self.graphs for each in graph.outputs()])
        self.emit(output, [letter for graph in self.graphs for letter in graph.letters()], stamps)

    def say(self) -> None:
        """Tell the stages behind how far this task has come, if they do not know."""
        for graph in self.graphs:
            graph.say()

    def sending(self) -> Callable[[], None] | None:
        self.say()
        return super().sending()

    @property
    def watermark_us(self) -> int | None:
        return self.inbox.watermark_us

    def committed(self, position: int) -> None:
        """Let Kafka delete what no restart will read again."""
        super().committed(position)
        now = time.monotonic()
        if now - self._let_go_s >= LET_GO_S:
            self._let_go_s = now
            self._let_go(self.topic, self.partition, position)

    def offsets_name(self) -> str:
        return self._stage.name

    def _steps(self) -> dict[str, SnapshotPart]:
        return {**super()._steps(), INBOX: SnapshotPart(msgspec.msgpack.encode(self.inbox.save()))}
