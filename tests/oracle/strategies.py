"""What Hypothesis draws: views over every window and aggregation, and streams with everything that goes wrong in them.

Instants and widths are small multiples of one drawn unit, give or take a microsecond, so that ties, hop edges and empty
windows turn up all the time rather than never.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.oracle.described import MISSING, Clock, Derived, Feature, Sent, Stream, View, Where, Window
from tests.oracle.exact import dtype_of

MINUTE = 60_000_000
DAY = 1440 * MINUTE
JANUARY = 1_767_225_600_000_000  # 2026-01-01T00:00Z
UNITS = (1, 7, 1_000, 1_000_000, MINUTE)
BASES = (JANUARY, JANUARY, 0, -DAY)

NUMERIC = ("amount", "units", "paid", "twice", "each", "more", "cheap")
ANY = ("amount", "units", "city", "paid")
TAKES: dict[str, tuple[str | None, ...]] = {
    "count": (None,),
    "sum": NUMERIC,
    "mean": NUMERIC,
    "min": ("amount", "units", "city"),
    "max": ("amount", "units", "city"),
    "var": NUMERIC,
    "std": NUMERIC,
    "first": ANY,
    "last": ANY,
    "first_n": ANY,
    "last_n": ANY,
    "distinct": ANY,
    "approx_distinct": ANY,
    "quantile": ("amount", "units"),
    "top_k": ("units", "city", "paid"),
    "decayed_sum": NUMERIC,
    "decayed_mean": NUMERIC,
    "custom": ("amount", "units"),
}
KINDS = tuple(TAKES)
COMPILED = ("count", "sum", "mean", "min", "max", "var", "std", "first", "last", "decayed_sum", "decayed_mean")

AMOUNTS: dict[str, tuple[float | None, ...]] = {
    "tame": (None, math.nan, 0.0, 0.1, 0.2, 0.3, 1.0, -1.0, 12.5, 1e-3),
    "cancelling": (None, 1e15, 1e15 + 0.5, 1e15 + 1.125, -1e15, 1e15 - 0.125, 0.1, 1.0),
    "same": (0.1, 0.1, 0.1, 0.1, None),
    "infinite": (None, 1.0, 2.5, math.inf, -math.inf, math.nan),
}
COUNTS: tuple[int | None, ...] = (None, 0, 1, 2, 3, -1, 2**53, 2**53 + 1, 2**62, -(2**62), 2**63 - 1)
CITIES = (None, "", "oslo", "rome", "ürümqi")


SHAPES = ("sliding", "sliding", "hopping", "tumbling", "current", "session", "last", "lifetime")


@st.composite
def windows(draw: st.DrawFn, unit: int) -> Window:
    kind = draw(
        st.sampled_from(("sliding", "sliding", "hopping", "tumbling", "current", "session", "last", "lifetime"))
    )
    ending = draw(st.sampled_from((0, 0, 0, 0, 1, 3))) * unit
    if kind == "last":
        return Window(kind, n=draw(st.integers(1, 4)), ending=ending)
    if kind == "lifetime":
        return Window(kind, ending=ending)
    if kind in ("tumbling", "current", "session"):
        return Window(kind, draw(st.sampled_from((1, 2, 3, 5))) * unit, ending=ending)
    hop = draw(st.sampled_from((1, 2, 3))) * unit
    if kind == "sliding" and draw(st.booleans()):
        return Window(kind, draw(st.sampled_from((1, 3, 5, 8))) * unit, 1, ending=ending)
    return Window(kind, draw(st.sampled_from((1, 2, 3, 5))) * hop, hop, ending=ending)


CONDITIONS = (
    Where("==", ("paid", True)),
    Where("!=", ("city", "rome")),
    Where(">", ("amount", 0.15)),
    Where("<=", ("units", 2)),
    Where("in", ("city", ("oslo", "rome"))),
    Where("null", ("amount",)),
    Where("not", (Where("==", ("paid", True)),)),
    Where("and", (Where(">", ("amount", 0.15)), Where("==", ("paid", True)))),
    Where("or", (Where("<", ("amount", 0.15)), Where("==", ("city", "oslo")))),
)


def parameters(kind: str, unit: int) -> st.SearchStrategy[dict[str, Any]]:
    if kind in ("first_n", "last_n"):
        return st.fixed_dictionaries({"n": st.integers(1, 3)})
    if kind == "distinct":
        return st.sampled_from(({}, {"limit": 2}))
    if kind == "quantile":
        return st.fixed_dictionaries(
            {"q": st.sampled_from((0.0, 0.25, 0.5, 0.55, 0.95, 1.0)), "error": st.sampled_from((0.01, 0.05))}
        )
    if kind == "top_k":
        return st.fixed_dictionaries({"k": st.integers(1, 3)})
    if kind in ("decayed_sum", "decayed_mean"):
        return st.fixed_dictionaries({"half_life": st.sampled_from((1, 4)).map(lambda n: n * unit)})
    return st.just({})


def default_of(kind: str, column: str | None) -> Any:
    """A default of the result's type, unlike any result."""
    if kind in ("count", "distinct", "approx_distinct"):
        return -7
    if kind in ("first_n", "last_n", "top_k", "custom"):
        return MISSING
    if kind in ("sum", "min", "max", "first", "last") and dtype_of(column) != "float64":
        if column == "paid" and kind in ("first", "last"):
            return False
        return "none" if column == "city" else -7
    return -7.5


