"""The tasks of a flow by level: those beside the partitions of sources, then those that rows go on to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.flows.graph.cutting import Stage, cut
from headrace.flows.graph.viewing import apart, view_step, with_views
from headrace.flows.worker.flow_plan import FlowPlan
from headrace.flows.worker.running import kafka_sources
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import Route, Stages, stages_of

Counts = Mapping[str, Mapping[str, int]]
"""By the name of a source and a topic of it, how many partitions that has."""


@dataclass(frozen=True, eq=False)
class Place:
    """A task.

    level: tasks of one level do not wait for each other. number: of the source's partition, or of the shard.
    kind: the source, or the route or stage that it is one of. flow: the plan that a stage belongs to.
    """

    level: int
    number: int
    kind: KafkaSource | Route | Stage
    flow: FlowPlan | None = None

    @property
    def part(self) -> str:
        """Its part of the log."""
        return f"{self.kind.name}-{self.number:04d}"


class SparkPlan:
    """What is computed where.

    Args:
        given: views and flows of steps over Kafka sources. settings: of the flow. counts: partitions of its sources'
            topics. shards: tasks of each route and stage; None: as many as the source has partitions, or the largest of
            a flow's sources.

    Attributes:
        sources: with the views of each. flows, views: all of them. over: views over streams of flows. numbers: by
            source, those of its partitions. stages: by source, where its views are computed. plans: of the flows.
        levels: the tasks, those of a level in a fixed order; whatever goes on goes to a later level. receivers: by
            topic, as a worker would name it, the level and the first task of those that rows sent there go to.

    Raises:
        DefinitionError: as `headrace.flows.worker.run_worker`.
    """

    def __init__(self, given: Sequence[Any], settings: FlowSettings, counts: Counts, shards: int | None) -> None:
        self.flows, every, self.over = apart(list(given))
        self.sources = kafka_sources(every, self.flows)
        self.views: dict[str, ViewDefinition] = {view.name: view for _, its in self.sources for view in its}
        self.views |= {view.name: view for view in self.over}
        self.numbers = {
            source.name: tuple(source.number(topic, n) for topic, count in counts[source.name].items()
                               for n in range(count))
            for source, _ in self.sources
        }  # fmt: skip
        self.stages: dict[str, Stages] = {
            source.name: stages_of(settings.name, source, its, len(self.numbers[source.name]))
            for source, its in self.sources
        }
        self._shards = shards
        self.plans = [self._plan(settings.name, flow) for flow in self.flows]
        self.levels: list[list[Place]] = []
        self.receivers: dict[str, tuple[int, int]] = {}
        self.shards: dict[str, int] = {}
        self._place()

    def _plan(self, name: str, flow: Any) -> FlowPlan:
        partitions = {source.name: len(self.numbers[source.name]) for source in flow.sources}
        made = cut(with_views(flow, self.over), dict(partitions))
        shards = self._shards or max(partitions.values())
        partitions |= {stage.name: shards for stage in made.stages}
        return FlowPlan(name, made, partitions, {view_step(view): view for view in self.over})

    def _place(self) -> None:
        for source, _ in self.sources:
            self._add(0, source, self.numbers[source.name])
        for stages in self.stages.values():
            for route in stages.routes:
                shards = self._shards or len(self.numbers[stages.source.name])
                self.receivers[route.topic] = self._add(1, route, range(shards))
                self.shards[route.name] = shards
        for plan in self.plans:
            depths = dict.fromkeys(plan.cut.beside, 0)
            for stage in plan.cut.stages:
                depths[stage.name] = 1 + max(depths[name] for senders in stage.after.values() for name in senders)
                shards = plan.partitions[stage.name]
                at = self._add(depths[stage.name], stage, range(shards), plan)
                self.receivers[plan.topic(stage.name)] = at
                self.shards[stage.name] = shards

    def _add(
        self, level: int, kind: KafkaSource | Route | Stage, numbers: Sequence[int], flow: FlowPlan | None = None
    ) -> tuple[int, int]:
        while len(self.levels) <= level:
            self.levels.append([])
        first = len(self.levels[level])
        self.levels[level] += [Place(level, number, kind, flow) for number in numbers]
        return level, first

    def plans_of(self, source: str) -> list[FlowPlan]:
        """Of the flows that read a source."""
        return [plan for plan in self.plans if source in plan.cut.beside]

    def stages_of_route(self, route: Route) -> Stages:
        """The views of the source that a route belongs to."""
        return next(stages for stages in self.stages.values() if route in stages.routes)
