"""A flow of steps under test: rows in, what its steps and the views over its streams make of them out."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from headrace.features.errors import DataError
from headrace.features.sources import Source
from headrace.features.streams import Flow
from headrace.features.time import format_instant, instant_us
from headrace.features.views import ViewDefinition
from headrace.flows.deadletter import DeadLetter
from headrace.flows.decode import decode_rows, reading_of
from headrace.flows.graph.feeding import FedGraph
from headrace.flows.graph.running import GraphRun, Passed
from headrace.flows.graph.viewing import stream_flows
from headrace.flows.pipeline import SourceFlow
from headrace.flows.sinks import SinkRows
from headrace.flows.stream_flow import StreamFlow
from headrace.flows.view_flow import Output

_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d{1,6})?)?")


def instant_on(midnight: int, value: Any, name: str) -> int:
    if isinstance(value, str) and _TIME_OF_DAY.fullmatch(value):
        hours, minutes, *seconds = value.split(":")
        if int(hours) > 23 or int(minutes) > 59 or (seconds and float(seconds[0]) >= 60):
            raise DataError(f"{name}: '{value}' is no time of day.")
        micros = round(float(seconds[0]) * 1_000_000) if seconds else 0
        return midnight + (int(hours) * 3600 + int(minutes) * 60) * 1_000_000 + micros
    return instant_us(value, name)


def dated_on(midnight: int, row: Any, field: str) -> Any:
    if isinstance(row, Mapping) and isinstance(row.get(field), str) and _TIME_OF_DAY.fullmatch(row[field]):
        return {**row, field: format_instant(instant_on(midnight, row[field], field))}
    return row


@dataclass
class _Sent:
    """A source of which somebody sends the events."""

    flow: SourceFlow
    ended: bool = False


class FlowReplay:
    """A flow of steps under test; made by `replay_flow`. Nothing is written to its sinks.

    Attributes:
        dead: every event that was not let in, or that a step could not take, with its reason.
        duplicates: how many events had been taken before (contract C9).
        outputs: what views over its streams gave and nobody has taken yet; `views` are those.
    """

    def __init__(self, flow: Flow, day: str, views: Sequence[ViewDefinition] = ()) -> None:
        self.flow = flow
        self._views = views
        self._midnight = instant_us(f"{day}T00:00:00Z", "day")
        self._sources: dict[str, Source] = {source.name: source for source in flow.sources}
        self._read = {name: _Sent(SourceFlow(source, [])) for name, source in self._sources.items()}
        self._graph = FedGraph(GraphRun(flow), self._read, stream_flows(flow, views))
        self._offsets = dict.fromkeys(self._sources, 0)
        self._rows: dict[str, list[dict[str, Any]]] = {step.name: [] for step in flow.steps if step.sink is None}
        self.dead: list[DeadLetter] = []
        self.duplicates = 0
        self.outputs: list[Output] = []

    def __enter__(self) -> "FlowReplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close."""

    @property
    def streams(self) -> Sequence[StreamFlow]:
        """The streams that views are over."""
        return self._graph.streams

    def send(
        self, rows: Iterable[Any] | Mapping[str, Any], source: str | None = None, clock_us: int | None = None
    ) -> None:
        """Give the flow one event or several, in this order.

        Args:
            rows: mappings or event objects. The time field may be a time of day ("12:00"), meant in UTC on `day`.
            source: the name of the source that they come from; it need not be said where the flow reads only one.
            clock_us: the clock, where it is not the newest event.

        Raises:
            DataError: there is no such source.
        """
        if source is None and len(self._sources) == 1:
            source = next(iter(self._sources))
        if source is None or source not in self._sources:
            raise DataError(f"send: source={source!r} is none of the flow's: {', '.join(self._sources)}.")
        given = [rows] if isinstance(rows, Mapping) or not isinstance(rows, Iterable) else list(rows)
        read, schema, offset = self._sources[source], self._sources[source].schema, self._offsets[source]
        self._offsets[source] += len(given)
        dated = [dated_on(self._midnight, row, schema.time_field) for row in given]
        batch, dead = decode_rows(schema, dated, 0, offset, reading_of(read))
        output = self._read[source].flow.push(batch, clock_us)
        self.dead += [*dead, *output.dead]
        self.duplicates += output.duplicates
        if output.batch is not None:
            self._take(self._graph.push(source, output.batch), clock_us)

    def end(self, clock_us: int | None = None) -> None:
        """The sources have ended: rows that wait for their watermark go on."""
        self._take(self._graph.finish(), clock_us, ended=True)

    def rows(self, step: str) -> list[dict[str, Any]]:
        """The rows that a step has given so far; instants as aware datetimes.

        Raises:
            DataError: the flow has no such step.
        """
        if step not in self._rows:
            raise DataError(f"Flow '{self.flow.name}' has no step '{step}' that gives rows: {', '.join(self._rows)}.")
        return list(self._rows[step])

    def restart(self) -> None:
        """Kill the flow and start it again from a snapshot taken this instant; nothing may change by it."""
        saved = dict(self._graph.save(full=True))
        for read in self._read.values():
            saved |= read.flow.save(full=True)
        parts = {part: [each.data] for part, each in saved.items()}
        for name, source in self._sources.items():
            self._read[name].flow = SourceFlow(source, [])
            self._read[name].flow.load(parts)
        streams = stream_flows(self.flow, self._views)
        for stream in streams:
            stream.load(parts)
        self._graph = FedGraph(GraphRun(self.flow, snapshots=parts), self._read, streams)

    def _take(self, passed: Passed, clock_us: int | None, ended: bool = False) -> None:
        self.dead += passed.dead
        self.outputs += [output for _, output in self._graph.viewed(passed, clock_us, ended)]
        for step in self.flow.steps:
            batch = passed.given.get(f"{self.flow.name}.{step.name}")
            if batch is not None and len(batch):
                self._rows[step.name] += SinkRows.of(batch, step.schema).table.to_pylist()
