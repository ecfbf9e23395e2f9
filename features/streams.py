"""Streams: any Python between a source and where its rows go. Definitions only, no I/O.

    flow = Flow("pickups")
    rides = flow.read(FileSource("rides.parquet", Ride))
    long = rides.filter(Ride.km > 20)
    priced = long.map_rows(price, gives=Priced)
    totals = priced.key_by("driver_id").stateful(running_total, gives=Total)
    totals.write(ParquetSink("totals"))

Each call adds a step to the flow. flows/graph computes them; docs/flows.md says what each step promises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.features.building import condition_on
from headrace.features.columns import Column, Expression
from headrace.features.errors import DefinitionError
from headrace.features.events import EventSchema
from headrace.features.keyed_stream import KeyedStream
from headrace.features.sinks import CallableSink, Sink
from headrace.features.sources import Duration, Source, column_name, one_of
from headrace.features.steps import FRAMES, ON_ERROR, Step, event_given

if TYPE_CHECKING:
    from headrace.features.entities import Entity
    from headrace.features.views import ViewDefinition


@dataclass(eq=False, repr=False)
class Flow:
    """A named graph of steps; give it to `headrace.run` beside views or alone.

    Attributes:
        name: begins the names of its steps in checkpoints and messages.
        on_error: what a step does with an event for which its function raises, unless the step says otherwise:
            "dead_letter" keeps the event as a dead letter with reason `failed` and goes on, "stop" stops the run.
        steps: in the order of their definition.
        views: those that `Stream.window` made; they run with the flow.

    >>> Flow("pickups")
    Flow('pickups', 0 steps)
    """

    name: str
    on_error: str = "dead_letter"
    steps: tuple[Step, ...] = field(default=(), init=False)
    views: tuple[ViewDefinition, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.replace("_", "").replace("-", "").isalnum():
            raise DefinitionError(f"Flow: the name {self.name!r} must be of letters, digits, '-' and '_'.")
        one_of("on_error", self.on_error, ON_ERROR, f"Flow '{self.name}'")

    def __repr__(self) -> str:
        return f"Flow({self.name!r}, {len(self.steps)} step{'' if len(self.steps) == 1 else 's'})"

    def read(self, source: Source) -> Stream:
        """The events of a source that are neither late, malformed nor seen before.

        Raises:
            DefinitionError: it is no source, or the flow reads another of its name.
        """
        shown = f"Flow '{self.name}': read"
        if not isinstance(source, Source):
            raise DefinitionError(f"{shown} takes a source, such as FileSource('rides.parquet', Ride), got {source!r}.")
        return Stream(self, self.add(Step(self._name(source.name, None), "read", source.event, source=source)))

    @property
    def sources(self) -> tuple[Source, ...]:
        """What it reads, in the order of definition."""
        return tuple(step.source for step in self.steps if step.source is not None)

    def add(self, step: Step) -> Step:
        """Append a step."""
        self.steps = (*self.steps, step)
        return step

    def _name(self, wanted: str, given: str | None) -> str:
        """A step's name: as given, or the wanted one with a number where it is taken.

        Raises:
            DefinitionError: the one given is taken or no name.
        """
        taken = {step.name for step in self.steps}
        if given is not None:
            if given in taken or not isinstance(given, str) or not given:
                raise DefinitionError(f"Flow '{self.name}': a step cannot be named {given!r}: taken already or empty.")
            return given
        wanted = "".join(c if c.isalnum() or c in "-_" else "_" for c in wanted) or "step"
        number, name = 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name


@dataclass(frozen=True, eq=False)
class Stream:
    """The rows that a step of a flow gives."""

    flow: Flow
    step: Step

    @property
    def schema(self) -> EventSchema:
        """Columns of its rows."""
        return self.step.schema

    def __repr__(self) -> str:
        return f"Stream({self.flow.name}.{self.step.name}: {self.step.event!r})"

    def filter(self, condition: Any, *, name: str | None = None, on_error: str | None = None) -> Stream:
        """The rows for which a condition over columns (`Ride.km > 20`) or a function of the row is true."""
        return self._filtered("filter", condition, name, on_error)

    def branch(self, condition: Any, *, name: str | None = None, on_error: str | None = None) -> tuple[Stream, Stream]:
        """Two streams: rows for which the condition is true, and all others (a condition that is null among them)."""
        yes = self._filtered("filter", condition, name, on_error)
        return yes, self._filtered("otherwise", condition, None if name is None else f"{name}_otherwise", on_error)

    def map_rows(
        self, function: Callable[..., Any], *, gives: Any = None, name: str | None = None, on_error: str | None = None
    ) -> Stream:
        """One row for each: `function(row)` gives a dict or an event object.

        Args:
            gives: event class of what comes out; by default the function's return annotation, else the class going in.
            name: of the step; by default the function's. on_error: "dead_letter" or "stop"; by default the flow's.
        """
        return self._called("map_rows", function, gives, name, on_error)

    def flat_map(
        self, function: Callable[..., Any], *, gives: Any = None, name: str | None = None, on_error: str | None = None
    ) -> Stream:
        """Any number of rows for each: `function(row)` gives a list, a generator, or None for none."""
        return self._called("flat_map", function, gives, name, on_error)

    def map_batches(
        self,
        function: Callable[..., Any],
        *,
        as_: str = "pandas",
        gives: Any = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """Many rows at once, as many out as in and in their order. How many come together must not matter to it.

        Args:
            as_: what the function takes and gives: a "pandas" or "polars" frame, an "arrow" table, or a dict of
                "numpy" arrays by column.
        """
        one_of("as_", as_, FRAMES, f"Flow '{self.flow.name}': map_batches")
        return self._called("map_batches", function, gives, name, on_error, frames=as_)

    def inspect(
        self, function: Callable[..., Any] = print, *, name: str | None = None, on_error: str | None = None
    ) -> Stream:
        """The same rows, each shown to a function in passing."""
        return self._called("inspect", function, self.step.event, name, on_error)

    def merge(self, other: Stream, *, name: str | None = None) -> Stream:
        """The rows of both streams, which are of one event class. A row that comes by both comes twice.

        Where it matters which comes first, as in a step of `key_by`, the order is that of event time; among rows of one
        instant it is fixed, but says nothing.

        Raises:
            DefinitionError: it is of another flow, or its rows are of another class.
        """
        shown = f"{self!r}.merge"
        if not isinstance(other, Stream) or other.flow is not self.flow:
            raise DefinitionError(f"{shown} takes a stream of the same flow, got {other!r}.")
        if other.step.event is not self.step.event:
            raise DefinitionError(
                f"{shown}: {other!r} has rows of {other.schema.name}, expected {self.schema.name}. Make them one class "
                f"first: other.map_rows(..., gives={self.schema.name})."
            )
        return self._added(Step(self.flow._name("merge", name), "merge", self.step.event, self.step, other=other.step))

    def key_by(self, column: str | Column[Any]) -> KeyedStream:
        """The rows by the values of a column, for a step that remembers something of each."""
        return KeyedStream(self, column_name(self.schema, column, "column", f"{self!r}.key_by"))

    def window(
        self,
        name: str,
        *,
        entity: Entity,
        features: Mapping[str, Any],
        ttl: Duration | None = None,
        log_every: Duration | None = None,
        log: bool = True,
        drift: Mapping[str, Any] | None = None,
    ) -> ViewDefinition:
        """A feature view over the rows, run with the flow. Or declare it: `class X(FeatureView, source=stream, ...)`.

        Args:
            name: of the view. entity: whom the features are about.
            features: by name, `{"rides_1h": Ride.count(last="1h")}`.
            ttl, log_every, log, drift: as of `FeatureView`.

        Raises:
            DefinitionError: as `FeatureView`, or the flow has a view of this name.
        """
        from headrace.features.views import define

        if any(view.name == name for view in self.flow.views):
            raise DefinitionError(
                f"{self!r}.window: flow '{self.flow.name}' has a view '{name}' already. Name it another."
            )
        view = define(
            name,
            source=self,
            entity=entity,
            features=dict(features),
            ttl=ttl,
            log_every=log_every,
            log=log,
            drift=drift,
        )
        self.flow.views = (*self.flow.views, view)
        return view

    def write(self, sink: Sink, *, name: str | None = None) -> None:
        """Send the rows to a sink; its kind says how surely they get there.

        Raises:
            DefinitionError: it is no sink, or wants columns that the rows do not have.
        """
        if not isinstance(sink, Sink):
            raise DefinitionError(f"{self!r}.write takes a sink, such as ParquetSink('folder'), got {sink!r}.")
        sink.check(self.schema)
        made = self.flow._name(sink.name, name)
        self.flow.add(Step(made, "write", self.step.event, self.step, sink=sink))

    def collect(self, *, newest: int | None = None, name: str | None = None) -> list[dict[str, Any]]:
        """A list that fills with the rows, as dicts, while the flow runs in this process: for tests and notebooks.

        It is whole when `run` returns. Rows of earlier runs into the same data folder are not in it, nor those of other
        processes.

        Args:
            newest: keep only so many, those that came last; without it memory grows with the rows.

        Raises:
            DefinitionError: `newest` is no whole number from 1.
        """
        if newest is not None and (type(newest) is not int or newest < 1):
            raise DefinitionError(f"{self!r}.collect: newest={newest!r}: a whole number of rows, 1 or more.")
        rows: list[dict[str, Any]] = []

        def collect(given: list[dict[str, Any]]) -> None:
            rows.extend(given)
            if newest is not None:
                del rows[:-newest]

        self.write(CallableSink(collect), name=name)
        return rows

    def _filtered(self, kind: str, condition: Any, name: str | None, on_error: str | None) -> Stream:
        if isinstance(condition, Expression):
            checked = condition_on(self.schema.name, condition, f"{self!r}.filter")
            return self._added(Step(self.flow._name(kind, name), kind, self.step.event, self.step, condition=checked))
        return self._called(kind, condition, self.step.event, name, on_error)

    def _called(
        self, kind: str, function: Any, gives: Any, name: str | None, on_error: str | None, **more: Any
    ) -> Stream:
        shown = f"{self!r}.{kind}"
        if not callable(function):
            raise DefinitionError(f"{shown} takes a function of a row, got {function!r}.")
        wanted = getattr(function, "__name__", kind)
        event = event_given(function, gives, self.step.event, shown)
        kept = self.flow.on_error if on_error is None else one_of("on_error", on_error, ON_ERROR, shown)
        step_name = self.flow._name(kind if wanted == "<lambda>" else wanted, name)
        return self._added(Step(step_name, kind, event, self.step, function=function, on_error=kept, **more))

    def _added(self, step: Step) -> Stream:
        return Stream(self.flow, self.flow.add(step))
