"""Online stores: the newest row of each entity, for serving. What every one of them promises.

A store never puts an older row over a newer one: a row is written when its `event_timestamp` is at or after that of the
row there (equal overwrites, since a corrected row is as of the same instant). Rows are absolute values, so writing one
twice changes nothing. A batch is written as a whole: a reader sees all of it or none.

A flow that can die and start again writes as a named writer with an epoch and a position (`PositionedStore`): the store
then tells a restarted flow how far its rows had come, refuses one that was replaced, and notices that it lost data.

`OnlineStoreSuite` and `PositionedStoreSuite` (headrace.stores.testing) hold these rules as tests; each store runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from headrace.features.errors import DataError
from headrace.stores.errors import FencedError, StoreError

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.stores.lookups import Ask, Looked

View: TypeAlias = Any
"""A feature view: its class or its definition."""

Key: TypeAlias = Mapping[str, Any]
"""Key column -> value."""

ClockKind: TypeAlias = Literal["wall", "stream"]

Written: TypeAlias = Literal["written", "fenced", "lost"]
"""What became of a portion.

written: all of it is in the store.
fenced: a later epoch has taken the writer over; nothing was written, and this run must stop writing.
lost: the store no longer holds what this object wrote last: it was emptied, restarted without its newest data, or
failed over to a replica that lagged; nothing was written. Call `take_over` again and write every row anew.
"""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row of a view as a store keeps it.

    Attributes:
        values: feature -> value, in the order of the definition; instants as integer microseconds, null as None.
        event_timestamp_us: the instant the values are as of.
        newest_event_us: the newest event of the entity that the view took.
    """

    values: dict[str, Any]
    event_timestamp_us: int
    newest_event_us: int


class Clock(NamedTuple):
    """Up to which instant the flow that writes a store has brought its rows.

    Attributes:
        us: the instant, microseconds UTC.
        kind: "wall" when a live flow writes: time goes on by itself. "stream" when a replay wrote: time stands there.
    """

    us: int
    kind: ClockKind


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows of one writer and how far they bring it.

    Attributes:
        writer: its name, such as the name of a part of the log.
        epoch: the run of the writer, greater for every new one.
        position: the next offset after all that these rows and those before took in.
        clock_us: the greatest instant that any row of this writer is as of, microseconds; the store keeps the greatest.
        rows: view and table (columns as in layout.py), any number; none just moves the position.
    """

    writer: str
    epoch: int
    position: int
    clock_us: int
    rows: Sequence[tuple[View, pa.Table]] = ()


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a writer's rows in a store have come.

    Attributes:
        position: of its newest portion.
        clock_us: the greatest of all its portions. Clocks of hosts differ: whoever goes on with the work writes its
            rows as of this instant or later, or they would count as older than those there.
    """

    position: int
    clock_us: int


def filling_prefix(view: str) -> str:
    """How the names of the writers begin that say how far a view was filled from a log.

    >>> filling_prefix("driver_activity")
    'materialize/driver_activity/'
    """
    return f"materialize/{view}/"


class OnlineStore(Protocol):
    """The newest row per entity of several views."""

    def write(self, view: View, rows: pa.Table) -> int:
        """Write rows (columns as in layout.py); returns how many were not older than what is there.

        Of several rows of one entity the newest stays, of equally new ones the last.

        Raises:
            SchemaMismatchError: the rows lack columns, or the store holds rows that another definition of the view
                made.
        """
        ...

    def read(self, view: View, keys: Sequence[Key]) -> list[StoredRow | None]:
        """The rows of these entities, in this order, all of one moment; None where there is none.

        Raises:
            SchemaMismatchError: the store holds rows that another definition of the view made.
            DataError: a key of another type.
        """
        ...

    def look_up(self, asks: Sequence[Ask]) -> Looked:
        """Some features of several views for many entities, with the clock, in one round trip; see lookups.py.

        Raises:
            SchemaMismatchError: the store holds rows that another definition of one of the views made.
        """
        ...

    def scan(self, view: View) -> Iterator[tuple[dict[str, Any], StoredRow]]:
        """Every entity's key and row as of one moment, ordered by the key's bytes."""
        ...

    def delete(self, view: View, keys: Sequence[Key]) -> int:
        """Forget these entities; returns how many there were."""
        ...

    def drop(self, name: str) -> None:
        """Forget a view, given by name, so that another definition of it can be written. What a `PositionedStore` knows
        of writers named `filling_prefix(name)...` goes with it."""
        ...

    def views(self) -> list[str]:
        """Names of the views that were written, sorted."""
        ...

    def set_clock(self, us: int, kind: ClockKind) -> None:
        """Say that every row is as of `us` or later; call it after the writes it speaks of. It never goes back within a
        kind."""
        ...

    def clock(self) -> Clock | None:
        """The clock last set; None before the first."""
        ...

    def close(self) -> None:
        """Release files; the store is not used after it."""
        ...


