"""Views over events that have been let in: an operator each, their detectors, and what a checkpoint holds of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from headrace.features.errors import DefinitionError
from headrace.features.sources import Source
from headrace.features.views import ViewDefinition, definition
from headrace.flows.batch import EventBatch
from headrace.flows.changes import OnChange
from headrace.flows.deadletter import DeadLetter
from headrace.flows.drift import DRIFT, Drift, DriftDetectors
from headrace.flows.saving import Restored
from headrace.flows.shard import BEGINNING, ShardOperator
from headrace.flows.snapshot import SnapshotError
from headrace.stores.checkpoints import SnapshotPart

SETTLE_EVENTS = 1_000
SETTLE_US = 1_000_000
"""A live flow settles its log after so many events, or so many microseconds, and with each checkpoint."""


@dataclass(frozen=True)
class Output:
    """What came of one step.

    online, log: rows by view name; views without rows are left out. dead: events that were not taken. duplicates:
    how many events had been taken before. taken: how many were let in. batch: those that were let in. drifts: what the
    views' detectors found in rows that settled.
    """

    online: dict[str, pa.Table] = field(default_factory=dict)
    log: dict[str, pa.Table] = field(default_factory=dict)
    dead: Sequence[DeadLetter] = ()
    duplicates: int = 0
    taken: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    batch: EventBatch | None = None
    drifts: Sequence[Drift] = ()


ADMISSION = "-admission"
"""The part of a checkpoint that tells what was let in; no view has such a name."""


class Progress(Protocol):
    """How far the events of a flow have come."""

    @property
    def newest(self) -> int | None:
        """Time of the newest event, microseconds; None before the first."""

    def watermark(self, clock_us: int | None = None) -> int | None:
        """Instants below it get no further event; None: there is none yet."""

    def save(self, full: bool = False) -> SnapshotPart:
        """What a checkpoint holds of it."""

    def load(self, chain: Sequence[bytes]) -> None:
        """Go on from there. Raises SnapshotError where it is damaged or of another source."""


P = TypeVar("P", bound=Progress)


class ViewFlow(Generic[P]):
    """Views over the events of one source.

    Args:
        source: what the events are of.
        views: views or definitions over it, with names of their own; perhaps none.
        live: the clock is the one that it is given (the wall's), not the stream's.

    Attributes:
        changed: views that `load` found to be defined otherwise than when they were saved, or not there: their online
            rows have to be written anew, see `rows`.
        backfills: those that lack state which `graft` can give.

    Raises:
        DefinitionError: two views have one name.
    """

    def __init__(self, source: Source, views: Iterable[Any], progress: P, live: bool) -> None:
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
        self._progress = progress
        self._operators = {view.name: ShardOperator(view) for view in self.views}
        self._detectors = DriftDetectors(self.views)
        self._drifts: list[Drift] = []
        self.changed: tuple[str, ...] = ()
        self.backfills: tuple[str, ...] = ()
        self._fresh: tuple[str, ...] = ()

    def _unread(self) -> P:
        """The progress of a flow that has taken nothing yet."""
        raise NotImplementedError

    @property
    def newest_us(self) -> int | None:
        """Newest event taken, microseconds; None before the first."""
        return self._progress.newest

    @property
    def clock_us(self) -> int:
        """The latest instant the flow was told."""
        return max((op.clock_us for op in self._operators.values()), default=BEGINNING)

    @property
    def watermark_us(self) -> int | None:
        """No event before it is taken any more; None before the first event."""
        return self._progress.watermark()

    @property
    def entities(self) -> dict[str, int]:
        """Entities in memory, by view."""
        return {name: op.entities for name, op in self._operators.items()}

    @property
    def waiting(self) -> int:
        """Events that wait for the watermark, over all views."""
        return sum(op.waiting for op in self._operators.values())

    def take_up(self, view: str, state: Restored | None) -> None:
        """A view goes on from state that was computed elsewhere, from the events that this flow let in; None: none of
        them concerned it."""
        newest, watermark = self.newest_us, self.watermark_us
        if state is not None:
            self._operators[view].adopt(state)
        elif newest is not None and watermark is not None:
            self._operators[view].begin_at(newest, watermark)

    def advance(self, clock_us: int) -> Output:
        """Let time pass without events: values fall as their windows empty (contract C5)."""
        online = {name: op.advance(clock_us) for name, op in self._operators.items()}
        log = self._settle_in_time(0, clock_us) if self._live else {}
        return Output(online=filled(online), log=log, drifts=self._found())

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
        counts = {name: batch.missing(name) for name in self._columns}
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

    def settle(self) -> Output:
        """Settle what waits because it was little: what is saved next stands where its events allow.

        A flow that is fed the same events again, for `graft`, must not settle further than that.
        """
        if self.newest_us is None or not self._operators:
            return Output()
        return Output(log=self._settle(self.clock_us if self._live else None), drifts=self._found())

    def _settle(self, clock_us: int | None) -> dict[str, pa.Table]:
        self._unsettled = 0
        if clock_us is not None:
            self._settled_at = clock_us
        watermark = self._progress.watermark(clock_us)
        if watermark is None:
            return {}
        settled = {name: op.settle(watermark) for name, op in self._operators.items()}
        if self._detectors:
            for name, rows in settled.items():
                self._drifts += self._detectors.look(name, rows)
        return filled(settled, logged=self.views)

    def _found(self) -> list[Drift]:
        """Drifts since the last time."""
        found, self._drifts = self._drifts, []
        return found

    def rows(self, clock_us: int) -> dict[str, pa.Table]:
        """By view, the online row of every entity in memory; see `ShardOperator.rows`."""
        return {name: op.rows(clock_us) for name, op in self._operators.items()}

    def save(self, full: bool = False) -> dict[str, SnapshotPart]:
        """State for a checkpoint, in parts by name; see `ShardOperator.save`.

        A part that is a delta continues the part of its name that was saved before: commit every one, in order.
        """
        source = self.source.name
        parts = {f"{source}.{name}": op.save(full) for name, op in self._operators.items()}
        if self._detectors:
            parts[f"{source}.{DRIFT}"] = SnapshotPart(self._detectors.save())
        return {f"{source}.{ADMISSION}": self._progress.save(full), **parts}

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
        progress = self._unread()
        progress.load(parts.get(f"{source}.{ADMISSION}", ()))
        read = {}
        for name, op in self._operators.items():
            chain = parts.get(f"{source}.{name}")
            if chain:
                read[name] = op.read(chain, on_change)
            elif on_change == "refuse":
                raise _not_there(name, source)
        if self._detectors and parts.get(f"{source}.{DRIFT}"):
            self._detectors.load(parts[f"{source}.{DRIFT}"][-1])
        changes = {name: op.adopt(read[name]) for name, op in self._operators.items() if name in read}
        fresh = tuple(name for name in self._operators if name not in read)
        self._progress = progress
        self._begin(fresh)
        self.changed = tuple(name for name in self._operators if name in fresh or changes[name] is not None)
        lacking = tuple(name for name, change in changes.items() if change is not None and change.added)
        self.backfills = (*lacking, *fresh) if on_change == "backfill" else ()
        self._fresh = fresh

    def graft(self, other: "ViewFlow[Any]") -> None:
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
        reached = max((op.watermark_us for op in others), default=self._progress.watermark() or BEGINNING)
        clock = max((op.clock_us for op in others), default=self._progress.newest or BEGINNING)
        for name in fresh:
            self._operators[name].begin_at(clock, reached)


def _not_there(view: str, source: str) -> SnapshotError:
    return SnapshotError(
        f"View '{view}' is not in the checkpoint of source '{source}', which has been read already: it would miss all "
        'events until now. Say on_change="start" (--on-change start) to begin it empty, "backfill" to fill it from the '
        "history of the source first, or run it into another data folder."
    )


def filled(tables: dict[str, pa.Table], logged: Iterable[ViewDefinition] | None = None) -> dict[str, pa.Table]:
    wanted = None if logged is None else {view.name for view in logged if view.log}
    return {n: t for n, t in tables.items() if t.num_rows and (wanted is None or n in wanted)}