@st.composite
def features(draw: st.DrawFn, name: str, unit: int, kinds: tuple[str, ...] = KINDS) -> Feature:
    kind = draw(st.sampled_from(kinds))
    column = draw(st.sampled_from(TAKES[kind]))
    by = None
    if draw(st.integers(0, 7)) == 0 and kind not in ("first_n", "last_n", "top_k", "custom", "decayed_sum"):
        by = draw(st.sampled_from([c for c in ("city", "units", "paid") if c != column]))
    default = default_of(kind, column) if by is None and draw(st.integers(0, 3)) == 0 else MISSING
    return Feature(
        name,
        kind,
        draw(windows(unit)),
        column,
        draw(st.sampled_from((None, None, *CONDITIONS))),
        by,
        draw(st.integers(1, 3)) if by is not None else 20,
        default,
        draw(parameters(kind, unit)),
    )


@st.composite
def streams(draw: st.DrawFn, unit: int) -> Stream:
    return Stream(
        lateness=draw(st.sampled_from((0, 1, 2, 10))) * unit,
        max_ahead=draw(st.sampled_from((None, None, 20 * unit))),
        dedup=draw(st.sampled_from((None, None, "id"))),
        late=draw(st.sampled_from(("dead_letter", "dead_letter", "count"))),
    )


@st.composite
def stateful(draw: st.DrawFn, name: str, unit: int, stream: Stream) -> Feature:
    """A feature of an object that learns: over the lifetime, or a session where nothing late counts."""
    window = Window("lifetime")
    if stream.late != "count" and draw(st.booleans()):
        window = Window("session", draw(st.sampled_from((1, 2, 3, 5))) * unit)
    return Feature(
        name,
        "stateful",
        window,
        draw(st.sampled_from(("amount", "units", "twice", "each"))),
        draw(st.sampled_from((None, None, *CONDITIONS))),
        default=draw(st.sampled_from((MISSING, MISSING, -7.5))),
    )


NUMBERS = ("count", "sum", "mean", "var", "std", "distinct", "decayed_sum", "decayed_mean")


def is_whole(feature: Feature) -> bool:
    """Whether a feature of one of the kinds `NUMBERS` is an integer."""
    return feature.kind in ("count", "distinct") or (feature.kind == "sum" and dtype_of(feature.column) != "float64")


@st.composite
def views(
    draw: st.DrawFn,
    unit: int,
    kinds: tuple[str, ...] = KINDS,
    most: int = 4,
    derived: bool = True,
    thinned: bool = True,
    stream: Stream | None = None,
) -> View:
    chosen: list[Feature | Derived] = [draw(features(f"f{i}", unit, kinds)) for i in range(draw(st.integers(1, most)))]
    numbers = [f for f in chosen if isinstance(f, Feature) and f.by is None and f.kind in NUMBERS]
    if derived and numbers and draw(st.booleans()):
        op, left, right = (draw(st.sampled_from(each)) for each in ("+-*/", numbers, numbers))
        default = -7 if op != "/" and is_whole(left) and is_whole(right) else -7.5
        chosen.append(Derived("d", op, left.name, right.name, draw(st.sampled_from((MISSING, default)))))
    return View(
        tuple(chosen),
        keys=draw(st.sampled_from((("who",), ("who",), ("who", "where_from")))),
        ttl=draw(st.sampled_from((None, None, 4 * unit))),
        log_every=draw(st.sampled_from((None, None, None, 3 * unit))) if thinned else None,
        stream=draw(streams(unit)) if stream is None else stream,
    )


