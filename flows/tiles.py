"""Tiles of one view in columns: the state of one reading, and how it moves with events and with time.

A *slot* is one entity. For each *group* of windows that share tiles, a slot has a doubly linked list of entries in
time order; an entry is a tile (k*h, (k+1)*h], an event of a last-n window, or a segment of a session. Only tiles that
hold an event exist, so memory follows the data and not the window.

Each window of a group looks at a run of entries, `front` up to but not including `ahead` (the first entry that has not
entered yet, for windows that take completed tiles only). The run is a queue of two stacks: entries before `mid` carry
the fold of themselves and all after them up to `mid` (their *suffix* lanes), the rest is folded into the slot's `back`
lanes. So a tile leaves in O(1) amortised and nothing is ever subtracted: no cancellation, and min and max come as
cheap as sums. (Two-stack queue aggregation: K. Tangwongsan, M. Hirzel, S. Schneider, "Low-latency sliding-window
aggregation in worst-case constant time", DEBS 2017, section 2.)

Out-of-order events find their place by walking from the newest entry. Time inside a group is local: a group asked
`ending` o ago lives o earlier than the slot, and events wait in its *pending* list until local time reaches them.
"""

from typing import NamedTuple

import numpy as np

from headrace.flows.compiled import kernel, step
from headrace.flows.lanes import FOREVER, NEVER, init_ops, merge_ops, update_ops

# Group kinds and window modes.
TILES, LAST_N, SESSION = range(3)
SLIDING, COMPLETED, CURRENT, UNBOUNDED = range(4)

# Columns of the tables of a plan.
G_KIND, G_HOP, G_DELAY, G_OP0, G_OP1, G_WIDTH, G_MASK, G_PENDS, G_WIN0, G_WIN1, G_PARAM, G_LONGEST = range(12)
W_GROUP, W_MODE, W_EXIT, W_BACK, W_SUFFIX = range(5)

# Columns of a slot: three instants, the row it wrote last and the instant of that, then per group HEAD, TAIL,
# PENDING_HEAD, PENDING_TAIL, then per window FRONT, MID, AHEAD, LENGTH.
NEWEST, ASOF, NEXT, ROW, WRITTEN, FIRST_GROUP = range(6)
HEAD, TAIL, PENDING_HEAD, PENDING_TAIL = range(4)
FRONT, MID, AHEAD, LENGTH = range(4)
GROUP_STRIDE = WINDOW_STRIDE = 4

# Columns of an entry: its place (tile index, event time, or start of a segment), the second half of its place (source
# position of a last-n event, last instant of a segment), its neighbours.
PLACE, PLACE2, AFTER, BEFORE = range(4)
NONE = -1

# Cells of `control`: the free entries and the free pending cells, each a list linked through AFTER and its length.
FREE_ENTRIES, FREE_PENDING, ENTRIES_LEFT, PENDING_LEFT = range(4)


class Tables(NamedTuple):
    """What a plan tells the kernels; arrays are int64 unless said."""

    ops: np.ndarray  # (ops, 4)
    half_life: np.ndarray  # (ops,) float64, microseconds
    groups: np.ndarray  # (groups, 12)
    windows: np.ndarray  # (windows, 5)
    results: np.ndarray  # (results, 7), see results.py
    defaults: np.ndarray  # (results,) float64 bits
    decay_hop: int  # microseconds between rewrites of a decaying value, 0 without one
    decay_until: int  # microseconds after the newest event at which rewriting stops


class State(NamedTuple):
    """One reading of one view. `sj` and `ej` and `pj` are `sf`, `ef` and `pf` read as int64 (the same memory)."""

    si: np.ndarray  # (slots, FIRST_GROUP + 4 groups + 4 windows) int64
    sf: np.ndarray  # (slots, back lanes) float64
    sj: np.ndarray
    vf: np.ndarray  # (slots, results) float64: the values last written
    vj: np.ndarray
    vk: np.ndarray  # (slots, results) uint8: whether they are not null
    ei: np.ndarray  # (entries, 4) int64
    ef: np.ndarray  # (entries, lanes) float64: tile lanes, then suffix lanes per window of the group
    ej: np.ndarray
    pi: np.ndarray  # (pending, 4) int64: event time, source position, next, previous
    pf: np.ndarray  # (pending, inputs) float64
    pj: np.ndarray
    pm: np.ndarray  # (pending, masks) uint8
    control: np.ndarray  # (4,) int64: see FREE_ENTRIES


