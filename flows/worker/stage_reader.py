"""The reader of the repartition topic of a stage of a flow."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import TopicPartition

from headrace.flows.graph.cutting import Stage
from headrace.flows.kafka.errors import ClusterError
from headrace.flows.kafka.topics import Cluster
from headrace.flows.worker.consuming import Place
from headrace.flows.worker.flow_plan import FlowPlan
from headrace.flows.worker.opening import Workplace, open_stage_task
from headrace.flows.worker.outbox import Outbox
from headrace.flows.worker.reader import ANSWER_S, Reader, sampled_stamps
from headrace.flows.worker.reading import SAY_S
from headrace.flows.worker.stage_task import StageTask
from headrace.flows.worker.task import Task


class StageReader(Reader):
    """Reads the repartition topic of a stage.

    cluster: where read messages are deleted. ends: where source partitions end for this run ("rides/3"); None: nowhere.
    """

    def __init__(
        self,
        place: Workplace,
        config: Mapping[str, Any],
        plan: FlowPlan,
        stage: Stage,
        outbox: Outbox,
        cluster: Cluster,
        ends: Mapping[str, int] | None,
    ) -> None:
        self._plan, self._stage, self._outbox, self._cluster = plan, stage, outbox, cluster
        self._source_ends = ends
        self._said = 0.0
        super().__init__(place, config, [plan.topic(stage.name)], None if ends is None else {})

    def open(self, topic: str, partition: int) -> StageTask:
        return open_stage_task(self._place, self._plan, self._stage, partition, self._outbox, self._let_go)

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
            task = self.tasks.get((its[0].topic(), partition))
            if task is None:
                continue
            assert isinstance(task, StageTask)
            began = time.perf_counter()
            taken = task.take(its, its[-1].offset() + 1, sampled_stamps(its), clock_us)
            steps = {"process": time.perf_counter() - began}
            self._place.observer.batch(task.part, taken, sum(map(len, its)), steps)
        self._outbox.poll()

    def turn(self, clock_us: int | None) -> None:
        super().turn(clock_us)
        now = time.monotonic()
        if now - self._said >= SAY_S:
            self._said = now
            for task in self.tasks.values():
                assert isinstance(task, StageTask)
                task.say()
            self._outbox.poll()

    def finished(self, task: Task) -> bool:
        assert self._source_ends is not None
        assert isinstance(task, StageTask)
        if not task.end(self._source_ends):
            return False
        task.say()
        return True

    def places(self) -> Iterable[Place]:
        topic = self._plan.topic(self._stage.name)
        return [(topic, partition) for partition in range(self._plan.partitions[self._stage.name])]

    def committed_to_ends(self, places: Sequence[Place]) -> bool:
        # Those that send here are done before this one is asked: what they have to say is in the topic.
        ends = {at: self.consumer.get_watermark_offsets(TopicPartition(*at), timeout=10.0)[1] for at in places}
        told = self.consumer.committed([TopicPartition(*at) for at in places], timeout=ANSWER_S)
        return all(each.offset >= ends[each.topic, each.partition] > 0 for each in told)