@st.composite
def scripts(draw: st.DrawFn, unit: int, stream: Stream, most: int = 24, clocks: bool = True) -> list[Sent | Clock]:
    """Events in arrival order, with steps of the clock among them."""
    base = draw(st.sampled_from(BASES)) // unit * unit
    pool = AMOUNTS[draw(st.sampled_from(tuple(AMOUNTS)))]
    who = draw(st.sampled_from((("a",), ("a", "b"), ("a", "b", "c", "d", "e"))))
    partitions = draw(st.sampled_from((1, 1, 2, 3)))
    forward = (0, 0, 1, 1, 2, 3, 6)
    backward = (-1, -2, -5, -12) if stream.lateness else (-1,)
    steps = draw(st.sampled_from((forward, (*forward, *backward), (*forward, *forward, *backward, 60))))
    step = st.sampled_from(steps)
    jitter = st.sampled_from((0, 0, 0, -1, 1)) if unit > 1 else st.just(0)
    row = st.fixed_dictionaries(
        {
            "who": st.sampled_from(who),
            "where_from": st.sampled_from((1, 2)),
            "id": st.sampled_from((None, "p", "q", "r", "s")) if stream.dedup else st.just(None),
            "amount": st.sampled_from(pool),
            "units": st.sampled_from(COUNTS),
            "city": st.sampled_from(CITIES),
            "paid": st.sampled_from((None, True, False)),
        }
    )
    # The length is drawn by itself: lists of Hypothesis' own choosing are short.
    n = draw(st.integers(0, most))
    arrivals = draw(st.lists(st.tuples(step, jitter, row, st.integers(0, partitions - 1)), min_size=n, max_size=n))
    out: list[Sent | Clock] = []
    now = base
    offsets = [0] * partitions
    for delta, near, columns, partition in arrivals:
        time = now + delta * unit + near
        now = max(now, base + (time - base) // unit * unit) if delta < 60 else now
        out.append(Sent(time, columns, partition, offsets[partition]))
        offsets[partition] += 1
    for _ in range(draw(st.sampled_from((0, 0, 1, 3))) if clocks and out else 0):
        at = draw(st.integers(0, len(out)))
        before = max([step.time for step in out[:at]], default=base)
        out.insert(at, Clock(before + draw(st.sampled_from((-1, 0, 1, 4, 9))) * unit))
    return out


@st.composite
def questions(draw: st.DrawFn, unit: int, script: list[Sent | Clock], most: int = 6) -> list[int]:
    """Instants to ask at: around the events, on hop edges, and long after the last."""
    times = [step.time for step in script] or [0]
    offset = st.sampled_from((-3, -1, 0, 0, 1, 2, 3, 5, 8, 40)).map(lambda n: n * unit)
    one = st.builds(lambda t, o, j: t + o + j, st.sampled_from(times), offset, st.sampled_from((-1, 0, 0, 1)))
    return sorted(draw(st.lists(one, min_size=1, max_size=most)))


@st.composite
def cases(
    draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, most: int = 24, **view: Any
) -> tuple[int, View, list[Sent | Clock]]:
    """(unit, view, script)."""
    unit = draw(st.sampled_from(UNITS))
    drawn = draw(views(unit, kinds, **view))
    return unit, drawn, draw(scripts(unit, drawn.stream, most))


@st.composite
def shuffles(draw: st.DrawFn, events: list[Sent], lateness: int) -> list[Sent]:
    """Another arrival order of events in which none is late: each moves past others by less than `lateness`.

    Positions in the source stay with their events, so ties keep their order.
    """
    delays = draw(st.lists(st.integers(0, max(lateness, 0)), min_size=len(events), max_size=len(events)))
    arrival = sorted(range(len(events)), key=lambda i: (events[i].time + delays[i], i))
    return [replace(events[i]) for i in arrival]


cuts = st.lists(st.integers(0, 40), max_size=6)
"""Where a script is cut into batches, see `operator.cut`."""
