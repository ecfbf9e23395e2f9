"""Tasks of a flow over pretend topics: driven in any order, in any batches, with deaths at any point.

Each task is what a worker makes of it, without threads, stores and Kafka: admission, its cut of the steps, its inbox,
and what it sends on. A checkpoint keeps its state and place; a death goes back there, and what it had sent stays sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from headrace.features.sources import Source
from headrace.features.streams import Flow
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.graph.cutting import Stage, cut
from headrace.flows.graph.running import GraphRun, Passed
from headrace.flows.pipeline import SourceFlow
from headrace.flows.worker.edges import StageInbox, Told
from headrace.flows.worker.flow_plan import FlowPlan
from headrace.flows.worker.graphs import Produce, TaskGraph

ROWS = "headrace.flows.worker.graphs.GraphRun"
"""To be replaced by `Recorded`, so that the rows of every step can be looked at."""

Row = tuple[Any, ...]
"""A row's values, then its position and the instant that it counts from."""
Message = tuple[bytes, list[tuple[str, bytes]]]


class Recorded(GraphRun):
    """Keeps what each step gave."""

    out: ClassVar[list[tuple[str, Row]]] = []

    def push(self, rows: Mapping[str, EventBatch], watermark_us: int | None, *, ended: bool = False) -> Passed:
        passed = super().push(rows, watermark_us, ended=ended)
        steps = {f"{self.flow.name}.{step.name}": step for step in self.flow.steps}
        for name, batch in passed.given.items():
            columns = [batch.arrow(column).to_pylist() for column in steps[name].schema.names]
            places = batch.position.tolist(), batch.effective.tolist()
            self.out.extend((steps[name].name, row) for row in zip(*columns, *places, strict=True))
        return passed