@step
def group_at(g):
    return FIRST_GROUP + g * GROUP_STRIDE


@step
def window_at(t, w):
    return FIRST_GROUP + t.groups.shape[0] * GROUP_STRIDE + w * WINDOW_STRIDE


@step
def leaves(t, g, w, k):
    """Local instant at which tile `k` leaves window `w`."""
    if t.windows[w, W_MODE] == UNBOUNDED:
        return FOREVER
    return (k + 1) * t.groups[g, G_HOP] + t.windows[w, W_EXIT]


@step
def _later(st, e, k, k2):
    """Whether entry `e` comes after place (`k`, `k2`)."""
    p = st.ei[e, PLACE]
    return p > k or (p == k and st.ei[e, PLACE2] > k2)


@step
def _new_entry(t, st, s, g, k, k2, before):
    """Take a free entry, link it after `before` (NONE: as the head) and clear its lanes."""
    e = st.control[FREE_ENTRIES]
    st.control[FREE_ENTRIES] = st.ei[e, AFTER]
    st.control[ENTRIES_LEFT] -= 1
    at = group_at(g)
    after = st.si[s, at + HEAD] if before == NONE else st.ei[before, AFTER]
    st.ei[e, PLACE] = k
    st.ei[e, PLACE2] = k2
    st.ei[e, AFTER] = after
    st.ei[e, BEFORE] = before
    if before == NONE:
        st.si[s, at + HEAD] = e
    else:
        st.ei[before, AFTER] = e
    if after == NONE:
        st.si[s, at + TAIL] = e
    else:
        st.ei[after, BEFORE] = e
    init_ops(t.ops, t.groups[g, G_OP0], t.groups[g, G_OP1], st.ef, st.ej, e, 0)
    return e


@step
def _drop_entry(st, s, g, e):
    at = group_at(g)
    before = st.ei[e, BEFORE]
    after = st.ei[e, AFTER]
    if before == NONE:
        st.si[s, at + HEAD] = after
    else:
        st.ei[before, AFTER] = after
    if after == NONE:
        st.si[s, at + TAIL] = before
    else:
        st.ei[after, BEFORE] = before
    st.ei[e, AFTER] = st.control[FREE_ENTRIES]
    st.control[FREE_ENTRIES] = e
    st.control[ENTRIES_LEFT] += 1


@step
def _copy_to_back(t, st, s, g, w, e):
    b = t.windows[w, W_BACK]
    for x in range(t.groups[g, G_WIDTH]):
        st.sj[s, b + x] = st.ej[e, x]


@step
def _fold_into_back(t, st, s, g, w, e):
    merge_ops(
        t.ops,
        t.half_life,
        t.groups[g, G_OP0],
        t.groups[g, G_OP1],
        st.sf,
        st.sj,
        s,
        t.windows[w, W_BACK],
        st.ef,
        st.ej,
        e,
        0,
    )


@step
def _set_suffix(t, st, g, w, e, after):
    """Suffix of `e` = its own lanes, folded with the suffix of `after` unless that is NONE."""
    x = t.windows[w, W_SUFFIX]
    for k in range(t.groups[g, G_WIDTH]):
        st.ej[e, x + k] = st.ej[e, k]
    if after != NONE:
        merge_ops(
            t.ops, t.half_life, t.groups[g, G_OP0], t.groups[g, G_OP1], st.ef, st.ej, e, x, st.ef, st.ej, after, x
        )


