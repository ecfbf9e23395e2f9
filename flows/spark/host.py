"""The tasks of one Python process of an executor.

A process is given a task in one turn and perhaps not in the next: then another process opens it from its checkpoint and
takes its part of the log over. So each turn of a task ends with a checkpoint, and holds on to the task in case that it
comes back. What the task has sent in a turn is in its checkpoint too: whoever opens it sends that again, for those that
it was for may not have had it.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
from confluent_kafka import Producer

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.settings import consumer_config, producer_config
from headrace.flows.spark.fetching import Partition
from headrace.flows.spark.plan import Counts, Place, SparkPlan
from headrace.flows.spark.rows import Sent, messages
from headrace.flows.spark.tally import Tally
from headrace.flows.warm import warm
from headrace.flows.worker.history import Topic
from headrace.flows.worker.log import LogThread
from headrace.flows.worker.online import OnlineWriter
from headrace.flows.worker.opening import ONLINE, Workplace, open_routed_task, open_source_task, open_stage_task
from headrace.flows.worker.outbox import Outbox
from headrace.flows.worker.reader import sampled_stamps
from headrace.flows.worker.routed_task import RoutedTask
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.source_task import SourceTask
from headrace.flows.worker.stage_task import StageTask
from headrace.flows.worker.stages import Route
from headrace.flows.worker.task import Task
from headrace.stores.errors import FencedError, StoreError
from headrace.stores.opening import open_online

logger = logging.getLogger("headrace.spark")

Offsets = Mapping[str, Mapping[int, int]]
"""By the name of a source and the number of a partition."""
_KEPT = tuple[str, int, list[tuple[str, int, bytes, dict[str, bytes]]]]
DRAIN_S = 600.0
"""How long a checkpoint may take until the turn is given up, and tried again."""


@dataclass(frozen=True)
class Job:
    """What executors must know of a flow; the same for all turns of a run.

    load: gives the views and flows. run: tells this run of the driver from those before it. counts, shards: as of
    `SparkPlan`. first: where partitions without a checkpoint begin.
    """

    load: Callable[[], Sequence[Any]]
    settings: FlowSettings
    counts: Counts
    shards: int | None
    first: Offsets
    run: str


@dataclass(frozen=True)
class Turn:
    """One Spark job: every task is given what there is for it.

    clock_us: the clock of a live flow; None: a replay. wall_us: the wall's. upto: how far partitions are read; one
    that is not there is not read. phase: "read"; "end": all is read, what waits goes on; "leave": the last,
    with what a run leaves behind. ends: where the sources' partitions end for this run. newest_us: in the last turn of
    a replay, the clock at which all stand.
    """

    number: int
    clock_us: int | None
    wall_us: int
    upto: Offsets
    phase: Literal["read", "end", "leave"] = "read"
    ends: Offsets = field(default_factory=dict)
    newest_us: int | None = None


class Report(msgspec.Struct):
    """What a task says to the driver.

    offset: what its checkpoint has come to; -1: it has none. newest: event, microseconds. entities: in memory,
    by view. told: as of `Tally`.
    """

    part: str
    offset: int
    newest: int | None
    watermark: int | None
    entities: dict[str, int]
    told: list[list[Any]]


@dataclass
class _Held:
    task: Task
    turn: int
    sent: list[Sent]


class Host:
    """Made once in a Python process for each run of the driver."""

    def __init__(self, job: Job) -> None:
        self._job = job
        settings = job.settings
        self.plan = SparkPlan(job.load(), settings, job.counts, job.shards)
        if self.plan.views:
            warm()
        self._tally = Tally()
        self._give_up = threading.Event()
        self._live = settings.clock == "wall"
        url = settings.online or f"{settings.data.rstrip('/')}/{ONLINE}"
        self._store = open_online(url, project=settings.project, layout=settings.layout, expire=self._live)  # type: ignore[arg-type]
        self._online = OnlineWriter(
            self._store, self.plan.views, settings.clock, settings.name, self._tally, self._give_up
        )
        self._logs = LogThread(self._online, self._tally, self._give_up)
        self._place = Workplace(
            settings, self._online, self._logs, self._tally, self._give_up, frozenset(self.plan.views)
        )
        self._sending = ShuffleOutbox(self.plan, settings)
        self._decoders: dict[str, MessageDecoder] = {}
        self._partitions: dict[str, Partition] = {}
        self._held: dict[str, _Held] = {}

    def take(self, place: Place, turn: Turn, batches: Iterator[pa.RecordBatch]) -> tuple[list[Sent], Report]:
        """Give a task what there is for it; what it sends, and what it says.

        Raises:
            FencedError, StoreError: the turn must be tried again. HeadraceError: it cannot go on.
        """
        held = self._held.get(place.part)
        if held is not None and held.turn < turn.number - 1:  # another process had it meanwhile
            self._drop(held.task)
            held = None
        again: list[Sent] = []
        if held is not None and held.turn == turn.number:
            again = held.sent
        try:
            if held is None:
                held = self._open(place, turn)
                again = held.sent
            task = held.task
            self._sending.forget(task.part)
            task.keep = lambda: self._kept(turn, [*again, *self._sending.sent(task.part)])
            with self._online.together():
                self._work(place, task, turn, batches)
            self._checkpoint(task, final=turn.phase == "leave")
        except BaseException:
            lost = self._held.get(place.part) if held is None else held
            if lost is not None:
                self._drop(lost.task)
            raise
        sent = [*again, *self._sending.sent(task.part)]
        self._held[place.part] = _Held(task, turn.number, sent)
        return sent, self._report(task)

    # Opening

    def _open(self, place: Place, turn: Turn) -> _Held:
        """The task from its checkpoint, with what it must send again."""
        task = self._opened(place)
        task.begin()
        held = self._held[place.part] = _Held(task, -1, self._unsure(task.kept, turn))
        return held

    def _kept(self, turn: Turn, sent: Sequence[Sent]) -> bytes:
        """What a checkpoint of a turn keeps of what was sent."""
        plain = [(each.topic, each.target, each.value, each.headers) for each in sent]
        return msgspec.msgpack.encode((self._job.run, turn.number, plain))

    def _unsure(self, kept: bytes | None, turn: Turn) -> list[Sent]:
        """What was sent and perhaps did not arrive: all, unless its turn was one of this run and has ended.

        Raises:
            DataError: it cannot be read.
        """
        if kept is None:
            return []
        try:
            run, number, plain = msgspec.msgpack.decode(kept, type=_KEPT)
        except msgspec.MsgspecError as error:
            raise DataError(
                f"What a task had sent cannot be read from its checkpoint: {error}. Start afresh (--fresh)."
            ) from None
        return [] if run == self._job.run and number < turn.number else [Sent(*each) for each in plain]

    def _opened(self, place: Place) -> Task:
        job, plan = self._job, self.plan
        if isinstance(place.kind, KafkaSource):
            source, number = place.kind, place.number
            stages = plan.stages[source.name]
            return open_source_task(
                self._place,
                stages,
                number,
                len(plan.numbers[source.name]),
                lambda: job.first[source.name][number],
                {route.topic: plan.shards[route.name] for route in stages.routes},
                self._sending,
                self._topic(source),
                plan.plans_of(source.name),
            )
        if isinstance(place.kind, Route):
            stages = plan.stages_of_route(place.kind)
            return open_routed_task(
                self._place,
                stages,
                place.kind,
                place.number,
                plan.shards[place.kind.name],
                plan.numbers[stages.source.name],
                self._sending,
                _nothing,
                self._topic(stages.source),
            )
        assert place.flow is not None
        return open_stage_task(self._place, place.flow, place.kind, place.number, self._sending, _nothing)

    def _topic(self, source: KafkaSource) -> Topic:
        settings = self._job.settings
        config = consumer_config(source, f"{settings.consumer_group}.{source.name}", settings.kafka)
        return Topic(source, config, settings.kafka)

    def _drop(self, task: Task) -> None:
        self._held.pop(task.part, None)
        task.close_sinks()
        self._online.close(task.part)
        self._logs.close(task.log)
        self._sending.forget(task.part)

    # A turn

    def _work(self, place: Place, task: Task, turn: Turn, batches: Iterator[pa.RecordBatch]) -> None:
        if isinstance(task, SourceTask):
            self._read(task, turn)
            if turn.phase == "end":
                task.end()
        else:
            its = list(chain.from_iterable(messages(batch, task.offset) for batch in batches))
            if its and isinstance(task, RoutedTask):
                task.take(its, task.offset + 1, turn.clock_us, np.empty(0))
            elif its and isinstance(task, StageTask):
                task.take(its, task.offset + 1, np.empty(0), turn.clock_us)
            if turn.phase == "end" and isinstance(task, StageTask):
                self._end(place, task, turn)
        clock = turn.newest_us if turn.phase == "leave" and not self._live else turn.clock_us
        if clock is not None:
            task.advance(clock)
        if isinstance(task, SourceTask | StageTask):
            task.say()

    def _read(self, task: SourceTask, turn: Turn) -> None:
        """Give the messages of its partition to a task, up to where the turn reads or the online store is ahead."""
        source = task.flow.source
        assert isinstance(source, KafkaSource)
        end = max(turn.upto.get(source.name, {}).get(task.number, 0), task.silent_until or 0)
        if end <= task.offset:
            return
        for its in self._partition(task, source).read(task.offset, end):
            number = np.full(len(its), task.number, dtype=np.int32)
            batch, dead, tombstones = self._decoder(source).decode(its, number)
            task.take(batch, dead, its[-1].offset() + 1, turn.clock_us, turn.wall_us, sampled_stamps(its))
            self._tally.batch(task.part, len(its), sum(map(len, its)), {})
            if tombstones:
                self._tally.counted(source.name, "tombstone", tombstones)
        task.come_to(end)

    def _partition(self, task: SourceTask, source: KafkaSource) -> Partition:
        if task.part not in self._partitions:
            settings = self._job.settings
            config = self._topic(source).config
            self._partitions[task.part] = Partition(task.topic, task.partition, config, settings.batch_size)
        return self._partitions[task.part]

    def _decoder(self, source: KafkaSource) -> MessageDecoder:
        if source.name not in self._decoders:
            self._decoders[source.name] = MessageDecoder(source, self._job.settings.kafka)
        return self._decoders[source.name]

    def _end(self, place: Place, task: StageTask, turn: Turn) -> None:
        assert place.flow is not None
        assert not isinstance(place.kind, KafkaSource | Route)
        ends = {
            place.flow.sender(name, number): end
            for name in place.flow.cut.behind(place.kind)
            for number, end in turn.ends.get(name, {}).items()
        }
        if not task.end(ends):
            raise StoreError(
                f"'{task.part}' has not been told of the end of all that send to it; the turn is repeated."
            )

    def _checkpoint(self, task: Task, *, final: bool) -> None:
        if task.silent:  # nothing came for it, so nothing is lost with it
            return
        if not task.checkpoint(final=final):
            raise task.log.failure or StoreError(f"'{task.part}': a checkpoint is under way for too long.")
        if not self._logs.drained(task.log, DRAIN_S):
            raise StoreError(f"'{task.part}': the checkpoint was not committed within {DRAIN_S:.0f} s.")
        if task.log.failure is not None:
            raise task.log.failure
        state = self._online.state(task.part)
        if state == "fenced":
            raise FencedError(f"'{task.part}' was taken over by another process.")
        if state != "open":
            raise StoreError(f"'{task.part}': the online store has lost its rows; they are written anew.")
        task.settle_sinks()

    def _report(self, task: Task) -> Report:
        return Report(
            part=task.part,
            offset=task.log.committed,
            newest=task.newest_us,
            watermark=task.watermark_us,
            entities={name: n for each in task.view_flows for name, n in each.entities.items()},
            told=self._tally.take(),
        )

    def end(self) -> None:
        """Give up all tasks: another run of the driver has begun."""
        self._give_up.set()
        for held in list(self._held.values()):
            with contextlib.suppress(StoreError):  # nothing of it counts any more
                self._drop(held.task)
        for partition in self._partitions.values():
            partition.close()
        self._logs.end()
        self._online.end()
        self._store.close()


class ShuffleOutbox(Outbox):
    """What tasks send: to tasks of later levels through Spark, letters and drifts to their topics in Kafka."""

    def __init__(self, plan: SparkPlan, settings: FlowSettings) -> None:
        config = producer_config(plan.sources[0][0], settings.kafka)
        super().__init__(Producer({**config, "logger": logger_of(config)}))
        self._receivers = plan.receivers
        self._sent: dict[str, list[Sent]] = {}

    def send(
        self,
        sender: str,
        topic: str,
        partition: int,
        value: bytes,
        headers: Mapping[str, bytes],
        key: bytes | None = None,
    ) -> None:
        if topic in self._receivers:
            self._sent.setdefault(sender, []).append(Sent(topic, partition, value, dict(headers)))
        else:
            super().send(sender, topic, partition, value, headers, key)

    def sent(self, sender: str) -> list[Sent]:
        """What a task has sent to others since it was forgotten."""
        return self._sent.get(sender, [])

    def forget(self, sender: str) -> None:
        super().forget(sender)
        self._sent.pop(sender, None)


def _nothing(topic: str, partition: int, offset: int) -> None:
    """Nothing is kept of what was sent, so nothing is let go."""
