"""A task: one topic partition, from its events to rows, with a checkpoint of its own.

    SourceTask   a partition of a source: judges its events, computes the views keyed like it, sends on for the others
    RoutedTask   a partition of a repartition topic: takes in judged events of all source partitions
    StageTask    the same for rows of the steps of a flow

A task depends on its partition's events alone, so it gives the same on any worker. After a restart it says nothing
online until it has come again to where its predecessor had written (contract C14), and then writes every row that was
touched meanwhile.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.flows.deadletter import DeadLetter
from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.snapshot import SnapshotError
from headrace.flows.view_flow import ViewFlow
from headrace.flows.worker.graphs import TaskGraph
from headrace.flows.worker.log import Commit, LogThread, PartLog
from headrace.flows.worker.newest import NewestRows
from headrace.flows.worker.observing import Observer
from headrace.flows.worker.online import OnlineWriter
from headrace.flows.worker.outbox import Outbox
from headrace.flows.worker.seam import Seam
from headrace.stores.checkpoints import SnapshotPart
from headrace.stores.online import Clock, ClockKind

Stamps = npt.NDArray[np.float64]
TASK = "task"
"""Name of the snapshot part that holds what a task knows beside its flow."""
AnyFlow = ViewFlow[Any]
"""Of a source or of a stream."""
KEPT = "kept"
"""Name of the snapshot part that holds what a task's driver keeps with it."""
VERSION = 2
"""Of `TaskState`: 2 has seams."""


class TaskState(msgspec.Struct):
    """What a checkpoint says of a task beside its flow.

    partitions: of the topic(s) it reads, when the state was made. inbox: by source partition, the next offset not
    taken yet. seam: where the topic joins the history from files that the state began with; None: there was none.
    handed_over: whether it began with history from files.
    """

    partitions: int
    inbox: dict[int, int] = {}
    version: int = VERSION
    seam: Seam | None = None
    handed_over: bool = False