@step
def _flip(t, st, s, g, w, steady):
    """Move the run's older entries to the front stack.

    Entries whose tile ends after local instant `steady` may still receive late events, which cost a walk in the front
    stack and nothing in the back; they stay in the back unless that would leave less than half of the run to move.
    """
    at = window_at(t, w)
    front = st.si[s, at + FRONT]
    ahead = st.si[s, at + AHEAD]
    hop = t.groups[g, G_HOP]
    tiles = t.groups[g, G_KIND] == TILES and hop > 0
    half = (st.si[s, at + LENGTH] + 1) // 2
    mid = front
    moved = 0
    last = NONE
    while mid != ahead:
        place = st.ei[mid, PLACE]
        end = (place + 1) * hop if tiles else place
        if moved >= half and end > steady:
            break
        last = mid
        mid = st.ei[mid, AFTER]
        moved += 1
    after = NONE
    e = last
    while True:
        _set_suffix(t, st, g, w, e, after)
        if e == front:
            break
        after = e
        e = st.ei[e, BEFORE]
    if mid == ahead:
        st.si[s, at + MID] = NONE
        return
    st.si[s, at + MID] = mid
    _copy_to_back(t, st, s, g, w, mid)
    e = st.ei[mid, AFTER]
    while e != ahead:
        _fold_into_back(t, st, s, g, w, e)
        e = st.ei[e, AFTER]


@step
def _leave(t, st, s, g, w, steady):
    """The oldest entry of the run leaves it."""
    at = window_at(t, w)
    front = st.si[s, at + FRONT]
    after = st.ei[front, AFTER]
    st.si[s, at + LENGTH] -= 1
    if after == st.si[s, at + AHEAD]:
        st.si[s, at + FRONT] = NONE
        st.si[s, at + MID] = NONE
        return
    if st.si[s, at + MID] == front:
        _flip(t, st, s, g, w, steady)
    st.si[s, at + FRONT] = after


@step
def _enter(t, st, s, g, w, e):
    """The next tile has been completed: it joins the end of the run."""
    at = window_at(t, w)
    st.si[s, at + LENGTH] += 1
    if st.si[s, at + FRONT] == NONE:
        st.si[s, at + FRONT] = e
        st.si[s, at + MID] = e
        _copy_to_back(t, st, s, g, w, e)
    elif st.si[s, at + MID] == NONE:
        st.si[s, at + MID] = e
        _copy_to_back(t, st, s, g, w, e)
    else:
        _fold_into_back(t, st, s, g, w, e)


@step
def _fold_event(t, st, s, g, w, e, new, vf, vi, mask, x, te, pos):
    """Event `x` went into live entry `e` (just made, if `new`) of window `w`: bring the window's folds up to date."""
    at = window_at(t, w)
    a, b = t.groups[g, G_OP0], t.groups[g, G_OP1]
    back = t.windows[w, W_BACK]
    suffix = t.windows[w, W_SUFFIX]
    front = st.si[s, at + FRONT]
    mid = st.si[s, at + MID]
    if new:
        st.si[s, at + LENGTH] += 1
        if front == NONE:
            st.si[s, at + FRONT] = e
            st.si[s, at + MID] = e
            _copy_to_back(t, st, s, g, w, e)
            return
        if mid == NONE and st.ei[e, AFTER] == st.si[s, at + AHEAD]:
            st.si[s, at + MID] = e
            _copy_to_back(t, st, s, g, w, e)
            return
        if st.ei[e, AFTER] == front:
            st.si[s, at + FRONT] = e
        if mid != NONE and st.ei[e, AFTER] == mid:
            mid = e
            st.si[s, at + MID] = e
    if mid != NONE and not _later(st, mid, st.ei[e, PLACE], st.ei[e, PLACE2]):
        update_ops(t.ops, t.half_life, a, b, st.sf, st.sj, s, back, vf, vi, mask, x, te, pos)
        return
    front = st.si[s, at + FRONT]
    if new:
        _set_suffix(t, st, g, w, e, st.ei[e, AFTER])
    else:
        update_ops(t.ops, t.half_life, a, b, st.ef, st.ej, e, suffix, vf, vi, mask, x, te, pos)
    while e != front:
        e = st.ei[e, BEFORE]
        update_ops(t.ops, t.half_life, a, b, st.ef, st.ej, e, suffix, vf, vi, mask, x, te, pos)


