"""Runs: the entries that a window looks at, as a queue of two stacks.

Each window of a group looks at a run of entries, `front` up to but not including `ahead` (the first entry that has not
entered yet, for windows that take completed tiles only). The run is a queue of two stacks: entries before `mid` carry
the fold of themselves and all after them up to `mid` (their *suffix* lanes), the rest is folded into the slot's `back`
lanes. So a tile leaves in O(1) amortised and nothing is ever subtracted: no cancellation, and min and max come as
cheap as sums. (Two-stack queue aggregation: K. Tangwongsan, M. Hirzel, S. Schneider, "Low-latency sliding-window
aggregation in worst-case constant time", DEBS 2017, section 2.)
"""

from headrace.flows.compiled import step
from headrace.flows.lanes import init_ops, merge_ops, update_ops
from headrace.flows.state import (
    AFTER,
    AHEAD,
    BEFORE,
    ENTRIES_LEFT,
    FREE_ENTRIES,
    FRONT,
    G_HOP,
    G_KIND,
    G_OP0,
    G_OP1,
    G_WIDTH,
    HEAD,
    LENGTH,
    MID,
    NONE,
    PLACE,
    PLACE2,
    TAIL,
    TILES,
    W_BACK,
    W_SUFFIX,
    group_at,
    window_at,
)


@step
def later(st, e, k, k2):
    """Whether entry `e` comes after place (`k`, `k2`)."""
    p = st.ei[e, PLACE]
    return p > k or (p == k and st.ei[e, PLACE2] > k2)


@step
def new_entry(t, st, s, g, k, k2, before):
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
def drop_entry(st, s, g, e):
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
def leave(t, st, s, g, w, steady):
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
def enter(t, st, s, g, w, e):
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
def fold_event(t, st, s, g, w, e, new, vf, vi, mask, x, te, pos):
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
    if mid != NONE and not later(st, mid, st.ei[e, PLACE], st.ei[e, PLACE2]):
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
