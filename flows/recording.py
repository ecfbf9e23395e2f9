"""What a run writes: online rows at once, log rows and dead letters with the next checkpoint, and the count of all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from headrace.features.streams import Flow
from headrace.features.views import ViewDefinition
from headrace.flows.changes import OnChange
from headrace.flows.deadletter import DeadLetter
from headrace.flows.graph.feeding import FedGraph
from headrace.flows.graph.running import GraphRun, Passed
from headrace.flows.graph.viewing import resume, stream_flows
from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.shard import BEGINNING
from headrace.flows.sinks import SinkWriter
from headrace.flows.snapshot import pack, unpack
from headrace.flows.stream_flow import StreamFlow
from headrace.flows.view_flow import ViewFlow
from headrace.stores.checkpoints import Checkpoint, SnapshotPart, read_checkpoint
from headrace.stores.deadletters import dead_letter_table
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock, ClockKind

ONLINE = "online"
LOG = "log"

AnyFlow = ViewFlow[Any]
"""Of a source or of a stream."""


@dataclass
class Summary:
    """What a run did. Counts are of this run alone, not of those it went on from.

    read: events read per source, broken ones included. taken: let in. online_rows, log_rows, tail_rows: rows
    written, by
    view. dead: events not taken, by reason. duplicates: events taken before. missing: values that were null or NaN, by
    source and column. entities: in memory at the end, by view. drifts: found by detectors, by view, feature and
    detector.
    given: rows that came out of the steps of flows, by "FLOW.STEP". seconds: wall time. stopped: the run was
    interrupted; the next one goes on from there.
    """

    read: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    online_rows: Counter[str] = field(default_factory=Counter)
    log_rows: Counter[str] = field(default_factory=Counter)
    tail_rows: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    entities: dict[str, int] = field(default_factory=dict)
    drifts: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: bool = False


class Reading:
    """A source as far as it has been read, and its flow.

    offset: rows read, broken ones included. files: files begun so far, of a source that reads files. position: where
    the reader of a PythonSource reads on, as MessagePack.
    """

    def __init__(self, flow: SourceFlow, checkpoint: Checkpoint | None, on_change: OnChange = "refuse") -> None:
        self.flow = flow
        self.name = flow.source.name
        self.offset = 0
        self.files: tuple[str, ...] = ()
        self.position = b""
        if checkpoint is not None and self.part in checkpoint.snapshots:
            meta, _ = unpack(checkpoint.snapshots[self.part][-1])
            flow.load(checkpoint.snapshots, on_change)
            self.files = tuple(meta["files"])
            self.position = meta.get("position", b"")
            self.offset = checkpoint.offsets.get(self.name, {}).get(0, 0)

    def save(self, full: bool = False) -> dict[str, SnapshotPart]:
        """What a checkpoint holds of this source beside the offset; see `SourceFlow.save`."""
        return {
            **self.flow.save(full),
            self.part: SnapshotPart(pack({"files": list(self.files), "position": self.position}, {})),
        }

    @property
    def ended(self) -> bool:
        """Whether the source has ended, and all of it was taken. One that nobody reads, as in a backfill, does not."""
        return False

    @property
    def part(self) -> str:
        """The name of what a checkpoint holds of the source beside its flow."""
        return f"{self.name}.-files"


class Recorder:
    """The stores of a data folder, written by one run; to be used in a `with` statement.

    Args:
        data: the folder. kind: whether its clock is the wall's or the stream's.
    """

    def __init__(self, data: Path, kind: ClockKind) -> None:
        self.summary = Summary()
        self._kind = kind
        self._data = data
        self._sinks: dict[str, SinkWriter] = {}
        self._graphs: list[FedGraph] = []
        self._log = OfflineLog(data / LOG)
        try:
            self._log.claim()
            self.checkpoint = read_checkpoint(data / LOG)
            self._store = EmbeddedStore(data / ONLINE, durable=kind == "wall")
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, exc: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._sinks.values():
            writer.close()
        self._store.close()
        self._log.close()

    def attach(
        self,
        readings: Sequence[Reading],
        flows: Sequence[Flow],
        on_change: OnChange,
        views: Sequence[ViewDefinition] = (),
    ) -> None:
        """Let the steps of flows take what is let in of their sources, and views what streams of these give.

        Raises:
            SnapshotError: the checkpoint is of other steps. StoreError: a sink cannot be written.
        """
        by_name = {reading.name: reading for reading in readings}
        for flow in flows:
            its = {source.name: by_name[source.name] for source in flow.sources}
            found = self.checkpoint.snapshots if self.checkpoint is not None else {}
            begun = any(reading.part in found for reading in its.values())
            graph = GraphRun(flow, snapshots=found if begun else None, start=on_change == "start")
            self.open_sinks(graph.sinks(self._data))
            fed = FedGraph(graph, its, stream_flows(flow, views, live=self._kind == "wall"))
            for stream in fed.streams:
                if begun:
                    resume(stream, found, on_change, fed.watermark_us(), fed.newest_us(stream))
                self.change(stream)
                self.follow(stream)
            self._graphs.append(fed)

    def pass_time(self, clock_us: int) -> None:
        """Tell the steps of flows how far their sources have come by the clock."""
        for graph in self._graphs:
            self._passed(graph, graph.push(None, None, clock_us), clock_us)

    def finish(self) -> None:
        """All sources have ended: rows that wait in steps for a watermark go on."""
        for graph in self._graphs:
            self._passed(graph, graph.finish(), None, ended=True)

    def advance(self, clock_us: int) -> None:
        """The clock of a replay has come so far: values of views over streams fall too."""
        for stream in self._streams():
            self._put(stream, stream.advance(clock_us))

    def _passed(self, graph: FedGraph, passed: Passed, clock_us: int | None, ended: bool = False) -> None:
        self.summary.given.update({name: len(rows) for name, rows in passed.given.items()})
        self._letters(passed.dead)
        for stream, output in graph.viewed(passed, clock_us, ended):
            self._put(stream, output)
            self._missing(stream.source.name, output.missing)

    def _streams(self) -> list[StreamFlow]:
        return [stream for graph in self._graphs for stream in graph.streams]

    def _letters(self, dead: Sequence[DeadLetter]) -> None:
        if dead:
            reasons: Counter[str] = Counter(letter.reason for letter in dead)
            self.refused(dead_letter_table([letter.record() for letter in dead]), reasons)

    def open_sinks(self, writers: Mapping[str, SinkWriter]) -> None:
        """Open sinks where the checkpoint left them; from now on every checkpoint settles with them.

        writers: by the name that their state has in a checkpoint. They are closed with the recorder.

        Raises:
            StoreError: one cannot be written.
        """
        snapshots = {} if self.checkpoint is None else self.checkpoint.snapshots
        for name, writer in writers.items():
            self._sinks[name] = writer
            writer.open(snapshots[name][-1] if name in snapshots else None)

    def write(
        self, reading: Reading, output: Output, broken: Sequence[DeadLetter] = (), clock_us: int | None = None
    ) -> None:
        """Write what one step gave.

        broken: letters of rows that could not be decoded. clock_us: the wall's, of a live run.
        """
        self._put(reading.flow, output, broken)
        if output.batch is not None:
            for graph in self._graphs:
                if reading.name in graph.readings:
                    self._passed(graph, graph.push(reading.name, output.batch, clock_us), clock_us)
        self.count(reading.name, output.taken, output.duplicates, output.missing)

    def _put(self, flow: AnyFlow, output: Output, broken: Sequence[DeadLetter] = ()) -> None:
        """Rows of views go online and into the log, letters aside."""
        for view in flow.views:
            online, settled = output.online.get(view.name), output.log.get(view.name)
            if online is not None:
                self._store.write(view, online)
                self.summary.online_rows[view.name] += online.num_rows
            if settled is not None:
                self._log.append(view, settled)
                self.summary.log_rows[view.name] += settled.num_rows
        self.summary.drifts.update(f"{each.view}.{each.feature}.{each.detector}" for each in output.drifts)
        self._letters([*broken, *output.dead])

    def refused(self, letters: pa.Table, reasons: Mapping[str, int]) -> None:
        """Events that were not taken, in the form of headrace.stores.deadletters, and how many for each reason."""
        self._log.dead_letters(letters)
        self.summary.dead.update(reasons)

    def count(self, source: str, taken: int, duplicates: int, missing: Mapping[str, int]) -> None:
        """Events of a source that were let in or had been before; and by column, how many had no value there."""
        self.summary.taken += taken
        self.summary.duplicates += duplicates
        self._missing(source, missing)

    def _missing(self, source: str, missing: Mapping[str, int]) -> None:
        self.summary.missing.update({f"{source}.{column}": n for column, n in missing.items()})

    def follow(self, flow: AnyFlow) -> None:
        """Rows online that a run wrote after its last checkpoint, before it was killed, must not stay; see
        `ShardOperator.follow`."""
        written = [self._store.newest_us(view) for view in flow.views]
        flow.follow(max((us for us in written if us is not None), default=BEGINNING))

    def change(self, flow: AnyFlow) -> None:
        """Views that have changed since the checkpoint: the stores take the new definition, online rows are written
        anew."""
        changed = [view for view in flow.views if view.name in flow.changed]
        rows = flow.rows(flow.clock_us) if changed else {}
        for view in changed:
            if view.log:
                self._log.migrate_view(view)
            self._store.migrate_view(view)
            if view.name in rows:
                self._store.write(view, rows[view.name])

    def set_clock(self, us: int) -> None:
        """Say that every online row is as of `us` or later."""
        self._store.set_clock(us, self._kind)

    def commit(self, readings: Sequence[Reading], *, tails: bool = False, full: bool = False) -> None:
        """A checkpoint: everything written so far counts, and a restart goes on from here.

        tails: also write what would follow if no further event came. full: the whole state, not what has changed.

        Raises:
            StoreError: the log cannot be written, or a sink does not take its rows; nothing more counts than before.
        """
        settled = {name: SnapshotPart(writer.flush()) for name, writer in self._sinks.items()}
        for writer in self._sinks.values():
            self._letters(writer.dead())
        flows: list[AnyFlow] = [*(reading.flow for reading in readings), *self._streams()]
        for flow in flows:
            self._put(flow, flow.settle())
        for flow in flows if tails else ():
            rows = flow.tail()
            for view in flow.views:
                if view.name in rows:
                    self._log.tail(view, rows[view.name])
                    self.summary.tail_rows[view.name] += rows[view.name].num_rows
        self._store.sync()
        begun = [flow for flow in flows if flow.views and flow.newest_us is not None]
        clock = None
        if begun:
            clock = Clock(min(flow.clock_us for flow in begun), self._kind)
            self.set_clock(clock.us)
        self._log.commit(
            settled_us={
                name: us for flow in begun if flow.watermark_us is not None for name, us in flow.settled_us().items()
            },
            snapshots={
                **settled,
                **{name: part for reading in readings for name, part in reading.save(full).items()},
                **{name: part for graph in self._graphs for name, part in graph.save(full).items()},
            },
            offsets={reading.name: {0: reading.offset} for reading in readings},
            clock=clock,
        )
        for writer in self._sinks.values():
            writer.committed()
        self.summary.entities = {name: n for flow in flows for name, n in flow.entities.items()}
