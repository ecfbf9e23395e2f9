"""Between the columns that the kernels work on and records of slots.

Of each group the records have a list of the same name: its entries, with their places and the lanes of each op. Of each
window `group/window/suffix` is a list of the suffix lanes of the entries in its front stack, and `group/window/back`
one of its back lanes, if it has any: what lies in other lanes means nothing. `group/pending` are the events that wait
to enter the group.
"""

import numpy as np
import numpy.typing as npt

from headrace.flows.columns import StateColumns
from headrace.flows.identity import GroupName, Names
from headrace.flows.lanes import init_ops
from headrace.flows.plan import Plan
from headrace.flows.records import Array, List, Records
from headrace.flows.state import (
    AFTER,
    AHEAD,
    ASOF,
    BEFORE,
    FIRST_GROUP,
    FRONT,
    G_KIND,
    G_OP0,
    G_OP1,
    G_PENDS,
    G_WIDTH,
    GROUP_STRIDE,
    HEAD,
    LENGTH,
    MID,
    NEWEST,
    NEXT,
    NONE,
    PENDING_HEAD,
    PENDING_TAIL,
    PLACE,
    PLACE2,
    TAIL,
    TILES,
    W_BACK,
    W_SUFFIX,
    WINDOW_STRIDE,
    WRITTEN,
)
from headrace.flows.walking import walk

Ints = npt.NDArray[np.int64]
INSTANTS = {"newest": NEWEST, "asof": ASOF, "next": NEXT, "written": WRITTEN}
RUN = (FRONT, MID, AHEAD)


def gather(plan: Plan, names: Names, columns: StateColumns, slots: Ints) -> Records:
    """Records of the slots named, ascending; copies, so that the state may go on."""
    st = columns.state
    instants = st.si[:, : WRITTEN + 1][slots]
    out = Records(len(slots), {name: instants[:, at] for name, at in INSTANTS.items()})
    values, known = st.vj[slots], st.vk[slots]
    for r, name in enumerate(names.results):
        out.fixed[f"value/{name}"] = values[:, r]
        out.fixed[f"known/{name}"] = known[:, r]
    back = st.sj[slots]
    ordinal = np.empty(max(len(st.ei), len(st.pi)), dtype=np.int64)
    for group in names.groups:
        _gather_group(plan, group, columns, slots, back, ordinal, out)
        if plan.tables.groups[group.number, G_PENDS]:
            _gather_pending(plan, names, group, columns, slots, ordinal, out)
    return out


def _gather_group(
    plan: Plan, group: GroupName, columns: StateColumns, slots: Ints, back: Array, ordinal: Ints, out: Records
) -> None:
    st, t = columns.state, plan.tables
    pointers = [_window(plan, w) + p for _, w in group.windows for p in RUN]
    order, counts, found = _walk(st.si, st.ei, slots, _group(group.number) + HEAD, pointers, ordinal)
    entries = out.lists[group.name] = List(counts, {"place": st.ei[order, PLACE]})
    if t.groups[group.number, G_KIND] != TILES:
        entries.columns["place2"] = st.ei[order, PLACE2]
    cells = st.ej[order]
    for op in group.ops:
        entries.columns[op.name] = cells[:, op.lane : op.lane + op.width]
    for i, (name, w) in enumerate(group.windows):
        run = out.fixed[f"run/{group.name}/{name}"] = found[:, 3 * i : 3 * i + 3]
        in_front = front_stack(entries, run)
        chosen = cells[in_front]
        counts = np.bincount(entries.owners()[in_front], minlength=len(slots)).astype(np.int64)
        x = int(t.windows[w, W_SUFFIX])
        columns_of = {op.name: chosen[:, x + op.lane : x + op.lane + op.width] for op in group.ops}
        out.lists[f"{group.name}/{name}/suffix"] = List(counts, columns_of)
        has = run[:, MID] != NONE
        chosen = back[has]
        b = int(t.windows[w, W_BACK])
        columns_of = {op.name: chosen[:, b + op.lane : b + op.lane + op.width] for op in group.ops}
        out.lists[f"{group.name}/{name}/back"] = List(has.astype(np.int64), columns_of)


