"""Where steps of a flow over topics are computed: beside the partitions of a source, or after a topic of the flow.

A step that remembers something of a key must be given all rows of that key in one place. So a flow is cut before each
such step whose rows are not parted by its key already, and the rows go on through a repartition topic, by key:

    rides (4 partitions) -> filter -> map_rows --by driver--> stateful -> filter -> write
                                                 a topic

What is computed after one such topic is a stage. All inputs of a step come by the same topic, those of both sides of a
join too, so that a key's rows meet in one task whatever partitions their sources have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.features.errors import DefinitionError
from headrace.features.settling_steps import Joining
from headrace.features.sources import Source
from headrace.features.steps import Step
from headrace.features.streams import Flow
from headrace.flows.graph.places import PARTITION_BITS, SOURCE_BITS

KEPT = ("filter", "otherwise", "inspect")
"""Kinds of steps whose rows are those that they take."""
ONE_BY_ONE = (*KEPT, "map_rows", "map_batches")
"""Kinds of steps that give at most one row for each, at its place."""
EACH = (*ONE_BY_ONE, "flat_map")
"""Kinds of steps that look at a row alone."""


@dataclass(frozen=True)
class Edge:
    """Rows that go through a topic: those of a step, by the values of a column.

    sorted: whether rows must be put in the order of their places before they go, so that they go in the same order
    after a restart.
    """

    step: str
    key: str
    sorted: bool = False

    @property
    def name(self) -> str:
        """It tells the edge from others of its stage."""
        return f"{self.step}/{self.key}"


@dataclass(frozen=True, eq=False)
class Stage:
    """Steps that are computed in the same tasks.

    name: of a stage after a topic, "FLOW.by.KEY"; of steps beside the partitions of a source, that source's. after: the
    edges by which rows come, with the names of the stages that send them; none beside a source. sends: stage and edge
    to which rows go on.
    """

    name: str
    steps: tuple[Step, ...]
    after: Mapping[Edge, tuple[str, ...]]
    sends: tuple[tuple[str, Edge], ...]


@dataclass(frozen=True)
class Cut:
    """A flow in stages.

    beside: by the name of a source, the steps computed where its events are read. stages: those after topics, each
    behind those that it takes rows from.
    """

    flow: Flow
    beside: Mapping[str, Stage]
    stages: tuple[Stage, ...]

    def behind(self, stage: Stage) -> tuple[str, ...]:
        """The sources whose events come to a stage, by whatever ways."""
        if not stage.after:
            return (stage.name,)
        stages = {**self.beside, **{each.name: each for each in self.stages}}
        before = dict.fromkeys(name for senders in stage.after.values() for name in senders)
        return tuple(dict.fromkeys(source for name in before for source in self.behind(stages[name])))

    def number(self, stage: Stage, partition: int) -> int:
        """A number for the task of a stage that no task of another stage has: 15 bits, as a partition of a place."""
        names = [*self.beside, *(each.name for each in self.stages)]
        return partition if len(names) == 1 else names.index(stage.name) << PARTITION_BITS | partition


def cut(flow: Flow, partitions: Mapping[str, int]) -> Cut:
    """The stages of a flow over topics.

    Args:
        partitions: how many each source has, by name.

    Raises:
        DefinitionError: the flow cannot be computed over topics.
    """
    made = _Cutting(flow, partitions)
    for step in flow.steps:
        made.place(step)
    return made.result()


class _Cutting:
    """Which stages compute a step, and by which columns its rows are parted there."""

    def __init__(self, flow: Flow, partitions: Mapping[str, int]) -> None:
        self._flow, self._partitions = flow, partitions
        self._homes: dict[str, tuple[str, ...]] = {}
        self._by: dict[str, frozenset[str] | None] = {}  # of one partition: by no column at all
        self._after: dict[str, dict[Edge, tuple[str, ...]]] = {}
        self._known: dict[object, str] = {}

    def place(self, step: Step) -> None:
        """Say where a step is computed; those before it have been placed."""
        if step.source is not None:
            self._homes[step.name] = (step.source.name,)
            self._by[step.name] = self._parted(step.source)
            return
        assert step.parent is not None
        if step.kind == "merge":
            assert step.other is not None
            both = [step.parent.name, step.other.name]
            self._homes[step.name] = tuple(dict.fromkeys(home for each in both for home in self._homes[each]))
            same = self._by[both[0]] == self._by[both[1]] and len(self._homes[step.name]) == 1
            self._by[step.name] = self._by[both[0]] if same else None
        elif step.kind in EACH or step.kind == "write":
            self._homes[step.name] = self._homes[step.parent.name]
            by = self._by[step.parent.name]
            self._by[step.name] = by if step.kind in KEPT or by == frozenset() else None
        else:
            self._place_keyed(step)

    def _parted(self, source: Source) -> frozenset[str] | None:
        keyed_by = getattr(source, "keyed_by", None)
        if self._partitions[source.name] == 1:
            return frozenset()
        one_topic = len(getattr(source, "topics", ("",))) == 1
        return frozenset(keyed_by) if keyed_by is not None and one_topic else None

    def _place_keyed(self, step: Step) -> None:
        inputs = inputs_of(step)
        homes = tuple(dict.fromkeys(home for each, _ in inputs for home in self._homes[each.name]))
        parted = [self._by[each.name] for each, _ in inputs]
        if len(homes) == 1 and all(by is not None and by <= {key} for by, (_, key) in zip(parted, inputs, strict=True)):
            self._homes[step.name] = homes
            # A function may give rows of another key; those of one partition stay in it all the same.
            self._by[step.name] = frozenset() if all(by == frozenset() for by in parted) else None
            return
        stage = self._stage(step, homes, inputs)
        for each, key in inputs:
            edge = Edge(each.name, key, self._is_sorted(step, each))
            self._after[stage][edge] = self._homes[each.name]
        self._homes[step.name] = (stage,)
        self._by[step.name] = None

    def _stage(self, step: Step, homes: tuple[str, ...], inputs: Sequence[tuple[Step, str]]) -> str:
        """The stage of a keyed step: that of others with rows from the same stages by the same columns, or a new one.

        Raises:
            DefinitionError: it takes the rows of one step by two columns.
        """
        keys = {each.name: key for each, key in inputs}
        if any(keys[each.name] != key for each, key in inputs):
            raise DefinitionError(
                f"Flow '{self._flow.name}': {step.shown} takes the rows of step '{inputs[0][0].name}' twice, by "
                f"'{inputs[0][1]}' and by '{inputs[1][1]}'; over topics they would go two ways at once. Give one side "
                "a step of its own: .map_rows(lambda row: row)."
            )
        columns = tuple(dict.fromkeys(key for _, key in inputs))
        identity = (homes, columns)
        if identity not in self._known:
            name = f"{self._flow.name}.by.{'.'.join(columns)}"
            number = 1 + sum(each == name or each.startswith(f"{name}.") for each in self._after)
            self._known[identity] = name if number == 1 else f"{name}.{number}"
            self._after[self._known[identity]] = {}
        return self._known[identity]

    def _is_sorted(self, keyed: Step, step: Step) -> bool:
        """Whether the rows of a step must be sorted before they go on.

        Raises:
            DefinitionError: nothing would put them in the same order after a restart.
        """
        orders = {self._order(step, home) for home in self._homes[step.name]}
        if None in orders:
            raise DefinitionError(
                f"Flow '{self._flow.name}': {keyed.shown} takes rows of step '{step.name}', in which streams of one "
                "source are merged that give rows at different times (one of them comes out of flat_map, or of a step "
                "that remembers). Over topics their order would not be the same after a restart. Give each stream a "
                "step of its own by key, and merge what these give."
            )
        return "places" in orders

    def _order(self, step: Step, home: str) -> str | None:
        """In which order rows of a step come out of a stage: always the "same", that of their "places", or any."""
        if step.source is not None or step.parent is None:
            return "same"
        if step.kind == "merge":
            assert step.other is not None
            its = [each for each in (step.parent, step.other) if home in self._homes[each.name]]
            if len(its) == 1:
                return self._order(its[0], home)
            reads = {self._plain(each) for each in its}
            return "places" if len(reads) == 1 and None not in reads else None
        if step.kind not in EACH:
            return "same"
        order = self._order(step.parent, home)
        return None if step.kind == "flat_map" and order != "same" else order

    def _plain(self, step: Step) -> str | None:
        """The step that reads the source, where each of its events gives at most a row, at its place."""
        if step.source is not None:
            return step.name
        assert step.parent is not None
        if step.kind == "merge":
            assert step.other is not None
            both = {self._plain(step.parent), self._plain(step.other)}
            return both.pop() if len(both) == 1 else None
        return self._plain(step.parent) if step.kind in ONE_BY_ONE else None

    def result(self) -> Cut:
        made = {
            home: Stage(home, self._steps(home), self._after.get(home, {}), self._sends(home))
            for home in [*dict.fromkeys(source.name for source in self._flow.sources), *self._after]
        }
        if len(made) > 1 << SOURCE_BITS:
            raise DefinitionError(
                f"Flow '{self._flow.name}' has {len(made)} stages over topics, at most {1 << SOURCE_BITS} are "
                f"possible: {', '.join(made)}. Make several flows of it, with a topic between them."
            )
        return Cut(
            self._flow,
            {name: stage for name, stage in made.items() if name not in self._after},
            tuple(made[name] for name in self._after),
        )

    def _steps(self, home: str) -> tuple[Step, ...]:
        return tuple(step for step in self._flow.steps if home in self._homes[step.name])

    def _sends(self, home: str) -> tuple[tuple[str, Edge], ...]:
        return tuple(
            (stage, edge) for stage, edges in self._after.items() for edge, senders in edges.items() if home in senders
        )


def inputs_of(step: Step) -> list[tuple[Step, str]]:
    """The steps whose rows a keyed step takes, each with its key column."""
    assert step.parent is not None
    if step.other is None:
        return [(step.parent, step.key)]
    assert isinstance(step.rule, Joining)
    return [(step.parent, step.key), (step.other, step.rule.right_key)]
