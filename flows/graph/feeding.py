"""A flow's steps and the sources that are read for them: what is let in of each goes in, with the watermark of all.

Views over its streams take what the steps give, and stand beside them.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from headrace.flows.batch import EventBatch
from headrace.flows.graph.running import GraphRun, Passed
from headrace.flows.pipeline import SourceFlow
from headrace.flows.stream_flow import StreamFlow
from headrace.flows.view_flow import Output
from headrace.stores.checkpoints import SnapshotPart


class Read(Protocol):
    """A source as far as it has been read."""

    flow: SourceFlow

    @property
    def ended(self) -> bool:
        """Whether the source has ended, and all of it was taken."""


class FedGraph:
    """All steps of a flow, and its sources.

    readings: by the name of the source. streams: those that views are over.
    """

    def __init__(self, graph: GraphRun, readings: Mapping[str, Read], streams: Sequence[StreamFlow] = ()) -> None:
        self._graph = graph
        self.readings = dict(readings)
        self.streams = tuple(streams)
        self._heard_us: dict[str, int] = {}
        self._entries: dict[str, list[str]] = {name: [] for name in readings}
        for step in graph.flow.steps:
            if step.source is not None:
                self._entries[step.source.name].append(step.name)

    def push(self, source: str | None, batch: EventBatch | None, clock_us: int | None = None) -> Passed:
        """Take events that were let in of a source, or only hear how far all have come.

        clock_us: the wall's, where the run has one: a source silent for its `idle_after` does not hold the others back.
        """
        rows: dict[str, EventBatch] = {}
        if source is not None and batch is not None and len(batch):
            rows = dict.fromkeys(self._entries[source], batch)
        if source is not None and clock_us is not None and rows:
            self._heard_us[source] = clock_us
        return self._graph.push(rows, self.watermark_us(clock_us))

    def finish(self) -> Passed:
        """All sources have ended: what waits goes on."""
        newest = [read.flow.newest_us for read in self.readings.values() if read.flow.newest_us is not None]
        return self._graph.push({}, max(newest, default=None), ended=True)

    def viewed(
        self, passed: Passed, clock_us: int | None = None, ended: bool = False
    ) -> Sequence[tuple[StreamFlow, Output]]:
        """What the views over streams make of the rows that `push` or `finish` gave.

        clock_us: as of `push`. ended: by `finish`. Where a source grows later, it is gone on from the watermark, so
        logs have not settled further.
        """
        watermark = None if ended else passed.watermark_us
        return [
            (each, each.push(passed.given[each.source.name], watermark, self.newest_us(each), clock_us))
            for each in self.streams
        ]

    def newest_us(self, stream: StreamFlow) -> int | None:
        """The newest event of the sources that a stream comes from, microseconds; None before the first."""
        newest = [self.readings[root.name].flow.newest_us for root in stream.source.roots]
        return max((each for each in newest if each is not None), default=None)

    def save(self, full: bool = False) -> dict[str, SnapshotPart]:
        """As `GraphRun.save` and `ViewFlow.save`."""
        return {
            **self._graph.save(full),
            **{name: part for each in self.streams for name, part in each.save(full).items()},
        }

    def watermark_us(self, clock_us: int | None = None) -> int | None:
        """The least of the sources that may still give events, microseconds; None while one of them has given none."""
        awaited = [
            read.flow.watermark_us
            for name, read in self.readings.items()
            if not (len(self.readings) > 1 and (read.ended or self._is_idle(name, read, clock_us)))
        ]
        if not awaited:
            awaited = [read.flow.watermark_us for read in self.readings.values()]
            return max((each for each in awaited if each is not None), default=None)
        least = [each for each in awaited if each is not None]
        return min(least) if len(least) == len(awaited) else None

    def _is_idle(self, name: str, read: Read, clock_us: int | None) -> bool:
        idle_after = read.flow.source.idle_after_us
        if clock_us is None or idle_after is None:
            return False
        return clock_us - self._heard_us.setdefault(name, clock_us) >= idle_after
