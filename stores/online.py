"""Online stores: the newest row of each entity, for serving. What every one of them promises.

A store never puts an older row over a newer one: a row is written when its `event_timestamp` is at or after that of the
row there (equal overwrites, since a corrected row is as of the same instant). Rows are absolute values, so writing one
twice changes nothing. A batch is written as a whole: a reader sees all of it or none.

`OnlineStoreSuite` (headrace.stores.testing) holds these rules as tests; each store runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from headrace.features.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

View: TypeAlias = Any
"""A feature view: its class or its definition."""

Key: TypeAlias = Mapping[str, Any]
"""Key column -> value."""

ClockKind: TypeAlias = Literal["wall", "stream"]


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

    def scan(self, view: View) -> Iterator[tuple[dict[str, Any], StoredRow]]:
        """Every entity's key and row as of one moment, ordered by the key's bytes."""
        ...

    def delete(self, view: View, keys: Sequence[Key]) -> int:
        """Forget these entities; returns how many there were."""
        ...

    def drop(self, name: str) -> None:
        """Forget a view, given by name, so that another definition of it can be written."""
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
