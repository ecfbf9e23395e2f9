"""One source and the views over it: admission once, then each view's operator.

    decoded batch -> admission -> operator of each view -> online rows, log rows
                         \\-> dead letters

The embedded runner and `headrace.testing` drive this object; it does no I/O itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.features.errors import DefinitionError
from headrace.features.sources import Source
from headrace.features.views import ViewDefinition, definition
from headrace.flows.admission import Admission
from headrace.flows.batch import EventBatch
from headrace.flows.changes import OnChange
from headrace.flows.deadletter import DeadLetter
from headrace.flows.shard import BEGINNING, ShardOperator
from headrace.flows.snapshot import SnapshotError
from headrace.stores.checkpoints import SnapshotPart

SETTLE_EVENTS = 1_000
SETTLE_US = 50_000
"""A live flow settles its log after so many events, or so many microseconds."""


@dataclass(frozen=True)
class Output:
    """What came of one step.

    online, log: rows by view name; views without rows are left out. dead: events that were not taken. duplicates:
    how many events had been taken before. taken: how many were let in. batch: those that were let in.
    """

    online: dict[str, pa.Table] = field(default_factory=dict)
    log: dict[str, pa.Table] = field(default_factory=dict)
    dead: Sequence[DeadLetter] = ()
    duplicates: int = 0
    taken: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    batch: EventBatch | None = None


ADMISSION = "-admission"
"""The part of a checkpoint that tells what was let in; no view has such a name."""


class SourceFlow:
    """Views over one source.

    Args:
        source: where the events come from; its lateness, max_ahead, dedup, idle_after and late rule admission.
        views: views or definitions over it, with names of their own; none where a flow only judges events.
        partitions: those that hold the watermark back from the start, see `Admission`.
        live: the clock is the one that `push` and `advance` are given (the wall's), not the stream's.

    Attributes:
        changed: views that `load` found to be defined otherwise than when they were saved, or not there: their online
            rows have to be written anew, see `rows`.
        backfills: those that lack state which `graft` can give.

    Raises:
        DefinitionError: two views have one name.
    """

    def __init__(
        self, source: Source, views: Iterable[Any], *, live: bool = False, partitions: Iterable[int] = ()
    ) -> None:
        self.source = source
        self.views: tuple[ViewDefinition, ...] = tuple(definition(view) for view in views)
        names = [view.name for view in self.views]
        for name in names:
            if names.count(name) > 1:
                raise DefinitionError(f"Two views are named '{name}'. Give one of them another name, with name='...'.")
        self._columns = tuple(dict.fromkeys(name for view in self.views for name in view.event_columns))
        self._live = live
        self._unsettled = 0
        self._settled_at = BEGINNING
        self._admission = Admission(source, partitions, live=live)
        self._operators = {view.name: ShardOperator(view) for view in self.views}
        self.changed: tuple[str, ...] = ()
        self.backfills: tuple[str, ...] = ()
        self._fresh: tuple[str, ...] = ()

    @property
    def newest_us(self) -> int | None:
        """Newest event taken, microseconds; None before the first."""
        return self._admission.newest

    @property
    def clock_us(self) -> int:
        """The latest instant the flow was told."""
        return max((op.clock_us for op in self._operators.values()), default=BEGINNING)

    @property
    def watermark_us(self) -> int | None:
        """No event before it is taken any more; None before the first event."""
        return self._admission.watermark()

    @property
    def entities(self) -> dict[str, int]:
        """Entities in memory, by view."""
        return {name: op.entities for name, op in self._operators.items()}

    @property
    def waiting(self) -> int:
        """Events that wait for the watermark, over all views."""
        return sum(op.waiting for op in self._operators.values())

    def push(self, batch: EventBatch, clock_us: int | None = None, wall_us: int | None = None) -> Output:
        """Take a batch of decoded events.

        Args:
            batch: events in the order of their source.
            clock_us: the flow's clock, microseconds; None: the newest event (a replay).
            wall_us: the wall clock, which far-future events are judged by where the source sets no `max_ahead`;
            None: not
                judged then.
        """
        admitted = self._admission.admit(batch, clock_us, self._settled(), wall_us=wall_us)
        newest = self._admission.newest
        clock = max(t for t in (clock_us, newest, BEGINNING) if t is not None)
        online = {name: op.process(admitted.batch, clock) for name, op in self._operators.items()}
        return Output(
            online=_filled(online),
            log=self._settle_in_time(len(admitted.batch), clock_us),
            dead=admitted.dead,
            duplicates=admitted.duplicates,
            taken=len(admitted.batch),
            missing=self._missing(admitted.batch),
            batch=admitted.batch,
        )

    def push_judged(self, batch: EventBatch | None, heard: Mapping[int, int], clock_us: int | None = None) -> Output:
        """Take events that other flows have judged, one per source partition, and hear how far they have come.

        What is left to judge is an event that came twice by different partitions, and one behind the settled log.

        Args:
            batch: with the effective instants that they were given; None: no events.
            heard: newest event by source partition, microseconds; see `Admission.hear`.
            clock_us: as in `push`.
        """
        admitted = None if batch is None else self._admission.admit(_by_effect(batch), clock_us, self._settled())
        for partition, newest in heard.items():
            self._admission.hear(partition, newest, clock_us)
        clock = max(t for t in (clock_us, self._admission.newest, BEGINNING) if t is not None)
        if admitted is None:
            online = {name: op.advance(clock) for name, op in self._operators.items()} if clock > BEGINNING else {}
            return Output(online=_filled(online), log=self._settle_in_time(0, clock_us))
        taken = _by_time(admitted.batch, self.source.schema.time_field)
        online = {name: op.process(taken, clock) for name, op in self._operators.items()}
        return Output(
            online=_filled(online),
            log=self._settle_in_time(len(admitted.batch), clock_us),
            dead=admitted.dead,
            duplicates=admitted.duplicates,
            taken=len(taken),
            missing=self._missing(taken),
            batch=taken,
        )

    def advance(self, clock_us: int) -> Output:
        """Let time pass without events: values fall as their windows empty (contract C5)."""
        online = {name: op.advance(clock_us) for name, op in self._operators.items()}
        return Output(online=_filled(online), log=self._settle(clock_us) if self._live else {})

    def follow(self, clock_us: int) -> None:
        """After `load`: somebody has written rows as of instants up to `clock_us`; see `ShardOperator.follow`."""
        for op in self._operators.values():
            op.follow(clock_us)

    def tail(self) -> dict[str, pa.Table]:
        """By view, the log rows that would follow if no further event came; see `ShardOperator.tail`."""
        return {name: op.tail() for name, op in self._operators.items() if op.view.log}

    def settled_us(self) -> dict[str, int]:
        """By view, the instant before which the log is final."""
        return {name: op.watermark_us for name, op in self._operators.items()}

    def _missing(self, batch: EventBatch) -> dict[str, int]:
        counts = {name: len(batch) - int(batch.valid(name).sum()) for name in self._columns}
        return {name: count for name, count in counts.items() if count}

    def _settled(self) -> int | None:
        least = min((op.watermark_us for op in self._operators.values()), default=BEGINNING)
        return None if least == BEGINNING else least

    def _settle_in_time(self, events: int, clock_us: int | None) -> dict[str, pa.Table]:
        """Settle; a live flow not after every small batch, because the time it takes makes online rows late."""
        self._unsettled += events
        recently = clock_us is not None and clock_us - self._settled_at < SETTLE_US
        if self._live and recently and self._unsettled < SETTLE_EVENTS:
            return {}
        return self._settle(clock_us)

    def _settle(self, clock_us: int | None) -> dict[str, pa.Table]:
        self._unsettled = 0
        if clock_us is not None:
            self._settled_at = clock_us
        watermark = self._admission.watermark(clock_us)
        if watermark is None:
            return {}
        return _filled({name: op.settle(watermark) for name, op in self._operators.items()}, logged=self.views)

    def rows(self, clock_us: int) -> dict[str, pa.Table]:
        """By view, the online row of every entity in memory; see `ShardOperator.rows`."""
        return {name: op.rows(clock_us) for name, op in self._operators.items()}

    def save(self, full: bool = False) -> dict[str, SnapshotPart]:
        """State for a checkpoint, in parts by name; see `ShardOperator.save`.

        A part that is a delta continues the part of its name that was saved before: commit every one, in order.
        """
        source = self.source.name
        parts = {f"{source}.{name}": op.save(full) for name, op in self._operators.items()}
        return {f"{source}.{ADMISSION}": self._admission.save(full), **parts}

    def load(self, parts: Mapping[str, Sequence[bytes]], on_change: OnChange = "refuse") -> None:
        """Go on from the parts of a checkpoint, each a full one and the deltas after it.

        Afterwards `changed` and `backfills` tell what was not as it had been saved.

        Args:
            parts: the chains by name; those of other sources are not looked at.
            on_change: what to do where a view's definition has changed, or a view was not there: "refuse" it, or
                "start" what has no state empty. "backfill" does as "start"; `graft` then gives what is missing.

        Raises:
            SnapshotError: a part is damaged or missing, or of other views than these. The flow stays as it was.
        """
        source = self.source.name
        admission = Admission(self.source, live=self._live)
        admission.load(parts.get(f"{source}.{ADMISSION}", ()))
        read = {}
        for name, op in self._operators.items():
            chain = parts.get(f"{source}.{name}")
            if chain:
                read[name] = op.read(chain, on_change)
            elif on_change == "refuse":
                raise _not_there(name, source)
        changes = {name: op.adopt(read[name]) for name, op in self._operators.items() if name in read}
        fresh = tuple(name for name in self._operators if name not in read)
        self._admission = admission
        self._begin(fresh)
        self.changed = tuple(name for name in self._operators if name in fresh or changes[name] is not None)
        lacking = tuple(name for name, change in changes.items() if change is not None and change.added)
        self.backfills = (*lacking, *fresh) if on_change == "backfill" else ()
        self._fresh = fresh

    def graft(self, other: "SourceFlow") -> None:
        """Take the state that `backfills` names from a flow that was fed the history of the source.

        Call it before anything is pushed. Every entity in memory then states its values in the log anew; `rows` gives
        them for the online store.

        Args:
            other: a new flow of the same views, at least of those named, that has had every event of the source (or
                what is left of them) up to the very ones that this flow had when it was saved. It is used up.

        Raises:
            SnapshotError: `other` lacks a view, or has come further than this flow.
        """
        for name in self.backfills:
            theirs = other._operators.get(name)
            if theirs is None:
                raise SnapshotError(
                    f"View '{name}' is not in the flow that was fed history. Make it of the same views."
                )
            if name in self._fresh:
                theirs.succeed(self._operators[name])
                self._operators[name] = theirs
            else:
                self._operators[name].graft(theirs)
        self.backfills = ()

    def _begin(self, fresh: Sequence[str]) -> None:
        """Views that were not there take up the stream where the others are."""
        others = [op for name, op in self._operators.items() if name not in fresh]
        reached = max((op.watermark_us for op in others), default=self._admission.watermark() or BEGINNING)
        clock = max((op.clock_us for op in others), default=self._admission.newest or BEGINNING)
        for name in fresh:
            self._operators[name].begin_at(clock, reached)


def _by_effect(batch: EventBatch) -> EventBatch:
    """The events at the instants from which they count, which is what another judge has let them in for."""
    return EventBatch(batch.columns, batch.effective, batch.partition, batch.offset, batch.effective)


def _by_time(batch: EventBatch, time_field: str) -> EventBatch:
    """The events at their own times again."""
    return EventBatch(batch.columns, batch.values(time_field), batch.partition, batch.offset, batch.effective)


def _not_there(view: str, source: str) -> SnapshotError:
    return SnapshotError(
        f"View '{view}' is not in the checkpoint of source '{source}', which has been read already: it would miss all "
        'events until now. Say on_change="start" (--on-change start) to begin it empty, "backfill" to fill it from the '
        "history of the source first, or run it into another data folder."
    )


def _filled(tables: dict[str, pa.Table], logged: Iterable[ViewDefinition] | None = None) -> dict[str, pa.Table]:
    wanted = None if logged is None else {view.name for view in logged if view.log}
    return {n: t for n, t in tables.items() if t.num_rows and (wanted is None or n in wanted)}