@step
def _session_event(t, st, s, g, vf, vi, mask, x, te, pos):
    gap = t.groups[g, G_PARAM]
    a, b = t.groups[g, G_OP0], t.groups[g, G_OP1]
    at = group_at(g)
    e = st.si[s, at + TAIL]
    while e != NONE and st.ei[e, PLACE] > te:
        e = st.ei[e, BEFORE]
    after = st.si[s, at + HEAD] if e == NONE else st.ei[e, AFTER]
    joins_after = after != NONE and st.ei[after, PLACE] - te < gap
    if e != NONE and te - st.ei[e, PLACE2] < gap:
        st.ei[e, PLACE2] = max(st.ei[e, PLACE2], te)
        if joins_after:
            merge_ops(t.ops, t.half_life, a, b, st.ef, st.ej, e, 0, st.ef, st.ej, after, 0)
            st.ei[e, PLACE2] = st.ei[after, PLACE2]
            _drop_entry(st, s, g, after)
    elif joins_after:
        e = after
        st.ei[e, PLACE] = te
    else:
        e = _new_entry(t, st, s, g, te, te, e)
    update_ops(t.ops, t.half_life, a, b, st.ef, st.ej, e, 0, vf, vi, mask, x, te, pos)


@step
def take_event(t, st, s, g, now, steady, vf, vi, mask, x, te, pos):
    """Fold event `x` into group `g` of slot `s`, whose windows stand at local time `now`.

    Returns whether the slot's next change has to be worked out again.
    """
    kind = t.groups[g, G_KIND]
    if kind == SESSION:
        _session_event(t, st, s, g, vf, vi, mask, x, te, pos)
        return True
    hop = t.groups[g, G_HOP]
    if kind == LAST_N:
        k, k2 = te, pos
    else:
        k, k2 = (te - 1) // hop if hop > 0 else 0, 0
        if leaves(t, g, t.groups[g, G_LONGEST], k) <= now:
            return False
    w0, w1 = t.groups[g, G_WIN0], t.groups[g, G_WIN1]
    a, b = t.groups[g, G_OP0], t.groups[g, G_OP1]
    e = st.si[s, group_at(g) + TAIL]
    while e != NONE and _later(st, e, k, k2):
        e = st.ei[e, BEFORE]
    new = e == NONE or st.ei[e, PLACE] != k or kind == LAST_N
    if new:
        if kind == LAST_N and e == NONE and st.si[s, window_at(t, w0) + LENGTH] >= t.groups[g, G_PARAM]:
            return False
        e = _new_entry(t, st, s, g, k, k2, e)
    update_ops(t.ops, t.half_life, a, b, st.ef, st.ej, e, 0, vf, vi, mask, x, te, pos)
    for w in range(w0, w1):
        if kind == TILES:
            if leaves(t, g, w, k) <= now:
                continue
            if t.windows[w, W_MODE] == COMPLETED and (k + 1) * hop > now:
                at = window_at(t, w) + AHEAD
                if new and (st.si[s, at] == NONE or st.ei[e, AFTER] == st.si[s, at]):
                    st.si[s, at] = e
                continue
        _fold_event(t, st, s, g, w, e, new, vf, vi, mask, x, te, pos)
    if kind == LAST_N and st.si[s, window_at(t, w0) + LENGTH] > t.groups[g, G_PARAM]:
        oldest = st.si[s, group_at(g) + HEAD]
        _leave(t, st, s, g, w0, steady)
        _drop_entry(st, s, g, oldest)
    return new


