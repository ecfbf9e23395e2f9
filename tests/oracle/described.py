"""Plain descriptions of views, sources and streams: what the oracle reads and what definitions.py translates.

Nothing here knows Headrace. Instants and durations are integer microseconds; an event is a dict of its columns beside
its event time and its place in the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()


@dataclass(frozen=True)
class Window:
    """What a feature looks at.

    `kind`: "sliding" (width, hop; hop 1 is exact), "hopping" (width, hop), "tumbling" (width), "current" (width),
    "session" (gap in `width`), "last" (`n` events), "lifetime".
    """

    kind: str
    width: int = 0
    hop: int = 1
    n: int = 0
    ending: int = 0


@dataclass(frozen=True)
class Where:
    """A predicate over one event.

    `op`: "==", "!=", "<", "<=", ">", ">=" (column, literal), "in" (column, tuple), "null" (column), "not" (Where,),
    "and" / "or" (Where, Where).
    """

    op: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Feature:
    """One aggregation of one column over one window.

    `kind` is the aggregation's name; `column` a column or one of `EXPRESSIONS`; `params` holds n, k, q, half_life,
    limit or error as it needs. A feature whose name begins with an underscore is hidden: derived features may read it,
    and nobody sees it.
    """

    name: str
    kind: str
    window: Window
    column: str | None = None
    where: Where | None = None
    by: str | None = None
    top: int = 20
    default: Any = MISSING
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Derived:
    """`op` ("+", "-", "*", "/") of two features of the view, by name."""

    name: str
    op: str
    left: str
    right: str
    default: Any = MISSING


@dataclass(frozen=True)
class Stream:
    """How a source judges its events: microseconds, the column of the event id, what becomes of late events."""

    lateness: int = 0
    max_ahead: int | None = None
    dedup: str | None = None
    late: str = "dead_letter"


@dataclass(frozen=True)
class View:
    """A feature view over events with the columns of `COLUMNS`; `keys` name the entity's columns."""

    features: tuple[Feature | Derived, ...]
    keys: tuple[str, ...] = ("who",)
    ttl: int | None = None
    log_every: int | None = None
    stream: Stream = Stream()


@dataclass(frozen=True)
class Sent:
    """One event as it arrives."""

    time: int
    columns: Mapping[str, Any]
    partition: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Clock:
    """A step of a script: the flow's clock reaches `time` with no event."""

    time: int


# The columns every described event has, with their types; all but the keys and the id may be null.
COLUMNS: Mapping[str, str] = {
    "who": "string",
    "where_from": "int64",
    "id": "string",
    "amount": "float64",
    "units": "int64",
    "city": "string",
    "paid": "bool",
}

# Inputs computed from columns, each with its type: an operator and two operands, columns or literals.
EXPRESSIONS: Mapping[str, tuple[str, str, str | float, str | float]] = {
    "twice": ("float64", "*", "amount", 2.0),
    "each": ("float64", "/", "amount", "units"),
    "more": ("int64", "+", "units", "units"),
    "cheap": ("bool", "<", "amount", 0.25),
}


def happened(time: int, partition: int = 0, offset: int = 0, **columns: Any) -> Sent:
    """An event of entity "a" with all other columns null but those given."""
    blank: dict[str, Any] = {**dict.fromkeys(COLUMNS), "who": "a", "where_from": 1}
    return Sent(time, blank | columns, partition, offset)