def front_stack(entries: List, run: Array) -> npt.NDArray[np.bool_]:
    """(entries,) whether each lies in the front stack of the window whose run is given, (n, 3) ordinals."""
    if not (run[:, FRONT] != NONE).any():
        return np.zeros(int(entries.counts.sum()), dtype=np.bool_)
    front, mid, ahead = run[:, FRONT], run[:, MID], run[:, AHEAD]
    end = np.where(mid != NONE, mid, np.where(ahead != NONE, ahead, entries.counts))
    begin = np.where(front != NONE, front, end)
    ordinals = entries.ordinals()
    inside = ordinals >= np.repeat(begin, entries.counts)
    inside &= ordinals < np.repeat(end, entries.counts)
    return inside


def _gather_pending(
    plan: Plan, names: Names, group: GroupName, columns: StateColumns, slots: Ints, ordinal: Ints, out: Records
) -> None:
    st = columns.state
    order, counts, _ = _walk(st.si, st.pi, slots, _group(group.number) + PENDING_HEAD, [], ordinal)
    events = out.lists[f"{group.name}/pending"] = List(counts)
    events.columns |= {"place": st.pi[order, PLACE], "place2": st.pi[order, PLACE2]}
    # An event is held with all inputs and masks; the group's ops look at these.
    events.columns |= {names.inputs[i]: st.pj[order, i] for i in group.inputs}
    events.columns |= {names.masks[m]: st.pm[order, m] for m in group.masks}


def _walk(
    si: Array, links: Array, slots: Ints, head: int, pointers: list[int], ordinal: Ints
) -> tuple[Ints, Ints, Ints]:
    """Cells in order, cells per slot, and where in its list each pointer of a slot points."""
    order = np.empty(len(links), dtype=np.int64)
    counts = np.empty(len(slots), dtype=np.int64)
    found = np.empty((len(slots), len(pointers)), dtype=np.int64)
    n = walk(si, links, slots, head, np.array(pointers, dtype=np.int64), ordinal, order, counts, found)
    return order[:n], counts, found


def scatter(plan: Plan, names: Names, records: Records) -> StateColumns:
    """State from records. What the records do not have is as though no event had come."""
    made = StateColumns(plan)
    made.reserve(records.n, 0)
    n = records.n
    st = made.state
    for name, at in INSTANTS.items():
        st.si[:n, at] = records.fixed[name]
    for r, name in enumerate(names.results):
        if f"value/{name}" in records.fixed:
            st.vj[:n, r] = records.fixed[f"value/{name}"]
            st.vk[:n, r] = records.fixed[f"known/{name}"]
    entries = sum(int(records.lists[g.name].counts.sum()) for g in names.groups if g.name in records.lists)
    pending = [f"{g.name}/pending" for g in names.groups]
    events = sum(int(records.lists[name].counts.sum()) for name in pending if name in records.lists)
    made.extend(entries, events)
    first_entry = first_event = 0
    for group in names.groups:
        if group.name in records.lists:
            first_entry += _scatter_group(plan, group, records, made, first_entry)
        if f"{group.name}/pending" in records.lists:
            first_event += _scatter_pending(names, group, records, made, first_event)
    made.reschedule()
    return made