@step
def hold_event(t, st, s, g, vf, vi, mask, x, te, pos):
    """Put event `x` into the pending list of group `g`, in order of (event time, source position)."""
    p = st.control[FREE_PENDING]
    st.control[FREE_PENDING] = st.pi[p, AFTER]
    st.control[PENDING_LEFT] -= 1
    st.pi[p, PLACE] = te
    st.pi[p, PLACE2] = pos
    for c in range(vf.shape[1]):
        st.pf[p, c] = vf[x, c]
    for c in range(mask.shape[1]):
        st.pm[p, c] = mask[x, c]
    at = group_at(g)
    before = st.si[s, at + PENDING_TAIL]
    while before != NONE and (
        st.pi[before, PLACE] > te or (st.pi[before, PLACE] == te and st.pi[before, PLACE2] > pos)
    ):
        before = st.pi[before, BEFORE]
    after = st.si[s, at + PENDING_HEAD] if before == NONE else st.pi[before, AFTER]
    st.pi[p, BEFORE] = before
    st.pi[p, AFTER] = after
    if before == NONE:
        st.si[s, at + PENDING_HEAD] = p
    else:
        st.pi[before, AFTER] = p
    if after == NONE:
        st.si[s, at + PENDING_TAIL] = p
    else:
        st.pi[after, BEFORE] = p


@step
def _release_events(t, st, s, g, now, steady):
    """Fold in the pending events that local time has reached.

    Tiles and runs must stand at `now` already; a session must not have been pruned yet, for these events may extend it.
    """
    at = group_at(g)
    p = st.si[s, at + PENDING_HEAD]
    released = False
    while p != NONE and st.pi[p, PLACE] <= now:
        take_event(t, st, s, g, now, steady, st.pf, st.pj, st.pm, p, st.pi[p, PLACE], st.pi[p, PLACE2])
        after = st.pi[p, AFTER]
        st.pi[p, AFTER] = st.control[FREE_PENDING]
        st.control[FREE_PENDING] = p
        st.control[PENDING_LEFT] += 1
        p = after
        released = True
    if released:
        st.si[s, at + PENDING_HEAD] = p
        if p == NONE:
            st.si[s, at + PENDING_TAIL] = NONE
        else:
            st.pi[p, BEFORE] = NONE
    return released


@step
def advance_group(t, st, s, g, was, now, steady):
    """Bring group `g` of slot `s` from local time `was` to `now`. Returns whether a window's content changed.

    `steady`: local instant at or before which no event can arrive any more.
    """
    at = group_at(g)
    changed = False
    kind = t.groups[g, G_KIND]
    hop = t.groups[g, G_HOP]
    if kind == TILES:
        for w in range(t.groups[g, G_WIN0], t.groups[g, G_WIN1]):
            wat = window_at(t, w)
            e = st.si[s, wat + FRONT]
            while e != NONE and leaves(t, g, w, st.ei[e, PLACE]) <= now:
                _leave(t, st, s, g, w, steady)
                e = st.si[s, wat + FRONT]
                changed = True
            if t.windows[w, W_MODE] == COMPLETED:
                e = st.si[s, wat + AHEAD]
                while e != NONE and (st.ei[e, PLACE] + 1) * hop <= now:
                    st.si[s, wat + AHEAD] = st.ei[e, AFTER]
                    if leaves(t, g, w, st.ei[e, PLACE]) > now:
                        _enter(t, st, s, g, w, e)
                        changed = True
                    e = st.si[s, wat + AHEAD]
        e = st.si[s, at + HEAD]
        while e != NONE and leaves(t, g, t.groups[g, G_LONGEST], st.ei[e, PLACE]) <= now:
            _drop_entry(st, s, g, e)
            e = st.si[s, at + HEAD]
    elif kind == SESSION:
        gap = t.groups[g, G_PARAM]
        if t.groups[g, G_PENDS] and _release_events(t, st, s, g, now, steady):
            changed = True
        e = st.si[s, at + TAIL]
        if e != NONE and was < st.ei[e, PLACE2] + gap <= now:
            changed = True
        e = st.si[s, at + HEAD]
        while e != NONE and st.ei[e, PLACE2] + gap <= min(now, steady):
            _drop_entry(st, s, g, e)
            e = st.si[s, at + HEAD]
    if t.groups[g, G_PENDS] and kind != SESSION and _release_events(t, st, s, g, now, steady):
        changed = True
    return changed


