"""The steps of a flow within a task: what they are given, what they send on, write and remember."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from headrace.features.errors import DefinitionError
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.graph.cutting import Cut, Edge, Stage
from headrace.flows.graph.rows import none_of
from headrace.flows.graph.running import GraphRun
from headrace.flows.sinks import SinkWriter
from headrace.flows.snapshot import SnapshotError
from headrace.flows.stream_flow import StreamFlow
from headrace.flows.view_flow import Output
from headrace.flows.worker.edges import EdgeSender, Told
from headrace.stores.checkpoints import SnapshotPart

Produce = Callable[[int, bytes, dict[str, bytes]], None]
"""produce(target partition, value, headers)"""


class TaskGraph:
    """The steps of one stage of a flow, in one task.

    Args:
        cut: the flow in stages. stage: the one at hand. partition: of the task. sender: its name to those after it.
        one_partition: whether all rows come by one partition of one source.
        routes: by the name of each stage that rows go on to, its partitions and how to send there.
        snapshots: of the checkpoint to go on from; None: nothing has been read. start: as of `GraphRun`.
        streams: with views that are computed here; they have been restored.

    Raises:
        SnapshotError: the checkpoint is of other steps.
    """

    def __init__(
        self,
        cut: Cut,
        stage: Stage,
        partition: int,
        sender: str,
        *,
        one_partition: bool,
        routes: Mapping[str, tuple[int, Produce]],
        snapshots: Mapping[str, Sequence[bytes]] | None,
        start: bool,
        streams: Sequence[StreamFlow] = (),
    ) -> None:
        self.flow = cut.flow
        self.stage = stage
        number = cut.number(stage, partition)
        self._graph = GraphRun(cut.flow, stage.steps, snapshots, start, one_partition=one_partition, number=number)
        numbers = self._numbers(snapshots, start)
        self._senders = [
            EdgeSender(edge, sender, routes[to][0], numbers.get(_named(to, edge), 0), routes[to][1])
            for to, edge in stage.sends
        ]
        self._entries = [step.name for step in stage.steps if step.source is not None]
        self._sinks: dict[str, SinkWriter] = {}
        self._unsettled = False
        self._letters: list[DeadLetter] = []
        self.streams = tuple(streams)
        self._outputs: list[Output] = []
        self.told = Told()

    # Rows

    def read(self, events: EventBatch, told: Told, clock_us: int | None = None) -> Mapping[str, int]:
        """Take events of the source; as `take`."""
        return self.take(dict.fromkeys(self._entries, events) if len(events) else {}, told, clock_us)

    def take(self, rows: Mapping[str, EventBatch], told: Told, clock_us: int | None = None) -> Mapping[str, int]:
        """Take rows by the step that they come from, and hear how far the task has come.

        Returns how many rows each step gave, by "FLOW.STEP"; `letters` has what could not be taken, `outputs` what
        views make of the rows.

        Args:
            clock_us: the clock of a live flow.

        Raises:
            StepError: a function failed whose step stops the flow then. StoreError: a sink does not take its rows.
        """
        ended = told.ended is not None
        upto = told.newest if ended else told.watermark
        passed = self._graph.push(rows, upto, ended=ended)
        self.told = told
        for sender in self._senders:
            given = passed.given.get(f"{self.flow.name}.{sender.edge.step}")
            if given is not None:
                sender.send(given, told)
        self._letters += passed.dead
        for stream in self.streams:
            given = passed.given.get(stream.source.name, rows.get(stream.step.name))
            output = stream.push(
                none_of(stream.step) if given is None else given,
                None if ended else told.watermark,
                told.newest,
                clock_us,
            )
            self._letters += output.dead
            self._outputs.append(replace(output, dead=(), taken=0, missing={}))
        return {name: len(given) for name, given in passed.given.items() if len(given)}

    def letters(self) -> list[DeadLetter]:
        """Letters since the last time."""
        found, self._letters = self._letters, []
        return found

    def outputs(self) -> list[Output]:
        """What views made of rows since the last time."""
        found, self._outputs = self._outputs, []
        return found

    def say(self) -> None:
        """Tell those that rows go on to how far the task has come, if they do not know."""
        for sender in self._senders:
            sender.tell(self.told)

    # Sinks

    def open_sinks(self, writers: Mapping[str, SinkWriter], snapshots: Mapping[str, Sequence[bytes]] | None) -> None:
        """Open sinks where the checkpoint left them.

        Raises:
            StoreError: one cannot be written.
        """
        for name, writer in writers.items():
            self._sinks[name] = writer
            chain = (snapshots or {}).get(name)
            writer.open(chain[-1] if chain else None)

    def sinks(
        self, data: str, part: str, give_up: threading.Event, kafka: Mapping[str, str]
    ) -> Mapping[str, SinkWriter]:
        """As `GraphRun.sinks`.

        Raises:
            DefinitionError: there are sinks, and the data folder is a URL.
        """
        if "://" in data:
            if any(step.sink is not None for step in self.stage.steps):
                raise DefinitionError(
                    f"Flow '{self.flow.name}' writes to sinks, which need a data folder on this machine, got {data}."
                )
            return {}
        return self._graph.sinks(Path(data), part, give_up, kafka)

    def settle(self) -> None:
        """The last checkpoint counts: sinks show what they had staged for it."""
        if self._unsettled:
            self._unsettled = False
            for writer in self._sinks.values():
                writer.committed()

    def close(self) -> None:
        """Give up what sinks have not flushed."""
        for writer in self._sinks.values():
            writer.close()
        self._sinks.clear()

    # Checkpoints

    def save(self) -> dict[str, SnapshotPart]:
        """What a checkpoint holds of the steps, once their sinks have what they were given.

        Raises:
            StoreError: a sink does not take its rows.
        """
        parts = {name: SnapshotPart(writer.flush()) for name, writer in self._sinks.items()}
        for writer in self._sinks.values():
            self._letters += writer.dead()
        self._unsettled = bool(self._sinks)
        numbers = {
            _named(to, each.edge): each.number for (to, _), each in zip(self.stage.sends, self._senders, strict=True)
        }
        viewed = {name: part for each in self.streams for name, part in each.save().items()}
        return {**parts, **viewed, **self._graph.save(), self._part: SnapshotPart(msgspec.msgpack.encode(numbers))}

    @property
    def _part(self) -> str:
        return f"{self.flow.name}.-sent"

    def _numbers(self, snapshots: Mapping[str, Sequence[bytes]] | None, start: bool) -> dict[str, int]:
        """Of the next row of each edge.

        Raises:
            SnapshotError: rows go ways of which the checkpoint knows nothing.
        """
        chain = (snapshots or {}).get(self._part)
        known: dict[str, int] = {} if not chain else msgspec.msgpack.decode(chain[-1], type=dict[str, int])
        new = [_named(*each) for each in self.stage.sends if _named(*each) not in known]
        if snapshots is not None and new and not start:
            raise SnapshotError(
                f"Flow '{self.flow.name}' sends rows of step {new[0]} on, and had not done so at the checkpoint: what "
                "was before would be missed. Say on_change='start' (--on-change start) to begin there with nothing, or "
                "start afresh (--fresh)."
            )
        return known


def _named(stage: str, edge: Edge) -> str:
    return f"{edge.name} to {stage}"