class Task:
    """What both kinds do. Made by opening.py, driven by a reader.

    part: its name. topic, partition: what it reads. offset: the next to read. partitions: of all topics its reader
    reads. begin: called once before it is given anything; what it writes counts from then on. settled_change: called
    when a checkpoint counts in which its views have changed. keep: gives what its driver keeps with each checkpoint.
    kept: what it had kept with the one that the task goes on from.
    """

    def __init__(
        self,
        *,
        part: str,
        topic: str,
        partition: int,
        partitions: int,
        offset: int,
        flow: SourceFlow,
        log: PartLog,
        threads: tuple[OnlineWriter, LogThread],
        observer: Observer,
        kind: ClockKind,
        tails: bool,
        outbox: Outbox | None,
        dead_letter_topic: str | None,
        drift_topic: str | None,
        give_up: threading.Event,
        flows: Sequence[str] = (),
    ) -> None:
        self.part, self.topic, self.partition, self.offset = part, topic, partition, offset
        self.partitions = partitions
        self.flow, self.log = flow, log
        self._online, self._logs = threads
        self._observer = observer
        self._kind, self._tails = kind, tails
        self._outbox, self._dead_topic, self._give_up = outbox, dead_letter_topic, give_up
        self._drift_topic = drift_topic
        self._flows = tuple(flows)
        if outbox is not None:
            outbox.forget(part)
        self.epoch = 0
        self._changed = True
        self._views = {view.name: view for view in flow.views}
        self._floor_us = 0
        self._silent_until: int | None = None
        self._held = NewestRows(self._views)
        self.due_s = 0.0
        self.paused = False
        self.begin: Callable[[], None] = lambda: None
        self.handed_over = False
        self.settled_change: Callable[[], None] | None = None
        self.keep: Callable[[], bytes] | None = None
        self.kept: bytes | None = None
        self.graphs: tuple[TaskGraph, ...] = ()
        self._counts = False  # whether a checkpoint counts that the sinks have not been told of

    def take_steps(self, graphs: Sequence[TaskGraph]) -> None:
        """Steps of flows are computed here, and views over their streams."""
        self.graphs = tuple(graphs)
        self._views = {view.name: view for view in self.views}
        self._held = NewestRows(self._views)

    @property
    def view_flows(self) -> list[AnyFlow]:
        """What computes views here: over events of the source, and over streams of flows."""
        return [self.flow, *(stream for graph in self.graphs for stream in graph.streams)]

    @property
    def views(self) -> list[ViewDefinition]:
        """The views that are computed here."""
        return [view for each in self.view_flows for view in each.views]

    @property
    def newest_us(self) -> int | None:
        """The newest event that was heard of, microseconds; None before the first."""
        return max((each.newest_us for each in self.view_flows if each.newest_us is not None), default=None)

    # Taking events

    def emit(self, output: Output, dead: Sequence[DeadLetter], stamps: Stamps | None) -> None:
        """Hand on what one step gave, now that `offset` says what it took."""
        self._changed = True
        letters = [*dead, *map(self._placed, output.dead)]
        self._logs.append(self.log, [(self._views[name], table) for name, table in output.log.items()], letters)
        if letters and self._outbox is not None and self._dead_topic is not None:
            for letter in letters:
                place = f"{letter.topic}/{letter.partition}/{letter.offset}"
                said = msgspec.json.encode(letter.record())
                self._outbox.send(self.part, self._dead_topic, -1, said, {}, place.encode())
        part, count = self.part, self._observer.counted
        if output.taken:
            count(part, "taken", output.taken)
        if output.duplicates:
            count(part, "duplicate", output.duplicates)
        for letter in letters:
            count(part, f"dead:{letter.reason}", 1)
        for column, missing in output.missing.items():
            count(part, f"missing:{column}", missing)
        for drift in output.drifts:
            count(part, f"drift:{drift.view}.{drift.feature}.{drift.detector}", 1)
            if self._outbox is not None and self._drift_topic is not None:
                place = f"{drift.view}.{drift.feature}.{drift.detector}/{part}/{drift.number}"
                self._outbox.send(self.part, self._drift_topic, -1, drift.message(), {}, place.encode())
        self._show(output.online, stamps)

    def _placed(self, letter: DeadLetter) -> DeadLetter:
        """The letter with Kafka's own names of its place."""
        source = self.flow.source
        if letter.topic is not None or not isinstance(source, KafkaSource):
            return letter
        topic, partition = source.place(letter.partition)
        return replace(letter, topic=topic, partition=partition)

    def come_to(self, offset: int) -> None:
        """Nothing that counts is before `offset`: what comes before it are marks of transactions."""
        if offset > self.offset:
            self.offset = offset
            if self.silent:
                self._show({}, None)

    def advance(self, clock_us: int) -> None:
        """Let time pass without events (contract C5)."""
        output = together([each.advance(max(clock_us, self._floor_us)) for each in self.view_flows])
        if output.online or output.log:
            self.emit(output, (), None)

    def clock(self, clock_us: int | None) -> int | None:
        """The task's clock at the flow's: not before the rows that its predecessor wrote."""
        return None if clock_us is None else max(clock_us, self._floor_us)

    def _show(self, rows: Mapping[str, pa.Table], stamps: Stamps | None) -> None:
        """Rows to the online store, or kept back while it is ahead of us."""
        if self._silent_until is not None and self.offset < self._silent_until:
            self._held.add(rows)
            return
        if self._silent_until is not None:
            self._silent_until = None
            self._held.add(rows)
            rows = self._held.take()
        self._online.submit(self.part, rows, self.offset, self._clock_us(), stamps)

    def _clock_us(self) -> int:
        return max(*(each.clock_us for each in self.view_flows), self._floor_us, 0)

    def gave(self, rows: Mapping[str, int]) -> None:
        """Count the rows that steps gave, by "FLOW.STEP"."""
        for step, count in rows.items():
            self._observer.counted(self.part, f"given:{step}", count)

    # Saying what is known

    @property
    def watermark_us(self) -> int | None:
        """No event before it is taken any more; None before the first."""
        return self.flow.watermark_us

    @property
    def silent(self) -> bool:
        """Whether the online store is still ahead of this task."""
        return self._silent_until is not None

    @property
    def silent_until(self) -> int | None:
        """The offset up to which the online store is ahead; None: it is not."""
        return self._silent_until

    def go_on_from(self, position: int | None, clock_us: int) -> None:
        """The online store has our predecessor's rows up to `position`, none of them later than `clock_us`."""
        self._floor_us = clock_us
        for each in self.view_flows:
            each.follow(clock_us)
        self._silent_until = position if position is not None and position > self.offset else None

    def refill(self, before: Mapping[str, pa.Table]) -> None:
        """Write every row anew, because the store has lost them: those of the log, then those held in memory."""
        part, offset = self.part, self.offset
        for name, table in before.items():
            if table.num_rows:
                self._online.submit(part, {name: table}, offset, self._clock_us(), anew=True)
        self._online.submit(part, self._rows(), offset, self._clock_us(), anew=True)

    def show_all(self) -> None:
        """Write the row of every entity in memory, because a view has changed; what has emptied stays as it was."""
        self._show(self._rows(), None)

    def _rows(self) -> dict[str, pa.Table]:
        """The row of every entity in memory, by view."""
        clock = self._clock_us()
        return {name: rows for each in self.view_flows for name, rows in each.rows(clock).items()}

    # Checkpoints

    def checkpoint(self, *, final: bool = False) -> bool:
        """Have a checkpoint committed behind everything so far; false where none may be taken now.

        None is taken while an earlier one is under way, or while the store is ahead: a row that the predecessor did
        not get round to writing is written again only by going on from the checkpoint that is there.
        """
        if self.silent or self.log.failure is not None or (self.log.commits and not final):
            return False
        self.settle_sinks()
        if not self._changed and self.log.committed == self.offset and not (final and self._tails):
            return True
        settled = together([each.settle() for each in self.view_flows])
        if settled.log or settled.drifts:
            self.emit(settled, (), None)
        self._changed = False
        snapshots = {**self.flow.save(), **self._steps()}
        sent = self.sending()
        self._online.submit(self.part, {}, self.offset, self._clock_us())
        snapshots[TASK] = SnapshotPart(msgspec.msgpack.encode(self.state()))
        if self.keep is not None:
            snapshots[KEPT] = SnapshotPart(self.keep())
        begun = [each for each in self.view_flows if each.newest_us is not None]
        tails = [each.tail() for each in begun] if final and self._tails else []
        self._logs.commit(
            self.log,
            Commit(
                position=self.offset,
                mark=self._online.mark(self.part),
                snapshots=snapshots,
                settled_us={
                    name: us
                    for each in begun
                    if each.watermark_us is not None
                    for name, us in each.settled_us().items()
                },
                offsets={self.offsets_name(): {self.partition: self.offset}},
                clock=Clock(self._clock_us(), self._kind) if begun and self._views else None,
                tails=[(self._views[name], table) for ahead in tails for name, table in ahead.items()],
                sent=sent,
                done=self.committed,
            ),
        )
        return True

    def fix_start(self) -> None:
        """Commit where this task begins, at once and before anything is read.

        A start that depends on the moment ("latest") must not be looked for again after a crash: what had come between
        would be lost.
        """
        snapshots = {**self.flow.save(full=True), **self._steps()}
        snapshots[TASK] = SnapshotPart(msgspec.msgpack.encode(self.state()))
        offsets = {self.offsets_name(): {self.partition: self.offset}}
        self.log.log.commit(settled_us={}, snapshots=snapshots, offsets=offsets, clock=None)
        self.log.committed = self.offset

    def _steps(self) -> dict[str, SnapshotPart]:
        """What a checkpoint holds of steps; letters of rows that their sinks do not take go into the log with it."""
        parts = {name: part for graph in self.graphs for name, part in graph.save().items()}
        letters = [letter for graph in self.graphs for letter in graph.letters()]
        if letters:
            self.emit(Output(), letters, None)
            self._changed = False
        return parts

    def settle_sinks(self) -> None:
        """Tell the sinks of the last checkpoint, where it counts by now: what was staged for it is shown."""
        if self._counts:
            self._counts = False
            for graph in self.graphs:
                graph.settle()

    def close_sinks(self) -> None:
        """Give up what sinks have not flushed."""
        for graph in self.graphs:
            graph.close()

    def sending(self) -> Callable[[], None] | None:
        """Send on what has not been, and return what waits for the acknowledgement of all that was sent."""
        return None if self._outbox is None else self._outbox.waiter(self.part, self._give_up)

    def committed(self, position: int) -> None:
        """A checkpoint at `position` counts now. Called from the log's thread."""
        self._counts = True
        if self.settled_change is not None:
            self.settled_change()
            self.settled_change = None

    def offsets_name(self) -> str:
        """Under which name a checkpoint keeps the offset."""
        return self.flow.source.name

    def state(self) -> TaskState:
        """What a checkpoint keeps beside the flow."""
        return TaskState(self.partitions, handed_over=self.handed_over)

    def restore(self, state: TaskState) -> None:
        """Go on from a checkpoint's `state`.

        Raises:
            SnapshotError: the topic had another number of partitions, so entities have moved between them.
        """
        held = [f"'{view.name}'" for view in self.flow.views] + [f"flow '{name}'" for name in self._flows]
        if state.partitions != self.partitions and held:
            views = ", ".join(held)
            raise SnapshotError(
                f"Part '{self.part}': {views} has state from when '{self.topic}' had {state.partitions} partitions, "
                f"and now it has {self.partitions}: entities have moved to other partitions, away from their state. "
                "Start afresh (--fresh), which reads the topic again."
            )
        self.handed_over = state.handed_over


def together(outputs: Sequence[Output]) -> Output:
    """What several flows of views gave, as of one; `batch` is the first's."""
    first = outputs[0] if outputs else Output()
    return replace(
        first,
        online={name: rows for each in outputs for name, rows in each.online.items()},
        log={name: rows for each in outputs for name, rows in each.log.items()},
        drifts=[drift for each in outputs for drift in each.drifts],
    )


def judged_source(source: KafkaSource) -> KafkaSource:
    """The source as a receiver of judged events sees it: nothing is ahead of its clock any more."""
    made = copy(source)
    object.__setattr__(made, "max_ahead_us", None)
    return made


def state_of(parts: Mapping[str, Sequence[bytes]], part: str) -> TaskState | None:
    """What a checkpoint says of a task. Raises SnapshotError if it is not readable."""
    chain = parts.get(TASK)
    if not chain:
        return None
    try:
        state = msgspec.msgpack.decode(chain[-1], type=TaskState)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"Part '{part}': its checkpoint cannot be read: {error}. Start afresh (--fresh).") from None
    if state.version > VERSION:
        raise SnapshotError(
            f"Part '{part}': its checkpoint is of version {state.version}, this Headrace reads up to {VERSION}. "
            "Upgrade Headrace."
        )
    return state
