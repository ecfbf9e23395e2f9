"""The two kinds of readers: of a source's topics, and of a repartition topic."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, TopicPartition

from headrace.features.kafka_source import KafkaSource
from headrace.features.time import MINUTE
from headrace.flows.deadletter import DeadLetter
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.errors import ClusterError
from headrace.flows.kafka.registry import UnreachableRegistryError
from headrace.flows.kafka.topics import Cluster
from headrace.flows.worker.consuming import Place
from headrace.flows.worker.flow_plan import FlowPlan
from headrace.flows.worker.history import Topic
from headrace.flows.worker.opening import Workplace, open_routed_task, open_source_task
from headrace.flows.worker.outbox import Outbox
from headrace.flows.worker.reader import ANSWER_S, Reader, runs_of, sampled_stamps
from headrace.flows.worker.routed_task import RoutedTask
from headrace.flows.worker.source_task import SourceTask
from headrace.flows.worker.stages import Route, Stages
from headrace.flows.worker.task import Task

SAY_S = 0.25
"""How often a source partition tells the repartition topics how far it has come, when it has sent nothing."""
AHEAD_US = MINUTE
"""How far, in event time, a partition may be ahead of the slowest that is still catching up (contract C10)."""


class SourceReader(Reader):
    """Reads a source's topics.

    numbers: of all its partitions. route_partitions: of each repartition topic of views. plans: of flows of steps that
    read it.
    """

    def __init__(
        self,
        place: Workplace,
        config: Mapping[str, Any],
        stages: Stages,
        numbers: Sequence[int],
        route_partitions: Mapping[str, int],
        outbox: Outbox | None,
        ends: Mapping[Place, int] | None,
        plans: Sequence[FlowPlan] = (),
    ) -> None:
        self._stages = stages
        self._plans = tuple(plans)
        self._source: KafkaSource = stages.source
        self._single = len(stages.source.topics) == 1
        self._numbers = tuple(numbers)
        self._route_partitions = route_partitions
        self._outbox = outbox
        self._decoder = MessageDecoder(stages.source, place.settings.kafka)
        self._no_registry = False
        self._said = 0.0
        super().__init__(place, config, stages.source.topics, ends)

    def open(self, topic: str, partition: int) -> SourceTask:
        return open_source_task(
            self._place,
            self._stages,
            self._source.number(topic, partition),
            len(self._numbers),
            lambda: self._first_offset(topic, partition),
            self._route_partitions,
            self._outbox,
            Topic(self._source, self._config, self._place.settings.kafka),
            self._plans,
        )

    def _first_offset(self, topic: str, partition: int) -> int:
        """Where a partition without a checkpoint begins."""
        at = TopicPartition(topic, partition)
        low, high = self.consumer.get_watermark_offsets(at, timeout=30.0)
        start = self._source.start
        if isinstance(start, int):
            asked = TopicPartition(topic, partition, -(-start // 1000))  # record timestamps are whole milliseconds
            (found,) = self.consumer.offsets_for_times([asked], timeout=30.0)
            return high if found.offset in (OFFSET_END, OFFSET_BEGINNING) or found.offset < 0 else int(found.offset)
        return int(high if start == "latest" else low)

    def handle(self, messages: list[Any], clock_us: int | None, wall_us: int) -> None:
        began = time.perf_counter()
        if self._single:
            numbers = [message.partition() for message in messages]
        else:
            numbers = [self._source.number(message.topic(), message.partition()) for message in messages]
        runs = runs_of(numbers)
        if any(after <= before for (before, _, _), (after, _, _) in pairwise(runs)):
            order = np.argsort(np.asarray(numbers), kind="stable").tolist()
            messages, numbers = [messages[i] for i in order], [numbers[i] for i in order]
            runs = runs_of(numbers)
        try:
            batch, dead, tombstones = self._decoder.decode(messages, np.asarray(numbers, dtype=np.int32))
        except UnreachableRegistryError as error:
            self._place.observer.trouble("schema registry", str(error))
            self._no_registry = True
            self.keep_back(messages)
            return
        if self._no_registry:
            self._no_registry = False
            self._place.observer.recovered("schema registry")
        letters: dict[int, list[DeadLetter]] = {}
        for letter in dead:
            number = letter.partition if self._single else self._source.number(str(letter.topic), letter.partition)
            letters.setdefault(number, []).append(letter)
        at = time.perf_counter()
        decoding = (at - began) / len(messages)
        for number, start, end in runs:
            task = self.tasks.get(self._source.place(number))
            if task is None:  # it has just left, and whoever has it reads these messages too
                continue
            assert isinstance(task, SourceTask)
            lo, hi = np.searchsorted(batch.partition, [number, number + 1]).tolist()
            its, events, dead_here = messages[start:end], batch.take(slice(lo, hi)), letters.get(number, [])
            if its[0].offset() < task.offset:  # taken before: the client has gone back further than it was asked to
                events = events.take(events.offset >= task.offset)
                dead_here = [letter for letter in dead_here if letter.offset >= task.offset]
            offset = max(task.offset, its[-1].offset() + 1)
            task.take(events, dead_here, offset, clock_us, wall_us, sampled_stamps(its))
            now = time.perf_counter()
            steps = {"decode": decoding * (end - start), "process": now - at}
            self._place.observer.batch(task.part, end - start, sum(map(len, its)), steps)
            at = now
        if tombstones:
            self._place.observer.counted(f"{self._source.name}", "tombstone", tombstones)
        if self._outbox is not None:
            self._outbox.poll()

    def turn(self, clock_us: int | None) -> None:
        super().turn(clock_us)
        now = time.monotonic()
        if self._outbox is not None and now - self._said >= SAY_S:
            self._said = now
            for task in self.tasks.values():
                assert isinstance(task, SourceTask)
                task.say()
            self._outbox.poll()
            self._hold_back()

    def _hold_back(self) -> None:
        """Pause partitions that are far ahead while others catch up, so that few events wait for the watermark."""
        if self.tenancy.paused:
            return
        newest: dict[Place, int] = {}
        behind = []
        for at, task in self.tasks.items():
            us = task.flow.newest_us
            if us is not None:
                newest[at] = us
                _, high = self.consumer.get_watermark_offsets(TopicPartition(*at), cached=True)
                if high is not None and high > task.offset:
                    behind.append(us)
        limit = min(behind, default=None)
        ahead = max(AHEAD_US, 2 * self._source.lateness_us)
        for at, us in newest.items():
            task = self.tasks[at]
            hold = limit is not None and us > limit + ahead
            if hold != task.paused:
                task.paused = hold
                (self.consumer.pause if hold else self.consumer.resume)([TopicPartition(*at)])

    def finished(self, task: Task) -> bool:
        assert self._ends is not None
        assert isinstance(task, SourceTask)
        if task.offset < self._ends.get((task.topic, task.partition), 0):
            return False
        task.end()
        task.say()
        return True


class RoutedReader(Reader):
    """Reads a repartition topic.

    numbers: of all partitions of the source. cluster: where read messages are deleted. source_ends: by number, where
    the source's partitions end for this run; None: nowhere.
    """

    def __init__(
        self,
        place: Workplace,
        config: Mapping[str, Any],
        stages: Stages,
        route: Route,
        partitions: int,
        numbers: Sequence[int],
        outbox: Outbox | None,
        cluster: Cluster,
        source_ends: Mapping[int, int] | None,
    ) -> None:
        self._stages, self._route, self._partitions = stages, route, partitions
        self._numbers = tuple(numbers)
        self._outbox, self._cluster = outbox, cluster
        self._source_ends = source_ends
        super().__init__(place, config, [route.topic], None if source_ends is None else {})

    def open(self, topic: str, partition: int) -> RoutedTask:
        return open_routed_task(
            self._place,
            self._stages,
            self._route,
            partition,
            self._partitions,
            self._numbers,
            self._outbox,
            self._let_go,
            Topic(self._stages.source, self._config, self._place.settings.kafka),
        )

    def _let_go(self, topic: str, partition: int, offset: int) -> None:
        try:
            self._cluster.delete_records({(topic, partition): offset})
        except ClusterError as error:  # the next checkpoint tries again
            self.group.trouble(str(error))

    def handle(self, messages: list[Any], clock_us: int | None, wall_us: int) -> None:
        parts: dict[int, list[Any]] = {}
        for message in messages:
            parts.setdefault(message.partition(), []).append(message)
        for partition, its in parts.items():
            task = self.tasks.get((self._route.topic, partition))
            if task is None:
                continue
            assert isinstance(task, RoutedTask)
            began = time.perf_counter()
            taken = task.take(its, its[-1].offset() + 1, clock_us, sampled_stamps(its))
            steps = {"process": time.perf_counter() - began}
            self._place.observer.batch(task.part, taken, sum(map(len, its)), steps)

    def finished(self, task: Task) -> bool:
        assert self._source_ends is not None
        assert isinstance(task, RoutedTask)
        return all(task.inbox.next.get(number, -1) >= end for number, end in self._source_ends.items())

    def places(self) -> Iterable[Place]:
        return [(self._route.topic, partition) for partition in range(self._partitions)]

    def committed_to_ends(self, places: Sequence[Place]) -> bool:
        # The source's reader is done before this one is asked: what it has to say is in the topic.
        ends = {at: self.consumer.get_watermark_offsets(TopicPartition(*at), timeout=10.0)[1] for at in places}
        told = self.consumer.committed([TopicPartition(*at) for at in places], timeout=ANSWER_S)
        return all(each.offset >= ends[each.topic, each.partition] > 0 for each in told)


__all__ = ["RoutedReader", "SourceReader"]
