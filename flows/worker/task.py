"""A task: one topic partition, from its events to rows, with a checkpoint of its own.

    SourceTask   a partition of a source: judges its events, computes the views keyed like it, sends on for the others
    RoutedTask   a partition of a repartition topic: takes in judged events of all source partitions

A task depends on its partition's events alone, so it gives the same on any worker. After a restart it says nothing
online until it has come again to where its predecessor had written (contract C14), and then writes every row that was
touched meanwhile.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.snapshot import SnapshotError
from headrace.flows.worker.exchange import Inbox, Sender, receive
from headrace.flows.worker.log import Commit, LogThread, PartLog
from headrace.flows.worker.newest import NewestRows
from headrace.flows.worker.observing import Observer
from headrace.flows.worker.online import OnlineWriter
from headrace.flows.worker.outbox import Outbox
from headrace.stores.checkpoints import SnapshotPart
from headrace.stores.online import Clock, ClockKind

Stamps = npt.NDArray[np.float64]
LET_GO_S = 30.0
"""How often the read messages of a repartition topic are deleted."""
TASK = "task"
"""Name of the snapshot part that holds what a task knows beside its flow."""


class TaskState(msgspec.Struct):
    """What a checkpoint says of a task beside its flow.

    partitions: of the topic(s) it reads, when the state was made. inbox: by source partition, the next offset not
    taken yet.
    """

    partitions: int
    inbox: dict[int, int] = {}
    version: int = 1


class Task:
    """What both kinds do. Made by opening.py, driven by a reader.

    part: its name. topic, partition: what it reads. offset: the next to read. partitions: of all topics its reader
    reads.
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
        give_up: threading.Event,
    ) -> None:
        self.part, self.topic, self.partition, self.offset = part, topic, partition, offset
        self.partitions = partitions
        self.flow, self.log = flow, log
        self._online, self._logs = threads
        self._observer = observer
        self._kind, self._tails = kind, tails
        self._outbox, self._dead_topic, self._give_up = outbox, dead_letter_topic, give_up
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
        output = self.flow.advance(max(clock_us, self._floor_us))
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
        return max(self.flow.clock_us, self._floor_us, 0)

    # Saying what is known

    @property
    def silent(self) -> bool:
        """Whether the online store is still ahead of this task."""
        return self._silent_until is not None

    def go_on_from(self, position: int | None, clock_us: int) -> None:
        """The online store has our predecessor's rows up to `position`, none of them later than `clock_us`."""
        self._floor_us = clock_us
        self.flow.follow(clock_us)
        self._silent_until = position if position is not None and position > self.offset else None

    def refill(self, before: Mapping[str, pa.Table]) -> None:
        """Write every row anew, because the store has lost them: those of the log, then those held in memory."""
        part, offset = self.part, self.offset
        for name, table in before.items():
            if table.num_rows:
                self._online.submit(part, {name: table}, offset, self._clock_us(), anew=True)
        self._online.submit(part, self.flow.rows(self._clock_us()), offset, self._clock_us(), anew=True)

    def show_all(self) -> None:
        """Write the row of every entity in memory, because a view has changed; what has emptied stays as it was."""
        self._show(self.flow.rows(self._clock_us()), None)

    # Checkpoints

    def checkpoint(self, *, final: bool = False) -> bool:
        """Have a checkpoint committed behind everything so far; false where none may be taken now.

        None is taken while an earlier one is under way, or while the store is ahead: a row that the predecessor did
        not get round to writing is written again only by going on from the checkpoint that is there.
        """
        if self.silent or self.log.failure is not None or (self.log.commits and not final):
            return False
        if not self._changed and self.log.committed == self.offset and not (final and self._tails):
            return True
        self._changed = False
        sent = self.sending()
        self._online.submit(self.part, {}, self.offset, self._clock_us())
        snapshots = dict(self.flow.save())
        snapshots[TASK] = SnapshotPart(msgspec.msgpack.encode(self.state()))
        begun = self.flow.newest_us is not None
        ahead = self.flow.tail() if final and begun and self._tails else {}
        self._logs.commit(
            self.log,
            Commit(
                position=self.offset,
                mark=self._online.mark(self.part),
                snapshots=snapshots,
                settled_us=self.flow.settled_us() if begun else {},
                offsets={self.offsets_name(): {self.partition: self.offset}},
                clock=Clock(self._clock_us(), self._kind) if begun and self._views else None,
                tails=[(self._views[name], table) for name, table in ahead.items()],
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
        snapshots = dict(self.flow.save(full=True))
        snapshots[TASK] = SnapshotPart(msgspec.msgpack.encode(self.state()))
        offsets = {self.offsets_name(): {self.partition: self.offset}}
        self.log.log.commit(settled_us={}, snapshots=snapshots, offsets=offsets, clock=None)
        self.log.committed = self.offset

    def sending(self) -> Callable[[], None] | None:
        """Send on what has not been, and return what waits for the acknowledgement of all that was sent."""
        return None if self._outbox is None else self._outbox.waiter(self.part, self._give_up)

    def committed(self, position: int) -> None:
        """A checkpoint at `position` counts now. Called from the log's thread."""

    def offsets_name(self) -> str:
        """Under which name a checkpoint keeps the offset."""
        return self.flow.source.name

    def state(self) -> TaskState:
        """What a checkpoint keeps beside the flow."""
        return TaskState(self.partitions)

    def restore(self, state: TaskState) -> None:
        """Go on from a checkpoint's `state`.

        Raises:
            SnapshotError: the topic had another number of partitions, so entities have moved between them.
        """
        if state.partitions != self.partitions and self.flow.views:
            views = ", ".join(f"'{view.name}'" for view in self.flow.views)
            raise SnapshotError(
                f"Part '{self.part}': {views} has state from when '{self.topic}' had {state.partitions} partitions, "
                f"and now it has {self.partitions}: entities have moved to other partitions, away from their state. "
                "Start afresh (--fresh), which reads the topic again."
            )


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
        self._senders = tuple(senders)

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
        output = self.flow.push(batch, self.clock(clock_us), wall_us)
        self.offset = offset
        if self._senders and output.batch is not None:
            for sender in self._senders:
                sender.send(output.batch, offset, self.flow.newest_us)
        self.emit(output, dead, stamps)

    def say(self) -> None:
        """Tell the targets how far this partition has come, if they do not know."""
        for sender in self._senders:
            sender.tell(self.offset, self.flow.newest_us)

    def sending(self) -> Callable[[], None] | None:
        self.say()
        return super().sending()


class RoutedTask(Task):
    """A partition of a repartition topic, whose events have been judged where they came from."""

    def __init__(self, *, name: str, let_go: Callable[[str, int, int], None], **common: Any) -> None:
        super().__init__(**common)
        self._name = name
        self._let_go = let_go
        self._let_go_s = time.monotonic()
        self.inbox = Inbox()

    def take(self, messages: Sequence[Any], offset: int, clock_us: int | None, stamps: Stamps) -> int:
        """Take messages of senders in the order of the topic; `offset`: the next to read after them.

        Returns how many events had not come before.

        Raises:
            DataError: a message is no sender's, or events between messages are missing.
        """
        batches: list[EventBatch] = []
        newest: dict[int, int] = {}
        schema = self.flow.source.schema
        for message in messages:
            try:
                routed = receive(schema, message.value(), message.headers())
                fresh = self.inbox.take(routed)
            except DataError as error:
                raise DataError(
                    f"Repartition topic '{self.topic}', partition {self.partition}, offset {message.offset()}: {error}."
                ) from None
            if fresh is not None:
                batches.append(fresh)
            if routed.cover.newest is not None:
                known = newest.get(routed.cover.partition)
                came = routed.cover.newest
                newest[routed.cover.partition] = came if known is None else max(came, known)
        self.offset = offset
        batch = EventBatch.concat(batches) if batches else None
        self.emit(self.flow.push_judged(batch, newest, self.clock(clock_us)), (), stamps)
        return 0 if batch is None else len(batch)

    def committed(self, position: int) -> None:
        """Let Kafka delete what no restart will read again."""
        now = time.monotonic()
        if now - self._let_go_s >= LET_GO_S:
            self._let_go_s = now
            self._let_go(self.topic, self.partition, position)

    def offsets_name(self) -> str:
        return self._name

    def state(self) -> TaskState:
        return TaskState(self.partitions, dict(self.inbox.next))

    def restore(self, state: TaskState) -> None:
        super().restore(state)
        self.inbox.next = dict(state.inbox)


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
        return msgspec.msgpack.decode(chain[-1], type=TaskState)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"Part '{part}': its checkpoint cannot be read: {error}. Start afresh (--fresh).") from None
