"""Rows of steps on their way through a repartition topic: sent by key, and taken in again exactly once.

Each task numbers the rows of an edge as they come out of the step, from 0. A task gives the same rows in the same order
after a restart, so they get the same numbers; the receiver keeps, of each sender, the number it expects next, and takes
only rows from there on. A message also says how far the sender's time has come.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.features.errors import DataError
from headrace.features.steps import Step
from headrace.flows.batch import EventBatch
from headrace.flows.graph.cutting import Edge
from headrace.flows.worker.exchange import (
    by_target,
    columns_sent,
    cover_in,
    encode_with,
    in_messages,
    ints_sent,
    targets,
)

HEADER = "headrace-rows"
_NUMBER, _POSITION = "headrace number", "headrace position"
_OFFSET = (1 << 48) - 1

Ends = Mapping[str, int]
"""Source partitions by name ("rides/3"), and the offset up to which all of them has come."""


class EdgeCover(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message says.

    edge, sender: names; a sender is a task, "rides/3". first, next: the message has the edge's rows of numbers in
    [first, next) that go to its target. watermark: no row of before it comes by the edge after these, microseconds;
    None: none yet. newest: the newest event behind the sender. idle: nothing came to the sender for so long that nobody
    needs to wait for it. ended: everything up to there has come out, and nothing waits any more.
    """

    edge: str
    sender: str
    first: int
    next: int
    watermark: int | None = None
    newest: int | None = None
    idle: bool = False
    ended: dict[str, int] | None = None
    version: int = 1


class Told(msgspec.Struct, frozen=True):
    """How far a sender has come; as of `EdgeCover`."""

    watermark: int | None = None
    newest: int | None = None
    idle: bool = False
    ended: dict[str, int] | None = None


class EdgeSender:
    """Sends the rows of one edge from one task.

    Args:
        edge: which. sender: name of the task. partitions: of the repartition topic. number: of the next row.
        produce: produce(target partition, value, headers); may block, raises if the message is too large.
    """

    def __init__(
        self,
        edge: Edge,
        sender: str,
        partitions: int,
        number: int,
        produce: Callable[[int, bytes, dict[str, bytes]], None],
    ) -> None:
        self.edge = edge
        self._sender, self._produce = sender, produce
        self.number = number
        self._next = [number] * partitions
        self._told: list[tuple[int, Told] | None] = [None] * partitions

    def send(self, rows: EventBatch, told: Told) -> None:
        """Send the rows that came out of the step, which are all until `told`."""
        if not len(rows):
            return
        if self.edge.sorted:
            rows = rows.take(np.argsort(rows.position, kind="stable"))
        first = self.number
        self.number += len(rows)
        numbers = np.arange(first, self.number, dtype=np.int64)
        numbered = EventBatch(rows.columns, rows.time, rows.partition, numbers, rows.effective)
        target = targets(numbered, (self.edge.key,), len(self._next))
        target[target < 0] = 0  # without a key: the step that takes them says so

        def encoded(some: EventBatch) -> bytes:
            return encode_with(some, {_NUMBER: some.offset, _POSITION: rows.position[some.offset - first]})

        for q, part in by_target(numbered, target, len(self._next)):
            parts = list(in_messages(part, encoded))
            for i, (some, value) in enumerate(parts):
                last = i == len(parts) - 1
                # Only the last message knows how far the sender has come: rows of before may follow the others.
                self._emit(q, value, self.number if last else int(some.offset[-1]) + 1, told if last else None)

    def tell(self, told: Told) -> None:
        """Say to every target that does not know how far the task has come."""
        for q, known in enumerate(self._told):
            if known != (self.number, told):
                self._emit(q, b"", self.number, told)

    def _emit(self, q: int, value: bytes, upto: int, told: Told | None) -> None:
        more = {} if told is None else msgspec.structs.asdict(told)
        cover = EdgeCover(self.edge.name, self._sender, self._next[q], upto, **more)
        self._produce(q, value, {HEADER: msgspec.msgpack.encode(cover)})
        self._next[q] = upto
        if told is not None:
            self._told[q] = (upto, told)


