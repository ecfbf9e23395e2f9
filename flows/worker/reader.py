"""A consumer of a group at work: poll, hand out, let time pass, checkpoint, stop where the stores cannot follow.

What a reader of a source and one of a repartition topic have in common is here; `SourceReader` and `RoutedReader` say
how messages become events.
"""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaException, TopicPartition

from headrace.features.errors import DataError
from headrace.flows.kafka.errors import is_passing
from headrace.flows.worker.consuming import GroupConsumer, Place
from headrace.flows.worker.opening import Workplace
from headrace.flows.worker.task import Task
from headrace.flows.worker.tenancy import Tenancy

STAMPS = 64
"""So many records of a batch, at most, have their freshness measured."""
ASK_S = 0.3
"""How often a worker that is through asks whether the others are."""
ANSWER_S = 0.5
"""How long it waits for what the group's coordinator says of that, and does not poll. A question stands in line behind
a request to join, which the coordinator answers when all members have polled: workers that wait for each other's groups
would wait in a circle."""
LATER_S = 1.0
"""How long it polls before it asks again then."""
DRAIN_S = 30.0
"""How long a stop waits for the stores."""


class Reader:
    """One consumer and its tasks.

    Args:
        place: what the worker's tasks share. config: of the consumer. topics: to subscribe to. ends: offsets at which
            to stop, by place; None: never.
    """

    def __init__(
        self, place: Workplace, config: Mapping[str, Any], topics: Sequence[str], ends: Mapping[Place, int] | None
    ) -> None:
        self._place = place
        self._topics = list(topics)
        self._ends = ends
        self._config = dict(config)
        self._shown = 0.0
        self._committed: dict[Place, int] = {}
        self._ask_s = self._again_s = 0.0
        self.tenancy = Tenancy(place, self.open, self._dropped)
        self.tasks = self.tenancy.tasks
        self.group = GroupConsumer(
            config,
            topics,
            place.settings.batch_size,
            place.observer,
            with_ends=ends is not None,
            assigned=self.tenancy.assigned,
            revoked=self._revoked,
            lost=self.tenancy.lost,
            gap=self._gap,
        )
        self.consumer = self.tenancy.client = self.group.client

    # What the two kinds do in their own way

    def open(self, topic: str, partition: int) -> Task:
        """The task of a partition."""
        raise AssertionError("each kind of reader opens its own tasks")

    def handle(self, messages: list[Any], clock_us: int | None, wall_us: int) -> None:
        """Give messages to their tasks."""
        raise AssertionError("each kind of reader hands out its own messages")

    def finished(self, task: Task) -> bool:
        """Whether a task has come to the end at which it is to stop."""
        raise AssertionError("each kind of reader knows its own end")

    # Turns

    def poll(self, timeout_s: float) -> list[Any]:
        """As `GroupConsumer.poll`."""
        return self.group.poll(timeout_s)

    def keep_back(self, messages: list[Any]) -> None:
        """Messages that cannot be taken now are given again after a while; nothing more is read until then."""
        self.group.keep_back(messages)
        self._press()

    def _gap(self, at: Place) -> None:
        task = self.tasks.get(at)
        if task is None:
            return
        low, high = self.consumer.get_watermark_offsets(TopicPartition(*at), timeout=10.0)
        source = task.flow.source
        if getattr(source, "on_gap", "fail") == "fail" or not task.offset < low:
            raise DataError(
                f"Topic '{at[0]}', partition {at[1]}: the checkpoint goes on at offset {task.offset:,}, and the broker "
                f"has offsets {low:,} to {high:,}. "
                + (
                    "The messages between were deleted before they were read. To go on without them, set "
                    "on_gap='skip' in the source; keep messages for longer than a flow may stand still."
                    if task.offset < low
                    else "Was the topic made anew? Start afresh (--fresh)."
                )
            )
        self._place.observer.counted(task.part, "skipped", low - task.offset)
        task.offset = low
        # The client has stopped to fetch this partition, so it cannot seek in it.
        self.consumer.incremental_unassign([TopicPartition(*at)])
        self.consumer.incremental_assign([TopicPartition(at[0], at[1], low)])

    def turn(self, clock_us: int | None) -> None:
        """What is due besides messages: failures, backpressure, checkpoints, figures.

        clock_us: the wall's, or None where the stream is its own clock.
        """
        now = time.monotonic()
        for at, offset in self.group.ends.items():
            if at in self.tasks:
                self.tasks[at].come_to(offset)
        self.group.ends.clear()
        self.tenancy.watch(now)
        for task in self.tasks.values():
            task.settle_sinks()
        self._press()
        self._checkpoint(now)
        if now - self._shown >= 1.0:
            self._shown = now
            self._show()

    def advance(self, clock_us: int) -> None:
        """Let time pass in every task (contract C5)."""
        for task in self.tasks.values():
            task.advance(clock_us)

    @property
    def done(self) -> bool:
        """Whether every task here has come to its end, and every partition that is not here as well.

        A partition may be on its way from one worker to another, and then nobody has it: so what is committed counts.
        """
        if self._ends is None or not self.tenancy.whole or self.group.keeps_back:
            return False
        if not all(self.finished(task) for task in self.tasks.values()):
            return False
        now = time.monotonic()
        if now >= self._again_s:
            self._again_s = now + 1.0
            self._committed.clear()  # what we told the group may have been lost in a rebalance, and others wait for it
        elsewhere = [at for at in self.places() if at not in self.tasks]
        if not elsewhere:
            return True
        behind = [task for task in self.tasks.values() if task.log.committed < task.offset]
        for task in behind:
            task.due_s = 0.0
        if behind or now < self._ask_s:
            return False
        self._ask_s = now + ASK_S
        try:
            return self.committed_to_ends(elsewhere)
        except KafkaException as error:
            if not is_passing(error.args[0]):
                raise
            self._ask_s = time.monotonic() + LATER_S
            return False

    def places(self) -> Iterable[Place]:
        """All partitions that the readers of this kind share."""
        assert self._ends is not None
        return self._ends

    def committed_to_ends(self, places: Sequence[Place]) -> bool:
        """Whether checkpoints of these partitions, by whatever worker, have come to their ends."""
        assert self._ends is not None
        told = self.consumer.committed([TopicPartition(*at) for at in places], timeout=ANSWER_S)
        return all(each.offset >= self._ends[each.topic, each.partition] for each in told)

    @property
    def ready(self) -> bool:
        """Whether tasks are here and up to what was written before."""
        return self.tenancy.whole and not any(task.silent for task in self.tasks.values())

    def _press(self) -> None:
        """Stop reading while the stores cannot follow, and go on when they have (backpressure)."""
        full = self.group.keeps_back or self._place.online.full() or self._place.logs.full()
        if full == self.tenancy.paused:
            return
        self.tenancy.paused = full
        mine = [TopicPartition(*at) for at, task in self.tasks.items() if not task.paused]
        (self.consumer.pause if full else self.consumer.resume)(mine)

    def _checkpoint(self, now: float) -> None:
        """One task at a time, so that no two checkpoints follow each other at once."""
        due = [task for task in self.tasks.values() if task.due_s <= now]
        if due:
            task = min(due, key=lambda each: each.due_s)
            again = 0.2 if not task.checkpoint() else self._place.settings.checkpoint_every_s
            task.due_s = now + again

    def _show(self) -> None:
        """Figures, and the group's offsets for lag monitors, once a second."""
        observer = self._place.observer
        if self.group.troubled and self.group.is_back():
            self.group.recovered()
        if self.tenancy.vacant and self.group.is_astray():
            self.group.renew()
            self.consumer = self.tenancy.client = self.group.client
        offsets = []
        for at, task in self.tasks.items():
            _, high = self.consumer.get_watermark_offsets(TopicPartition(*at), cached=True)
            lag = None if high is None or high < 0 else max(0, high - task.offset)
            observer.position(task.part, offset=task.offset, lag=lag, watermark_us=task.watermark_us)
            if task.log.committed > self._committed.get(at, -1):
                self._committed[at] = task.log.committed
                offsets.append(TopicPartition(at[0], at[1], task.log.committed))
        if offsets:
            self.consumer.commit(offsets=offsets, asynchronous=True)

    # Handing over

    def _revoked(self, consumer: Any, partitions: list[Any]) -> None:
        self.tenancy.revoked(consumer, partitions, self.leave)

    def _dropped(self, at: Place) -> None:
        self._committed.pop(at, None)
        self.group.forget(at)

    def leave(self, places: Sequence[Place]) -> None:
        """Hand tasks over with a last checkpoint each."""
        until = time.monotonic() + DRAIN_S
        for at in places:
            self.tasks[at].checkpoint(final=True)
        for at in places:
            task = self.tasks[at]
            self._place.logs.drained(task.log, max(0.0, until - time.monotonic()))
            task.settle_sinks()
        offsets = [
            TopicPartition(at[0], at[1], self.tasks[at].log.committed)
            for at in places
            if self.tasks[at].log.committed >= 0
        ]
        if offsets:
            self.group.commit(offsets)
        for at in places:
            self.tenancy.drop(at)

    def close(self) -> None:
        """Hand all tasks over and leave the group."""
        self.leave(list(self.tasks))
        self.group.close()


def sampled_stamps(messages: Sequence[Any]) -> npt.NDArray[np.float64]:
    """(at most 64,) seconds since 1970: timestamps of some records of a batch, the last one included."""
    step = max(1, len(messages) // STAMPS)
    return np.array([message.timestamp()[1] for message in messages[::-step]], dtype=np.float64) / 1000.0


def runs_of(numbers: Sequence[int]) -> list[tuple[int, int, int]]:
    """(number, start, end) of each run of equal numbers."""
    array = np.asarray(numbers)
    cuts = [0, *(np.flatnonzero(np.diff(array)) + 1).tolist(), len(array)]
    return [(int(array[start]), start, end) for start, end in itertools.pairwise(cuts)]