@dataclass
class Since:
    """What a task gave since a point."""

    rows: list[tuple[str, Row]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


class PretendTask:
    """One task. read: what it reads; events of a source one by one, or messages of a topic."""

    def __init__(self, made: PretendFlow, stage: Stage, number: int, read: Sequence[Any]) -> None:
        self._made, self.stage, self._number, self._read = made, stage, number, read
        self.name = f"{stage.name}/{number}"
        self.kept, self.since = Since(), Since()
        self._saved: tuple[int, dict[str, list[bytes]]] | None = None
        self.die()

    def die(self) -> None:
        """Go on from the last checkpoint."""
        self.since = Since()
        self._at, found = (0, None) if self._saved is None else self._saved
        self._ended = False
        plan = self._made.plan
        routes = {to: (plan.partitions[to], self._made.produce(to)) for to, _ in self.stage.sends}
        self._graph = TaskGraph(
            plan.cut, self.stage, self._number, self.name, one_partition=not self.stage.after,
            routes=routes, snapshots=found, start=False,
        )  # fmt: skip
        steps = {step.name: step for step in plan.cut.flow.steps}
        self._inbox = StageInbox({edge: steps[edge.step] for edge in self.stage.after}, plan.senders(self.stage))
        self._flow: SourceFlow | None = None
        if not self.stage.after:
            self._flow = SourceFlow(self._made.sources[self.stage.name], [])
        if found is not None and self._flow is not None:
            own = f"{self.stage.name}."
            self._flow.load({name: chain for name, chain in found.items() if name.startswith(own)})
        elif found is not None:
            self._inbox.load(msgspec.msgpack.decode(found["inbox"][-1]))

    @property
    def left(self) -> int:
        """How much is there that it has not read."""
        return 0 if self._ended and self._flow is not None else len(self._read) - self._at

    def _told(self) -> Told:
        if self._flow is None:
            return Told(self._inbox.watermark_us, self._inbox.newest_us)
        ended = {self.name: self._at} if self._ended else None
        return Told(self._flow.watermark_us, self._flow.newest_us, False, ended)

    def step(self, most: int) -> None:
        """Take some of what is there."""
        Recorded.out = self.since.rows
        parts = self._read[self._at : self._at + most]
        self._at += len(parts)
        if self._flow is not None:
            output = self._flow.push(EventBatch.concat(parts))
            assert output.batch is not None
            self.since.dead += output.dead
            self._graph.read(output.batch, self._told())
        else:
            rows: dict[str, list[EventBatch]] = {}
            for value, headers in parts:
                found = self._inbox.take(value, headers)
                if found is not None:
                    rows.setdefault(found[0].name, []).append(found[1])
            self._graph.take({name: EventBatch.concat(its) for name, its in rows.items()}, self._told())
        self.since.dead += self._graph.letters()

    def say(self) -> None:
        if self._flow is not None:
            self._graph.told = self._told()
        self._graph.say()

    def end(self) -> bool:
        """Whether it has come to its end, and given all."""
        Recorded.out = self.since.rows
        told = self._told()
        if self._flow is not None:
            if self.left:
                return False
            told = Told(told.watermark, told.newest, False, {self.name: self._at})
        else:
            reached = self._inbox.ended
            ends = self._made.ends(self.stage)
            if reached is None or any(reached.get(name, -1) < end for name, end in ends.items()):
                return False
            told = Told(told.watermark, told.newest, False, reached)
        if not self._ended:
            self._ended = True
            self._graph.take({}, told)
        self.say()
        self.since.dead += self._graph.letters()
        return True

    def checkpoint(self) -> None:
        parts = {**({} if self._flow is None else self._flow.save()), **self._graph.save()}
        self.say()
        before = {} if self._saved is None else self._saved[1]
        found = {name: [*(before[name] if part.delta else []), part.data] for name, part in parts.items()}
        self._saved = (self._at, {**found, "inbox": [msgspec.msgpack.encode(self._inbox.save())]})
        self.kept.rows += self.since.rows
        self.kept.dead += self.since.dead
        self.since = Since()


class PretendFlow:
    """A flow over topics. read: by source, the events of each partition, one by one."""

    def __init__(self, flow: Flow, read: Mapping[str, Sequence[Sequence[EventBatch]]], topic_partitions: int) -> None:
        self.sources: dict[str, Source] = {source.name: source for source in flow.sources}
        self._read = read
        partitions = {name: len(its) for name, its in read.items()}
        made = cut(flow, partitions)
        partitions |= {stage.name: topic_partitions for stage in made.stages}
        self.plan = FlowPlan("pretend", made, partitions)
        self._topics: dict[str, list[list[Message]]] = {
            stage.name: [[] for _ in range(topic_partitions)] for stage in made.stages
        }
        beside = [(stage, n, read[name][n]) for name, stage in made.beside.items() for n in range(partitions[name])]
        behind = [(stage, n, its) for stage in made.stages for n, its in enumerate(self._topics[stage.name])]
        self.tasks = [PretendTask(self, *each) for each in [*beside, *behind]]

    def produce(self, stage: str) -> Produce:
        def produce(target: int, value: bytes, headers: dict[str, bytes]) -> None:
            self._topics[stage][target].append((value, list(headers.items())))

        return produce

    def ends(self, stage: Stage) -> dict[str, int]:
        return {
            f"{name}/{n}": len(events)
            for name in self.plan.cut.behind(stage)
            for n, events in enumerate(self._read[name])
        }

    def to_the_end(self) -> None:
        """Every task reads what is left, until nothing is."""
        done = False
        while not done:
            for task in self.tasks:
                while task.left:
                    task.step(1_000)
            ended = [task.end() for task in self.tasks]  # each of them is asked
            done = all(ended) and not any(task.left for task in self.tasks)

    @property
    def rows(self) -> dict[str, list[Row]]:
        """By step."""
        found: dict[str, list[Row]] = {step.name: [] for step in self.plan.cut.flow.steps}
        for task in self.tasks:
            for step, row in [*task.kept.rows, *task.since.rows]:
                found[step].append(row)
        return found

    @property
    def dead(self) -> list[DeadLetter]:
        return [letter for task in self.tasks for letter in [*task.kept.dead, *task.since.dead]]