class StageInbox:
    """What a task after a repartition topic knows of those that send to it.

    Args:
        edges: with the step whose rows come by each. senders: of each edge, by its name.
    """

    def __init__(self, edges: Mapping[Edge, Step], senders: Mapping[str, Sequence[str]]) -> None:
        self._steps = {edge.name: step for edge, step in edges.items()}
        self._expected = tuple((edge, sender) for edge, its in senders.items() for sender in its)
        self._next: dict[tuple[str, str], int] = {}
        self._told: dict[tuple[str, str], Told] = {}
        self._idle: set[tuple[str, str]] = set()

    def take(self, value: bytes | None, headers: Sequence[tuple[str, bytes]] | None) -> tuple[Step, EventBatch] | None:
        """The rows of a message that have not come before, with the step that gave them; None where there are none.

        Raises:
            DataError: it is no message of ours, or rows are missing between this message and those before it.
        """
        cover = cover_in(headers, HEADER, EdgeCover)
        step = self._steps.get(cover.edge)
        if step is None:
            raise DataError(
                f"rows of the edge '{cover.edge}', which the flow does not have: was it changed? Start it afresh"
            )
        at = (cover.edge, cover.sender)
        known = self._next.get(at, 0)
        if cover.first > known:
            raise DataError(
                f"rows {known} to {cover.first} of the edge '{cover.edge}' from task '{cover.sender}' are missing. "
                "Were messages of the repartition topic deleted? Start the flow afresh"
            )
        if cover.next >= known:
            self._next[at] = cover.next
            self._hear(at, cover)
        if not value:
            return None
        with pa.ipc.open_stream(value) as reader:
            record = reader.read_next_batch()
        rows = _rows(step, record)
        fresh = ints_sent(record, _NUMBER) >= known
        return (step, rows if fresh.all() else rows.take(fresh)) if fresh.any() else None

    def is_back(self, headers: Sequence[tuple[str, bytes]] | None) -> bool:
        """Whether a message is of a sender that was not waited for: with it the watermark may go back.

        Raises:
            DataError: it is no message of ours.
        """
        if not self._idle:
            return False
        cover = cover_in(headers, HEADER, EdgeCover)
        return not cover.idle and (cover.edge, cover.sender) in self._idle

    def _hear(self, at: tuple[str, str], cover: EdgeCover) -> None:
        known = self._told.get(at, Told())
        self._told[at] = Told(
            _later(known.watermark, cover.watermark),
            _later(known.newest, cover.newest),
            cover.idle,
            known.ended if cover.ended is None else cover.ended,
        )
        (self._idle.add if cover.idle else self._idle.discard)(at)

    @property
    def watermark_us(self) -> int | None:
        """No row of before it comes any more by any edge; None while a sender has not been heard."""
        told = [self._told.get(at, Told()) for at in self._expected]
        awaited = [each.watermark for each in told if not each.idle] or [_latest(told, "watermark")]
        least = [each for each in awaited if each is not None]
        return min(least) if least and len(least) == len(awaited) else None

    @property
    def newest_us(self) -> int | None:
        """The newest event behind all senders; None before the first."""
        return _latest(self._told.values(), "newest")

    @property
    def ended(self) -> dict[str, int] | None:
        """Where sources ended when every sender had given all it had; None while one still has something."""
        ends: dict[str, int] = {}
        for at in self._expected:
            its = self._told.get(at, Told()).ended
            if its is None:
                return None
            for name, offset in its.items():
                ends[name] = min(offset, ends.get(name, offset))
        return ends

    def save(self) -> list[Any]:
        """As plain data."""
        return [[*at, upto, msgspec.to_builtins(self._told.get(at))] for at, upto in self._next.items()]

    def load(self, saved: Iterable[Any]) -> None:
        """Go on from what `save` gave."""
        for edge, sender, upto, told in saved:
            self._next[edge, sender] = upto
            if told is not None:
                self._told[edge, sender] = msgspec.convert(told, Told)
                if self._told[edge, sender].idle:
                    self._idle.add((edge, sender))


def _rows(step: Step, record: pa.RecordBatch) -> EventBatch:
    columns, effective = columns_sent(step.schema, record)
    time = columns[step.schema.time_field].values()
    position = ints_sent(record, _POSITION)
    partition = (position >> 48).astype(np.int32)
    return EventBatch.of(columns, time, partition, position & _OFFSET, effective)


def _later(known: int | None, told: int | None) -> int | None:
    return max((each for each in (known, told) if each is not None), default=None)


def _latest(told: Iterable[Told], what: str) -> int | None:
    return max((at for each in told if (at := getattr(each, what)) is not None), default=None)