def _scatter_group(plan: Plan, group: GroupName, records: Records, made: StateColumns, first: int) -> int:
    st, t, n = made.state, plan.tables, records.n
    entries = records.lists[group.name]
    total = int(entries.counts.sum())
    cells = slice(first, first + total)
    _link(st.si, st.ei, entries.counts, first, _group(group.number) + HEAD, _group(group.number) + TAIL)
    st.ei[cells, PLACE] = entries.columns["place"]
    st.ei[cells, PLACE2] = entries.columns.get("place2", 0)
    width = int(t.groups[group.number, G_WIDTH])
    st.ej[cells, :width] = neutral(plan, group.number)
    for op in group.ops:
        if op.name in entries.columns:
            st.ej[cells, op.lane : op.lane + op.width] = entries.columns[op.name]
    starts = first + entries.starts()
    for name, w in group.windows:
        if f"run/{group.name}/{name}" not in records.fixed:
            continue
        run = records.fixed[f"run/{group.name}/{name}"]
        at = _window(plan, w)
        for p in RUN:
            st.si[:n, at + p] = np.where(run[:, p] == NONE, NONE, starts + run[:, p])
        end = np.where(run[:, AHEAD] == NONE, entries.counts, run[:, AHEAD])
        st.si[:n, at + LENGTH] = np.where(run[:, FRONT] == NONE, 0, end - run[:, FRONT])
        rows = first + np.flatnonzero(front_stack(entries, run))
        _scatter_lanes(st.ej, rows, int(t.windows[w, W_SUFFIX]), group, records.lists[f"{group.name}/{name}/suffix"])
        rows = np.flatnonzero(run[:, MID] != NONE)
        _scatter_lanes(st.sj, rows, int(t.windows[w, W_BACK]), group, records.lists[f"{group.name}/{name}/back"])
    return total


def _scatter_lanes(into: Array, rows: Ints, lane: int, group: GroupName, cells: List) -> None:
    for op in group.ops:
        into[rows, lane + op.lane : lane + op.lane + op.width] = cells.columns[op.name]


def _scatter_pending(names: Names, group: GroupName, records: Records, made: StateColumns, first: int) -> int:
    st = made.state
    events = records.lists[f"{group.name}/pending"]
    total = int(events.counts.sum())
    cells = slice(first, first + total)
    at = _group(group.number)
    _link(st.si, st.pi, events.counts, first, at + PENDING_HEAD, at + PENDING_TAIL)
    st.pi[cells, PLACE] = events.columns["place"]
    st.pi[cells, PLACE2] = events.columns["place2"]
    st.pf[cells] = 0.0
    st.pm[cells] = 0
    for i in group.inputs:
        st.pj[cells, i] = events.columns[names.inputs[i]]
    for m in group.masks:
        st.pm[cells, m] = events.columns[names.masks[m]]
    return total


def _link(si: Array, links: Array, counts: Ints, first: int, head: int, tail: int) -> None:
    """Chain the cells from `first` on, in order, into one list per slot."""
    n, total = len(counts), int(counts.sum())
    starts = first + np.cumsum(counts) - counts
    some = counts > 0
    ends = starts + counts - 1
    si[:n, head] = np.where(some, starts, NONE)
    si[:n, tail] = np.where(some, ends, NONE)
    links[first : first + total, AFTER] = np.arange(first + 1, first + total + 1)
    links[first : first + total, BEFORE] = np.arange(first - 1, first + total - 1)
    links[ends[some], AFTER] = NONE
    links[starts[some], BEFORE] = NONE


def neutral(plan: Plan, group: int) -> Ints:
    """(lanes of the group,) int64: the lanes of a tile without events."""
    first, last = plan.tables.groups[group, G_OP0], plan.tables.groups[group, G_OP1]
    cells = np.zeros((1, int(plan.tables.groups[group, G_WIDTH])))
    getattr(init_ops, "py_func", init_ops)(plan.tables.ops, first, last, cells, cells.view(np.int64), 0, 0)
    return cells.view(np.int64)[0]


def _group(g: int) -> int:
    return FIRST_GROUP + g * GROUP_STRIDE


def _window(plan: Plan, w: int) -> int:
    return FIRST_GROUP + GROUP_STRIDE * len(plan.tables.groups) + w * WINDOW_STRIDE