@step
def next_change(t, st, s):
    """First instant after the slot's as-of at which a value changes if no event comes; FOREVER if none."""
    least = FOREVER
    for g in range(t.groups.shape[0]):
        at = group_at(g)
        kind = t.groups[g, G_KIND]
        hop = t.groups[g, G_HOP]
        delay = t.groups[g, G_DELAY]
        if t.groups[g, G_PENDS]:
            p = st.si[s, at + PENDING_HEAD]
            if p != NONE:
                least = min(least, st.pi[p, PLACE] + delay)
        if kind == TILES:
            for w in range(t.groups[g, G_WIN0], t.groups[g, G_WIN1]):
                wat = window_at(t, w)
                e = st.si[s, wat + FRONT]
                if e != NONE and t.windows[w, W_MODE] != UNBOUNDED:
                    least = min(least, leaves(t, g, w, st.ei[e, PLACE]) + delay)
                if t.windows[w, W_MODE] == COMPLETED:
                    e = st.si[s, wat + AHEAD]
                    if e != NONE:
                        least = min(least, (st.ei[e, PLACE] + 1) * hop + delay)
        elif kind == SESSION:
            e = st.si[s, at + TAIL]
            if e != NONE:
                over = st.ei[e, PLACE2] + t.groups[g, G_PARAM] + delay
                if over > st.si[s, ASOF]:
                    least = min(least, over)
    return least


@step
def is_empty(t, st, s):
    """Whether nothing of slot `s` is left in any list."""
    for g in range(t.groups.shape[0]):
        at = group_at(g)
        if st.si[s, at + HEAD] != NONE or (t.groups[g, G_PENDS] and st.si[s, at + PENDING_HEAD] != NONE):
            return False
    return True


@step
def advance_slot(t, st, s, now, steady):
    """Bring slot `s` to instant `now`; events before `steady` can come no more. Returns whether it changed."""
    changed = False
    was = st.si[s, ASOF]
    for g in range(t.groups.shape[0]):
        delay = t.groups[g, G_DELAY]
        before = was if was == NEVER else was - delay
        if advance_group(t, st, s, g, before, now - delay, steady - delay):
            changed = True
    st.si[s, ASOF] = now
    return changed


@step
def window_lanes(t, st, s, w, of, oj):
    """Fold of window `w` at the slot's as-of, written to the lanes of row 0 of `of`/`oj`."""
    g = t.windows[w, W_GROUP]
    a, b = t.groups[g, G_OP0], t.groups[g, G_OP1]
    width = t.groups[g, G_WIDTH]
    if t.groups[g, G_KIND] == SESSION:
        e = st.si[s, group_at(g) + TAIL]
        if e != NONE and st.ei[e, PLACE2] + t.groups[g, G_PARAM] > st.si[s, ASOF] - t.groups[g, G_DELAY]:
            for k in range(width):
                oj[0, k] = st.ej[e, k]
        else:
            init_ops(t.ops, a, b, of, oj, 0, 0)
        return
    at = window_at(t, w)
    front = st.si[s, at + FRONT]
    if front == NONE:
        init_ops(t.ops, a, b, of, oj, 0, 0)
        return
    mid = st.si[s, at + MID]
    back = t.windows[w, W_BACK]
    if mid == front:
        for k in range(width):
            oj[0, k] = st.sj[s, back + k]
        return
    suffix = t.windows[w, W_SUFFIX]
    for k in range(width):
        oj[0, k] = st.ej[front, suffix + k]
    if mid != NONE:
        merge_ops(t.ops, t.half_life, a, b, of, oj, 0, 0, st.sf, st.sj, s, back)


@kernel
def mark_free(links, head, free):
    """Set `free` at every cell of the free list that starts at `head`."""
    while head != NONE:
        free[head] = True
        head = links[head, AFTER]