class PositionedStore(OnlineStore, Protocol):
    """An online store that remembers how far each writer has come, and lets one run of a writer write at a time."""

    def take_over(self, writer: str, epoch: int) -> Reached | None:
        """Become `writer` with this epoch: from now on earlier epochs are fenced.

        Returns:
            how far its rows had come; a row may be older than that, where a crash came between, never newer. None: it
            never wrote, or the store lost it. A position before the caller's own checkpoint also says that the store
            lost data: then every row is to be written anew.

        Raises:
            FencedError: a later epoch has taken the writer over.
        """
        ...

    def reached(self, writer: str) -> Reached | None:
        """How far a writer's rows have come, without taking it over; None: it never wrote, or the store lost it."""
        ...

    def forget_writers(self, prefix: str) -> int:
        """Forget every writer whose name begins with `prefix`, epoch and position; returns how many there were. Who
        writes as one of them meanwhile is told "lost"."""
        ...

    def migrate_view(self, view: View) -> list[str]:
        """Let this definition of a view take the place of the one that wrote its rows; again for the same one is fine.

        What is new or computed in another way reads as null until the rows are written anew; what is gone is left out.

        Returns:
            what changed, in words; nothing for a view that is not there or is of this definition.

        Raises:
            SchemaMismatchError: keys or the time column changed.
        """
        ...

    def write_portions(self, portions: Sequence[Portion]) -> list[Written]:
        """Write the portions in order; returns for each what became of it.

        The position is set no later than the first of the portion's rows is seen; each row is written by the rule of
        `write`. A reader may see part of a portion.

        Raises:
            StoreError: `take_over` was not called for a writer and its epoch.
            SchemaMismatchError: as `write`.
            UnreachableError: the store does not answer; make the same call again, until it does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Writer:
    """What a store keeps of a writer: its newest epoch, and how far it has come, None before the first portion."""

    epoch: int
    reached: Reached | None

    def after(self, portion: Portion) -> Writer:
        """What is kept once the portion was written."""
        clock = portion.clock_us if self.reached is None else max(portion.clock_us, self.reached.clock_us)
        return Writer(portion.epoch, Reached(portion.position, clock))


def taken_over(kept: Writer | None, writer: str, epoch: int, place: str) -> Writer:
    """What a store keeps of a writer after `take_over`. Raises FencedError when a later epoch has it."""
    if kept is not None and kept.epoch > epoch:
        raise fenced(place, writer, kept.epoch, epoch)
    return Writer(epoch, None if kept is None else kept.reached)


def fenced(place: str, writer: str, theirs: int, ours: int) -> FencedError:
    """The error of a run whose writer a later epoch has."""
    return FencedError(
        f"{place}: writer '{writer}' was taken over by epoch {theirs}, this run has epoch {ours}. Another process goes "
        "on with its work; stop this one."
    )


def not_held(place: str, portion: Portion) -> StoreError:
    """The error of a portion whose writer was not taken over."""
    return StoreError(
        f"{place}: writer '{portion.writer}' was not taken over with epoch {portion.epoch}. Call "
        f"take_over({portion.writer!r}, {portion.epoch}) first; it tells how far the rows there have come."
    )


def held(mine: Mapping[str, Writer], portion: Portion, place: str) -> Writer:
    """What this object wrote last of the portion's writer.

    Raises:
        StoreError: it did not take the writer over with this epoch.
    """
    found = mine.get(portion.writer)
    if found is None or found.epoch < portion.epoch:
        raise not_held(place, portion)
    return found


def judge(kept: Writer | None, mine: Writer, epoch: int) -> Written:
    """Whether a portion of `epoch` may be written, where the store keeps `kept` of the writer and this object wrote
    `mine` last."""
    if mine.epoch > epoch or (kept is not None and kept.epoch > epoch):
        return "fenced"
    if kept is None or kept.epoch < epoch:
        return "lost"
    if mine.reached is not None and (kept.reached is None or kept.reached.position < mine.reached.position):
        return "lost"
    return "written"


REMEDY = (
    "Write this definition to a store of its own, or drop the view's rows there (`store.drop({view!r})`) and fill it "
    "again by a replay or from the log."
)


def later_clock(old: Clock | None, us: int, kind: ClockKind) -> Clock:
    """The clock after `set_clock(us, kind)`: never back within a kind (contract C14)."""
    if kind not in ("wall", "stream"):
        raise DataError(f"set_clock: kind is {kind!r}, expected 'wall' or 'stream'.")
    if old is not None and old.kind == kind and old.us > us:
        return old
    return Clock(us, kind)
