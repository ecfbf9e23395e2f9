"""The task of a partition of a source."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.view_flow import Output
from headrace.flows.worker.edges import Told
from headrace.flows.worker.exchange import Sender
from headrace.flows.worker.seam import Seam
from headrace.flows.worker.task import Stamps, Task, TaskState, together


class SourceTask(Task):
    """A partition of a source."""

    def __init__(
        self,
        *,
        number: int,
        senders: Sequence[Sender],
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.number = number
        self.seam: Seam | None = None
        self._senders = tuple(senders)
        self._heard_s = time.monotonic()
        self._ended: int | None = None

    def take(
        self,
        batch: EventBatch,
        dead: Sequence[DeadLetter],
        offset: int,
        clock_us: int | None,
        wall_us: int,
        stamps: Stamps,
    ) -> None:
        """Take decoded events; `offset`: the next to read after them."""
        if self._ended is not None:  # a run to the ends of its topics has come to this one's
            return
        if self.seam is not None:
            fresh = self.seam.unseen(batch, self.flow.source.dedup)
            if len(fresh) < len(batch):
                self._observer.counted(self.part, "in history", len(batch) - len(fresh))
            batch = fresh
        output = self.flow.push(batch, self.clock(clock_us), wall_us)
        self.offset = offset
        if self._senders and output.batch is not None:
            for sender in self._senders:
                sender.send(output.batch, offset, self.flow.newest_us)
        if not self.graphs or output.batch is None:
            self.emit(output, dead, stamps)
            return
        if len(output.batch):
            self._heard_s = time.monotonic()
        told = self._told()
        letters = list(dead)
        for graph in self.graphs:
            self.gave(graph.read(output.batch, told, self.clock(clock_us)))
            letters += graph.letters()
        self.emit(self._with_views(output), letters, stamps)

    def _with_views(self, output: Output) -> Output:
        """Together with what views over streams gave since the last time."""
        return together([output, *(each for graph in self.graphs for each in graph.outputs())])

    def _told(self) -> Told:
        """How far this partition has come, for those that its rows go on to."""
        idle_after = self.flow.source.idle_after_us
        idle = idle_after is not None and (time.monotonic() - self._heard_s) * 1_000_000 >= idle_after
        ended = None if self._ended is None else {f"{self.flow.source.name}/{self.number}": self._ended}
        return Told(self.flow.watermark_us, self.flow.newest_us, idle and self._kind == "wall", ended)

    def end(self) -> None:
        """The partition has come to where the run ends: rows that wait in steps for its watermark go on."""
        if self._ended is None and self.graphs:
            self._ended = self.offset
            for graph in self.graphs:
                self.gave(graph.take({}, self._told()))
                self.emit(self._with_views(Output()), graph.letters(), None)

    def say(self) -> None:
        """Tell the targets how far this partition has come, if they do not know."""
        for sender in self._senders:
            sender.tell(self.offset, self.flow.newest_us)
        for graph in self.graphs:
            graph.told = self._told()
            graph.say()

    def sending(self) -> Callable[[], None] | None:
        self.say()
        return super().sending()

    def state(self) -> TaskState:
        return msgspec.structs.replace(super().state(), seam=self.seam)

    def restore(self, state: TaskState) -> None:
        super().restore(state)
        self.seam = state.seam
