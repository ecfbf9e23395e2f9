"""From the definition of a view to the tables that the kernels interpret.

Features are sorted by what their window needs to keep:

    tiles of one hop         every sliding, hopping, tumbling and lifetime window of that hop shares them
    the n newest events      one group per (n, filter), because the n are counted after the filter
    sessions                 one group per (gap, filter), because the chain is of the filtered events

each once per `ending`. Inside a group equal ops are kept once: `count`, `mean` and a rate over the same rows share one
counter. Features whose state is not numeric (lists, sets, sketches, maps, the user's own) are *objects*: their
tiles live in objects.py, and the kernels only keep their time, through the group's counter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.features.columns import Expression, expr_key
from headrace.features.features import MISSING, AggregateFeature, DerivedFeature
from headrace.features.views import ViewDefinition
from headrace.features.windows import (
    HOPS,
    Hopping,
    LastN,
    Lifetime,
    Session,
    Sliding,
    Tumbling,
    Window,
)
from headrace.flows import lanes, results
from headrace.flows.state import COMPLETED, CURRENT, LAST_N, SESSION, SLIDING, TILES, UNBOUNDED, Tables

NUMERIC = ("int64", "float64", "bool", "timestamp")
FORGET_HALF_LIVES = 64  # a decaying value has shrunk below 1e-19 of itself; it is not rewritten any more


@dataclass(frozen=True)
class Mask:
    """Which events an op takes: those for which one of `wheres` is true (none given: all) and `column` is present.

    since: the generation of the features that ask (see `compile_view`); an event that waited when that generation
        began is not taken.
    """

    wheres: tuple[Expression, ...]
    column: Expression | None
    since: int = 0

    def key(self) -> tuple[object, ...]:
        column = None if self.column is None else expr_key(self.column)
        return tuple(expr_key(w) for w in self.wheres), column, self.since


@dataclass(frozen=True)
class NumericResult:
    """A feature that the kernels compute, in the order of the results table."""

    name: str
    dtype: str


@dataclass(frozen=True)
class ObjectResult:
    """A feature whose state is a Python object. `rows`: the mask of the events that pass its filter."""

    name: str
    feature: AggregateFeature
    rows: int
    hidden: bool


@dataclass(frozen=True)
class Plan:
    """How one view is computed.

    inputs: the expressions that become columns of an (n, inputs) float64 block; `whole[i]` says that column i holds
        int64 bits.
    masks: the columns of an (n, masks) uint8 block; each group of the tables names the one of the events it takes.
    groups: by group of the tables, what makes it the group it is, its generation last.
    since: generations by feature, see `compile_view`.
    relevant: masks of which one must be set for the event to concern the view at all (spec: an event that no feature
        takes leaves no trace).
    candidates: rows in which no public number changed are wanted too, because something computed from them might have.
    """

    view: ViewDefinition
    tables: Tables
    inputs: tuple[Expression, ...]
    whole: tuple[bool, ...]
    masks: tuple[Mask, ...]
    groups: tuple[tuple[object, ...], ...]
    since: Mapping[str, int]
    relevant: tuple[int, ...]
    numbers: tuple[NumericResult, ...]
    objects: tuple[ObjectResult, ...]
    derived: tuple[str, ...]
    candidates: bool
    back_lanes: int
    entry_lanes: int
    pends: bool

    def hidden(self, name: str) -> bool:
        """Whether a feature is an operand that rows do not show."""
        return any(n.hidden for n in self.view.features if n.name == name)


@dataclass
class _Group:
    kind: int
    hop: int
    delay: int
    param: int
    pends: bool
    where: Expression | None
    since: int
    windows: list[tuple[int, int]]  # (mode, exit)
    ops: list[tuple[int, int, int, float]]  # (code, input, mask, half-life)
    wheres: list[Expression | None]

    def window(self, mode: int, leaves: int) -> int:
        if (mode, leaves) not in self.windows:
            self.windows.append((mode, leaves))
        return self.windows.index((mode, leaves))

    def op(self, code: int, column: int, mask: int, half_life: float = 0.0) -> int:
        made = (code, column, mask, half_life)
        if made not in self.ops:
            self.ops.append(made)
        return self.ops.index(made)


class _Compiler:
    def __init__(self, view: ViewDefinition, since: Mapping[str, int]) -> None:
        self.view = view
        self.since = since
        self.groups: dict[tuple[object, ...], _Group] = {}
        self.inputs: dict[tuple[object, ...], int] = {}
        self.input_columns: list[tuple[Expression, bool]] = []
        self.masks: dict[tuple[object, ...], int] = {}
        self.mask_list: list[Mask] = []

    def input(self, column: Expression, whole: bool) -> int:
        key = (expr_key(column), whole)
        if key not in self.inputs:
            self.inputs[key] = len(self.input_columns)
            self.input_columns.append((column, whole))
        return self.inputs[key]

    def mask(self, wheres: Iterable[Expression | None], column: Expression | None, since: int) -> int:
        chosen = list(wheres)
        unique = {} if any(w is None for w in chosen) else {expr_key(w): w for w in chosen if w is not None}
        made = Mask(tuple(unique.values()), column, since)
        key = made.key()
        if key not in self.masks:
            self.masks[key] = len(self.mask_list)
            self.mask_list.append(made)
        return self.masks[key]

    def group(self, window: Window, where: Expression | None, since: int) -> tuple[_Group, int]:
        """The group that keeps `window` for features of a generation, and the index of the window in it."""
        delay = window.ending_us
        kind, hop, param, mode, leaves, needs_filter = TILES, 0, 0, UNBOUNDED, 0, False
        if isinstance(window, Sliding):
            hop, mode, leaves = window.hop_us, SLIDING, window.width_us
        elif isinstance(window, Hopping):
            hop, mode, leaves = window.hop_us, COMPLETED, window.width_us
        elif isinstance(window, Tumbling):
            hop, mode, leaves = window.width_us, COMPLETED, window.width_us
            if window.current:
                mode, leaves = CURRENT, 0
        elif isinstance(window, Session):
            kind, param, needs_filter = SESSION, window.gap_us, True
        elif isinstance(window, LastN):
            kind, param, needs_filter = LAST_N, window.n, True
        elif not isinstance(window, Lifetime):
            raise TypeError(f"{window!r} is not a window of headrace.features.windows")
        pends = delay > 0 and mode != COMPLETED
        key = (kind, hop, delay, param, pends, expr_key(where) if needs_filter and where is not None else None, since)
        made = self.groups.get(key)
        if made is None:
            made = self.groups[key] = _Group(
                kind, hop, delay, param, pends, where if needs_filter else None, since, [], [], []
            )
        made.wheres.append(where)
        return made, made.window(mode, leaves)


_SIMPLE = {
    "sum": (results.SUM_FLOAT, lanes.SUM_F, results.SUM_INT, lanes.SUM_I),
    "mean": (results.MEAN_FLOAT, lanes.SUM_F, results.MEAN_INT, lanes.SUM_I),
    "min": (results.EXTREME, lanes.MIN_F, results.EXTREME, lanes.MIN_I),
    "max": (results.EXTREME, lanes.MAX_F, results.EXTREME, lanes.MAX_I),
    "first": (results.ENDPOINT, lanes.FIRST, results.ENDPOINT, lanes.FIRST),
    "last": (results.ENDPOINT, lanes.LAST, results.ENDPOINT, lanes.LAST),
}
_AS_FLOAT = {
    "var": (results.VARIANCE, lanes.MOMENTS),
    "std": (results.DEVIATION, lanes.MOMENTS),
    "decayed_sum": (results.DECAYED_SUM, lanes.DECAY),
    "decayed_mean": (results.DECAYED_MEAN, lanes.DECAY),
}


def is_numeric(feature: AggregateFeature) -> bool:
    """Whether the kernels can compute `feature`: a count, or arithmetic on numbers."""
    if feature.by is not None:
        return False
    kind = feature.agg.kind
    if kind == "count":
        return True
    return (kind in _SIMPLE or kind in _AS_FLOAT) and feature.column is not None and feature.column.dtype in NUMERIC


def compile_view(view: ViewDefinition, *, plain: bool = False, since: Mapping[str, int] | None = None) -> Plan:
    """The plan of a view. Equal definitions give equal plans.

    Args:
        plain: every feature is an object feature.
        since: by feature, its generation; 0 where it is not named. Features that were added to a running view are of
            a later generation than the others and share no tiles with them: theirs hold less.
    """
    c = _Compiler(view, since or {})
    found: list[tuple[_Group, int, int, int, int, AggregateFeature, str, bool]] = []
    objects: list[ObjectResult] = []
    derived = []
    hidden_feeds = False
    for named in view.features:
        feature = named.feature
        if isinstance(feature, DerivedFeature):
            derived.append(named.name)
            continue
        hidden_feeds |= named.hidden
        age = c.since.get(named.name, 0)
        group, window = c.group(feature.window, feature.where, age)
        inputs = group.op(lanes.COUNT, 0, c.mask([feature.where], feature.column, age))
        if plain or not is_numeric(feature):
            objects.append(ObjectResult(named.name, feature, c.mask([feature.where], None, age), named.hidden))
            continue
        code, op = results.COUNTED, inputs
        kind = feature.agg.kind
        if kind != "count":
            assert feature.column is not None
            mask = c.mask([feature.where], feature.column, age)
            whole = feature.column.dtype != "float64"
            if kind in _SIMPLE:
                for_float, float_op, for_int, int_op = _SIMPLE[kind]
                code = for_int if whole else for_float
                op = group.op(int_op if whole else float_op, c.input(feature.column, whole), mask)
            else:
                code, lane = _AS_FLOAT[kind]
                half_life = float(getattr(feature.agg, "half_life_us", 0))
                op = group.op(lane, c.input(feature.column, False), mask, half_life)
        found.append((group, window, code, op, inputs, feature, named.name, named.hidden))
    return _assemble(c, found, objects, tuple(derived), bool(objects) or hidden_feeds)


def _assemble(
    c: _Compiler,
    found: list[tuple[_Group, int, int, int, int, AggregateFeature, str, bool]],
    objects: list[ObjectResult],
    derived: tuple[str, ...],
    candidates: bool,
) -> Plan:
    groups = list(c.groups.values())
    ops: list[tuple[int, int, int, int]] = []
    half_life: list[float] = []
    group_rows: list[tuple[int, ...]] = []
    window_rows: list[tuple[int, ...]] = []
    relevant: list[int] = []
    first_op: list[int] = []
    first_window: list[int] = []
    lane_of: list[list[int]] = []
    back = entry = 0
    for g, group in enumerate(groups):
        first_op.append(len(ops))
        first_window.append(len(window_rows))
        at = 0
        lane_of.append([])
        for code, column, mask, half in group.ops:
            ops.append((code, column, mask, at))
            half_life.append(half)
            lane_of[g].append(at)
            at += lanes.WIDTH[code]
        longest = max(range(len(group.windows)), key=lambda w: (group.windows[w][0] == UNBOUNDED, group.windows[w][1]))
        takes = c.mask(group.wheres, None, group.since)
        relevant.append(takes)
        for w, (mode, leaves) in enumerate(group.windows):
            window_rows.append((g, mode, leaves, back, at * (w + 1)))
            back += at
        entry = max(entry, at * (len(group.windows) + 1))
        group_rows.append(
            (
                group.kind,
                group.hop,
                group.delay,
                first_op[g],
                len(ops),
                at,
                takes,
                int(group.pends),
                first_window[g],
                len(window_rows),
                group.param,
                first_window[g] + longest,
            )
        )
    index = {id(group): g for g, group in enumerate(groups)}
    found.sort(key=lambda f: (index[id(f[0])], f[1]))  # so that a window's lanes are folded once for all its results
    rows, defaults, numbers = [], [], []
    hops = []
    for group, window, code, op, inputs, feature, name, hidden in found:
        g = index[id(group)]
        default = feature.default
        rows.append(
            (
                code,
                first_window[g] + window,
                lane_of[g][op],
                lane_of[g][inputs],
                results.NO_DEFAULT if default is MISSING else results.NULL if default is None else results.VALUE,
                # A hidden sum that decays stands for what is derived from it, which moves with every instant.
                int(hidden and code != results.DECAYED_SUM),
                first_op[g] + op,
            )
        )
        dtype = feature.dtype
        defaults.append(0.0 if default is MISSING or default is None else _bits(default, dtype))
        numbers.append(NumericResult(name, dtype))
        if code == results.DECAYED_SUM:
            hops.append(half_life[first_op[g] + op])
    tables = Tables(
        ops=_table(ops, 4),
        half_life=np.array(half_life, dtype=np.float64),
        groups=_table(group_rows, 12),
        windows=_table(window_rows, 5),
        results=_table(rows, 7),
        defaults=np.array(defaults, dtype=np.float64),
        decay_hop=_decay_hop(min(hops)) if hops else 0,
        decay_until=int(min(max(hops) * FORGET_HALF_LIVES, 2.0**61)) if hops else 0,
    )
    return Plan(
        view=c.view,
        tables=tables,
        inputs=tuple(e for e, _ in c.input_columns),
        whole=tuple(w for _, w in c.input_columns),
        masks=tuple(c.mask_list),
        groups=tuple(c.groups),
        since=c.since,
        relevant=tuple(dict.fromkeys(relevant)),
        numbers=tuple(numbers),
        objects=tuple(objects),
        derived=derived,
        candidates=candidates,
        back_lanes=back,
        entry_lanes=entry,
        pends=any(g.pends for g in groups),
    )


def _table(rows: Sequence[tuple[int, ...]], width: int) -> npt.NDArray[np.int64]:
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


def _bits(value: object, dtype: str) -> float:
    """The 8 bytes of a default value, read as float64."""
    if dtype == "float64":
        return float(value)  # type: ignore[arg-type]
    return float(np.array([int(value)], dtype=np.int64).view(np.float64)[0])  # type: ignore[call-overload]


def _decay_hop(half_life: float) -> int:
    """How often a decaying value is rewritten for readers that cannot decay it: the largest documented hop at most a
    sixtieth of the half-life, in which it falls by 1.2 % at the most."""
    fitting = [hop for hop in HOPS if hop * 60 <= half_life]
    return fitting[-1] if fitting else HOPS[0]
