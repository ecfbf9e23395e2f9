"""Windows: which events a feature covers when it is asked at an instant t (contract C2).

    Sliding(W, hop=h)       (floor((t - W) / h) * h, t]    never misses an event of the last W; at most h of older ones
    Sliding(W, exact=True)  (t - W, t]                     the same formula with a hop of one microsecond Hopping(W,
    hop=h)       (b - W, b], b = floor(t/h)*h   the newest completed window Tumbling(W)             hopping with h = W;
    current=True: (b, t], the one still open Session(gap)            the chain of events, each less than gap after the
    one before, whose last lies in (t - gap, t] LastN(n)                the n newest events at or before t Lifetime()
    every event at or before t ending=o                any of these, asked at t - o

All fields are integer microseconds. Windows are plain values: they compare, hash and print as the code that makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from headrace.features.errors import DefinitionError
from headrace.features.time import DAY, HOUR, MILLISECOND, MINUTE, SECOND, duration_us, format_duration

Duration: TypeAlias = "str | timedelta"

HOPS = (
    MILLISECOND,
    10 * MILLISECOND,
    100 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
)
"""The hops that a sliding window may get by default, in microseconds, ascending."""

EXACT_HOP_US = 1
"""A hop of one microsecond: the integer form of "exact"."""


def default_hop_us(width_us: int) -> int:
    """The hop of a sliding window that names none: the largest of `HOPS` that is at most W/60 and divides W.

    So a window is kept in at least 60 tiles and its error bound is at most 1/60 of it. A window under 60 ms, or one
    that no such hop divides, is exact.

    >>> from headrace.features.time import HOUR, MINUTE, DAY
    >>> [default_hop_us(w) // MINUTE for w in (HOUR, 3 * HOUR, DAY, 7 * DAY)]
    [1, 2, 15, 120]
    """
    for hop in reversed(HOPS):
        if hop * 60 <= width_us and width_us % hop == 0:
            return hop
    return EXACT_HOP_US


@dataclass(frozen=True, init=False, repr=False)
class Sliding:
    """The last `width`, moving on with every `hop` (default: see `default_hop_us`) or with every microsecond (`exact`).

    Attributes:
        width_us: W.
        hop_us: h; 1 when exact.
        ending_us: the window is asked this much before t.

    >>> Sliding("1h"), Sliding("1h", exact=True), Sliding("1h", ending="1d ago").label
    (Sliding('1h', hop='1m'), Sliding('1h', exact=True), '1h_ending_1d')
    """

    width_us: int
    hop_us: int
    ending_us: int = 0

    def __init__(
        self, width: Duration, hop: Duration | None = None, exact: bool = False, ending: Duration | None = None
    ) -> None:
        width_us = _positive(width, "last")
        if hop is not None and exact:
            raise DefinitionError(
                f"Sliding window of {format_duration(width_us)}: got both hop={hop!r} and exact=True. "
                "An exact window has no hop; drop one of the two."
            )
        if exact:
            hop_us = EXACT_HOP_US
        elif hop is None:
            hop_us = default_hop_us(width_us)
        else:
            hop_us = _hop(hop, width_us, "Sliding")
        _set(self, width_us=width_us, hop_us=hop_us, ending_us=_ending(ending))

    @property
    def exact(self) -> bool:
        return self.hop_us == EXACT_HOP_US

    @property
    def label(self) -> str:
        """The part of a feature's name that names the window."""
        return format_duration(self.width_us) + _ending_label(self.ending_us)

    @property
    def error_bound_us(self) -> int:
        """How much older than `width` an event in the window can be; 0 when exact."""
        return 0 if self.exact else self.hop_us

    def __repr__(self) -> str:
        hop = "exact=True" if self.exact else f"hop={format_duration(self.hop_us)!r}"
        return f"Sliding({format_duration(self.width_us)!r}, {hop}{_ending_repr(self.ending_us)})"


@dataclass(frozen=True, init=False, repr=False)
class Hopping:
    """The newest completed window of `width` that ends on a multiple of `hop` since the epoch.

    >>> Hopping("1h", hop="15m").label
    'hopping_1h_15m'
    """

    width_us: int
    hop_us: int
    ending_us: int = 0

    def __init__(self, width: Duration, hop: Duration, ending: Duration | None = None) -> None:
        width_us = _positive(width, "width")
        _set(self, width_us=width_us, hop_us=_hop(hop, width_us, "Hopping"), ending_us=_ending(ending))

    @property
    def label(self) -> str:
        return f"hopping_{format_duration(self.width_us)}_{format_duration(self.hop_us)}{_ending_label(self.ending_us)}"

    @property
    def error_bound_us(self) -> int:
        return 0

    def __repr__(self) -> str:
        width, hop = format_duration(self.width_us), format_duration(self.hop_us)
        return f"Hopping({width!r}, hop={hop!r}{_ending_repr(self.ending_us)})"


@dataclass(frozen=True, init=False, repr=False)
class Tumbling:
    """The newest completed window of `width`, or with `current=True` the one still filling: (b, t].

    Windows end on multiples of `width` since the epoch, UTC: days end at midnight UTC.

    >>> Tumbling("1d").label, Tumbling("1d", current=True).label
    ('tumbling_1d', 'tumbling_1d_current')
    """

    width_us: int
    current: bool = False
    ending_us: int = 0

    def __init__(self, width: Duration, current: bool = False, ending: Duration | None = None) -> None:
        _set(self, width_us=_positive(width, "width"), current=bool(current), ending_us=_ending(ending))

    @property
    def hop_us(self) -> int:
        return self.width_us

    @property
    def label(self) -> str:
        current = "_current" if self.current else ""
        return f"tumbling_{format_duration(self.width_us)}{current}{_ending_label(self.ending_us)}"

    @property
    def error_bound_us(self) -> int:
        return 0

    def __repr__(self) -> str:
        current = ", current=True" if self.current else ""
        return f"Tumbling({format_duration(self.width_us)!r}{current}{_ending_repr(self.ending_us)})"


@dataclass(frozen=True, init=False, repr=False)
class Session:
    """The running session: events less than `gap` apart, open as long as its last lies in (t - gap, t].

    It runs over the rows that pass `where=`.

    >>> Session("30m").label
    'session_30m'
    """

    gap_us: int
    ending_us: int = 0

    def __init__(self, gap: Duration, ending: Duration | None = None) -> None:
        _set(self, gap_us=_positive(gap, "gap"), ending_us=_ending(ending))

    @property
    def label(self) -> str:
        return f"session_{format_duration(self.gap_us)}{_ending_label(self.ending_us)}"

    @property
    def error_bound_us(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"Session({format_duration(self.gap_us)!r}{_ending_repr(self.ending_us)})"


@dataclass(frozen=True, init=False, repr=False)
class LastN:
    """The `n` newest events at or before t, of the rows that pass `where=`; rows whose value is null are among the n.

    >>> LastN(10).label
    'last_10'
    """

    n: int
    ending_us: int = 0

    def __init__(self, n: int, ending: Duration | None = None) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise DefinitionError(f"LastN: n must be a whole number of at least 1, got {n!r}. Write LastN(10).")
        _set(self, n=n, ending_us=_ending(ending))

    @property
    def label(self) -> str:
        return f"last_{self.n}{_ending_label(self.ending_us)}"

    @property
    def error_bound_us(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"LastN({self.n}{_ending_repr(self.ending_us)})"


@dataclass(frozen=True, init=False, repr=False)
class Lifetime:
    """Every event at or before t.

    >>> Lifetime().label
    'lifetime'
    """

    ending_us: int = 0

    def __init__(self, ending: Duration | None = None) -> None:
        _set(self, ending_us=_ending(ending))

    @property
    def label(self) -> str:
        return f"lifetime{_ending_label(self.ending_us)}"

    @property
    def error_bound_us(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"Lifetime({_ending_repr(self.ending_us).removeprefix(', ')})"


Window: TypeAlias = Sliding | Hopping | Tumbling | Session | LastN | Lifetime
WINDOWS = (Sliding, Hopping, Tumbling, Session, LastN, Lifetime)


def _set(window: object, **fields: int | bool) -> None:
    for name, value in fields.items():
        object.__setattr__(window, name, value)


def _positive(value: Duration, name: str) -> int:
    us = duration_us(value, name)
    if us == 0:
        raise DefinitionError(f"{name}: a window of zero length holds no event. Give a longer one, such as '30m'.")
    return us


def _ending(value: Duration | None) -> int:
    return 0 if value is None else duration_us(value, "ending")


def _hop(hop: Duration, width_us: int, kind: str) -> int:
    hop_us = _positive(hop, "hop")
    if width_us % hop_us:
        raise DefinitionError(
            f"{kind} window of {format_duration(width_us)}: it is not a multiple of its hop {format_duration(hop_us)}. "
            f"Choose a hop that divides it, such as {_nearest_divisors(width_us, hop_us)}."
        )
    return hop_us


def _nearest_divisors(width_us: int, hop_us: int) -> str:
    dividing = [hop for hop in HOPS if width_us % hop == 0 and hop <= width_us] or [width_us]
    nearest = sorted(sorted(dividing, key=lambda hop: abs(hop - hop_us))[:2])
    return " or ".join(f"'{format_duration(hop)}'" for hop in nearest)


def _ending_label(ending_us: int) -> str:
    return f"_ending_{format_duration(ending_us)}" if ending_us else ""


def _ending_repr(ending_us: int) -> str:
    return f", ending={format_duration(ending_us)!r}" if ending_us else ""
