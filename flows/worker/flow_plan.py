"""How a flow of steps is spread over tasks: its stages, their topics and partitions, and who sends to whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.features.steps import VIEW
from headrace.features.views import ViewDefinition
from headrace.flows.graph.cutting import Cut, Stage


@dataclass(frozen=True, eq=False)
class FlowPlan:
    """A flow of steps in a live flow named `name`.

    partitions: by the name of a source, how many it has; by that of a stage, those of its topic. views: over streams of
    the flow, by the names of their steps.
    """

    name: str
    cut: Cut
    partitions: Mapping[str, int]
    views: Mapping[str, ViewDefinition] = field(default_factory=dict)

    def views_of(self, stage: Stage) -> list[ViewDefinition]:
        """Those that are computed in a stage."""
        return [self.views[step.name] for step in stage.steps if step.kind == VIEW]

    def topic(self, stage: str) -> str:
        """The repartition topic of a stage."""
        return f"headrace.{self.name}.{stage}"

    @staticmethod
    def sender(stage: str, number: int) -> str:
        """The name of a task to those that its rows go to: "rides/3"."""
        return f"{stage}/{number}"

    def senders(self, stage: Stage) -> dict[str, Sequence[str]]:
        """By edge, the tasks that send rows by it."""
        return {
            edge.name: [self.sender(each, n) for each in senders for n in range(self.partitions[each])]
            for edge, senders in stage.after.items()
        }
