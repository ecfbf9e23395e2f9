"""The steps of a flow, or some of them: driven by the rows that come to them from sources or from steps elsewhere."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.features.steps import VIEW, Step
from headrace.features.streams import Flow
from headrace.flows.batch import EventBatch, Ints
from headrace.flows.deadletter import DeadLetter
from headrace.flows.graph.ordering import Settling
from headrace.flows.graph.places import Places, merged
from headrace.flows.graph.rows import Made, none_of
from headrace.flows.graph.settling import SETTLING, settling
from headrace.flows.graph.stateful import Ordered
from headrace.flows.graph.stateless import COMPUTE
from headrace.flows.sinks import SinkPlace, SinkRows, SinkWriter, writer_of
from headrace.flows.snapshot import SnapshotError, pack, unpack
from headrace.stores.checkpoints import SnapshotPart

ORDERED = ("stateful", *SETTLING)
"""Kinds of steps whose rows come in an order of their own, whatever the batches: they are numbered in it."""
RENUMBERED = ("flat_map", *ORDERED)
"""Kinds of steps that give several rows for one event, or in another order: their rows are numbered anew."""


@dataclass(frozen=True)
class Passed:
    """What came out of a batch.

    given: by "FLOW.STEP" the rows that the step gave. dead: letters of all steps. watermark_us: the one that they were
    told; where the sources have ended, the instant up to which they gave all.
    """

    given: Mapping[str, EventBatch]
    dead: Sequence[DeadLetter]
    watermark_us: int | None


class GraphRun:
    """A cut of a flow: steps that are computed together.

    Args:
        steps: in the order of their definition; by default all of the flow. Rows come to it by its entries: steps that
            read a source, and steps elsewhere whose rows a step here takes.
        snapshots: of the checkpoint to go on from, by name; None: nothing has been read yet.
        start: steps that are new or have changed begin with nothing; otherwise they are refused.
        one_partition: whether all rows come by one partition of one source; by default, whether there is one source.
        number: of a task among those that compute the same steps: rows that a step numbers stand at places of it.

    Raises:
        SnapshotError: the checkpoint is of other steps.
    """

    def __init__(
        self,
        flow: Flow,
        steps: Sequence[Step] | None = None,
        snapshots: Mapping[str, Sequence[bytes]] | None = None,
        start: bool = False,
        *,
        one_partition: bool | None = None,
        number: int | None = None,
    ) -> None:
        self.flow = flow
        self._number = number
        self._one_partition = len(flow.sources) == 1 if one_partition is None else one_partition
        self._steps = tuple(flow.steps if steps is None else steps)
        self._places = Places(flow)
        self._ordered: dict[str, Ordered | Settling] = {
            step.name: Ordered(step) if step.kind == "stateful" else settling(step)
            for step in self._steps
            if step.kind in ORDERED
        }
        self._numbers: Counter[str] = Counter()
        self._writers: dict[str, SinkWriter] = {}
        if snapshots is not None:
            self._load(snapshots, start)

    def sinks(
        self,
        data: Path,
        part: str = "",
        give_up: threading.Event | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> dict[str, SinkWriter]:
        """The writers of its sinks by their name in a checkpoint, to be opened; without them nothing is written.

        Args:
            data: the folder of the run, where sinks may stage. part, give_up, kafka: as of `SinkPlace`.
        """
        told = give_up or threading.Event()
        for step in self._steps:
            if step.sink is not None:
                place = SinkPlace(self.flow.name, step.name, step.schema, data, part, told, dict(kafka or {}))
                self._writers[step.name] = writer_of(step.sink, place)
        return {self._part(name): writer for name, writer in self._writers.items()}

    def _part(self, step: str) -> str:
        return f"{self.flow.name}.{step}.-step"

    @property
    def _numbering(self) -> str:
        return f"{self.flow.name}.-numbers"

    def push(self, rows: Mapping[str, EventBatch], watermark_us: int | None, *, ended: bool = False) -> Passed:
        """Take rows, and hear how far time has come.

        Args:
            rows: by the name of the entry that they come by; entries without rows need not be named. Of one that reads:
            the events that were let in.
            watermark_us: no entry gets a row of before it any more, the least of all sources; None: there is none yet.
            ended: nothing at all comes any more: what waits for `watermark_us` or before goes on.

        Raises:
            StepError: a function failed whose step stops the flow then.
        """
        given = dict(rows)
        dead: list[DeadLetter] = []
        made_here: list[str] = []
        for step in self._steps:
            made = self._made(step, given, watermark_us, ended)
            if made is None:
                continue
            dead += [self._places.told(self._unmerged(step, letter)) for letter in made.dead]
            made_here.append(step.name)
            given[step.name] = self._numbered(step, made.batch) if step.kind in RENUMBERED else made.batch
        return Passed({f"{self.flow.name}.{name}": given[name] for name in made_here}, dead, watermark_us)

    def _made(self, step: Step, given: Mapping[str, EventBatch], upto_us: int | None, ended: bool) -> Made | None:
        """What a step gives; None: it is one that gives nothing to anybody."""
        if step.source is not None:
            rows = given.get(step.name)
            return Made(none_of(step) if rows is None else self._places.placed(rows, step.source))
        assert step.parent is not None
        if step.kind == VIEW:  # it takes what its parent gave from `Passed`
            return None
        taken = _rows(given, step.parent)
        if step.kind == "write":
            writer = self._writers.get(step.name)
            if len(taken) and writer is not None:
                writer.write(SinkRows.of(taken, step.schema))
            return None
        if step.kind == "merge":
            assert step.other is not None
            # Rows that come by an edge are for steps by key; where their stream is merged, that is done where it is.
            sides = [_rows(given, each) if each in self._steps else none_of(each) for each in (step.parent, step.other)]
            return Made(merged(*sides))
        ordered = self._ordered.get(step.name)
        if ordered is None:
            return COMPUTE[step.kind](step, taken) if len(taken) else Made(none_of(step))
        dead = ordered.take(taken) if len(taken) else []
        if step.other is not None and isinstance(ordered, Settling):
            others = _rows(given, step.other)
            dead += ordered.take(others, 1) if len(others) else []
        if upto_us is None:
            return Made(none_of(step), dead)
        made = (
            ordered.advance(upto_us, ended)
            if isinstance(ordered, Settling)
            else self._advanced(ordered, step, upto_us, ended)
        )
        return Made(made.batch, [*dead, *made.dead])

    def _advanced(self, ordered: Ordered | Settling, step: Step, upto_us: int, ended: bool) -> Made:
        if isinstance(ordered, Settling):
            return ordered.advance(upto_us, ended)
        # Rows of the watermark's own instant: those of one partition come in their order, of several in any. Where a
        # merge is above, some come at once and others only when the watermark has passed.
        at_once = self._one_partition and not _is_merged(step)
        return ordered.advance(upto_us if ended or at_once else upto_us - 1)

    def _unmerged(self, step: Step, letter: DeadLetter) -> DeadLetter:
        """A letter with the offset that its row had before it was merged here."""
        offset, above = letter.offset, step.parent if step.other is None else None
        while above is not None and above in self._steps and above.kind not in RENUMBERED:
            if above.kind == "merge":
                offset, side = divmod(offset, 2)
                above = above.other if side else above.parent
            else:
                above = above.parent
        return letter if offset == letter.offset else replace(letter, offset=offset)

    def _numbered(self, step: Step, batch: EventBatch) -> EventBatch:
        flat = step.kind == "flat_map"
        offset = self._by_stream(step.parent if flat else None, batch.offset, step.name)
        partition = batch.partition
        if self._number is not None:
            partition = np.full(len(batch), self._number, dtype=np.int32)
        return EventBatch(batch.columns, batch.time, partition, offset, batch.effective)

    def _consecutive(self, counted: str, n: int) -> Ints:
        first = self._numbers[counted]
        self._numbers[counted] += n
        return np.arange(first, first + n, dtype=np.int64)

    def _by_stream(self, above: Step | None, offset: Ints, counted: str) -> Ints:
        """(n,) numbers for rows made of rows of the step `above`: as if a merge came after and not before.

        Merged streams come one after the other in each batch. So the rows of each are numbered by themselves, and
        stand at places that do not depend on batches.
        """
        while above is not None and above.kind not in (*ORDERED, "merge"):
            above = above.parent
        if above is None or above.kind != "merge":
            return self._consecutive(counted, len(offset))
        numbers = np.empty(len(offset), dtype=np.int64)
        for side, each in enumerate((above.parent, above.other)):
            of = offset & 1 == side
            numbers[of] = self._by_stream(each, offset[of] >> 1, f"{counted}/{side}") * 2 + side
        return numbers

    def save(self, full: bool = False) -> dict[str, SnapshotPart]:
        """What its steps remember, for a checkpoint. full: all of it, not what has changed since the last one."""
        parts = {
            self._part(name): ordered.save(full) if isinstance(ordered, Ordered) else SnapshotPart(ordered.save())
            for name, ordered in self._ordered.items()
        }
        return {**parts, self._numbering: SnapshotPart(pack({"numbers": dict(self._numbers)}, {}))}

    def _load(self, snapshots: Mapping[str, Sequence[bytes]], start: bool) -> None:
        numbers = snapshots.get(self._numbering)
        if numbers:
            self._numbers.update(unpack(numbers[-1])[0]["numbers"])
        elif not start:
            raise SnapshotError(
                f"Flow '{self.flow.name}' is not in the checkpoint, and a source of its own has been read already: it "
                "would miss all events until now. Say on_change='start' to begin it here, or run into another data "
                "folder."
            )
        for name, ordered in self._ordered.items():
            chain = snapshots.get(self._part(name))
            if chain:
                if isinstance(ordered, Ordered):
                    ordered.load(chain, start)
                else:
                    ordered.load(chain[-1], start)
            elif not start:
                raise SnapshotError(
                    f"{ordered.step.shown} of flow '{self.flow.name}' is not in the checkpoint, and its source "
                    "has been read already: it would miss all events until now. Say on_change='start' to begin it "
                    "with nothing, or run into another data folder."
                )


def _is_merged(step: Step) -> bool:
    """Whether a step takes merged rows, whose order depends on batches: that of their places does not."""
    above = step.parent
    while above is not None and above.kind not in ORDERED:
        if above.kind == "merge":
            return True
        above = above.parent
    return False


def _rows(given: Mapping[str, EventBatch], step: Step) -> EventBatch:
    found = given.get(step.name)
    return none_of(step) if found is None else found
