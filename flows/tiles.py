"""How tiles, sessions and last-n events of one slot move with events and with time.

Out-of-order events find their place by walking from the newest entry. Time inside a group is local: a group asked
`ending` o ago lives o earlier than the slot, and events wait in its *pending* list until local time reaches them.
"""

from headrace.flows.compiled import step
from headrace.flows.lanes import FOREVER, NEVER, init_ops, merge_ops, update_ops
from headrace.flows.runs import drop_entry, enter, fold_event, later, leave, new_entry
from headrace.flows.state import (
    AFTER,
    AHEAD,
    ASOF,
    BEFORE,
    COMPLETED,
    FREE_PENDING,
    FRONT,
    G_DELAY,
    G_HOP,
    G_KIND,
    G_LONGEST,
    G_OP0,
    G_OP1,
    G_PARAM,
    G_PENDS,
    G_WIDTH,
    G_WIN0,
    G_WIN1,
    HEAD,
    LAST_N,
    LENGTH,
    MID,
    NONE,
    PENDING_HEAD,
    PENDING_LEFT,
    PENDING_TAIL,
    PLACE,
    PLACE2,
    SESSION,
    TAIL,
    TILES,
    UNBOUNDED,
    W_BACK,
    W_GROUP,
    W_MODE,
    W_SUFFIX,
    group_at,
    leaves,
    window_at,
)


@step
def _session_event(t, st, s, g, entered, vf, vi, mask, x, te, pos):
    """Fold event `x`, which enters at local instant `entered`, into the segments that are still open then.

    A segment that has closed stays closed: only an event let in late can find one, or make one, which holds nothing.
    """
    gap = t.groups[g, G_PARAM]
    a, b = t.groups[g, G_OP0], t.groups[g, G_OP1]
    at = group_at(g)
    e = st.si[s, at + TAIL]
    while e != NONE and st.ei[e, PLACE] > te:
        e = st.ei[e, BEFORE]
    after = st.si[s, at + HEAD] if e == NONE else st.ei[e, AFTER]
    joins_after = after != NONE and st.ei[after, PLACE] - te < gap and st.ei[after, PLACE2] + gap > entered
    if e != NONE and te - st.ei[e, PLACE2] < gap and st.ei[e, PLACE2] + gap > entered:
        st.ei[e, PLACE2] = max(st.ei[e, PLACE2], te)
        if joins_after:
            merge_ops(t.ops, t.half_life, a, b, st.ef, st.ej, e, 0, st.ef, st.ej, after, 0)
            st.ei[e, PLACE2] = st.ei[after, PLACE2]
            drop_entry(st, s, g, after)
    elif joins_after:
        e = after
        st.ei[e, PLACE] = te
    elif te + gap > entered:
        e = new_entry(t, st, s, g, te, te, e)
    else:
        return
    update_ops(t.ops, t.half_life, a, b, st.ef, st.ej, e, 0, vf, vi, mask, x, te, pos)


@step
def take_event(t, st, s, g, now, entered, steady, vf, vi, mask, x, te, pos):
    """Fold event `x` into group `g` of slot `s`, whose windows stand at local time `now`.

    `entered`: the local instant from which the event counts. Returns whether the slot's next change has to be worked
    out again.
    """
    kind = t.groups[g, G_KIND]
    if kind == SESSION:
        _session_event(t, st, s, g, entered, vf, vi, mask, x, te, pos)
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
    while e != NONE and later(st, e, k, k2):
        e = st.ei[e, BEFORE]
    new = e == NONE or st.ei[e, PLACE] != k or kind == LAST_N
    if new:
        if kind == LAST_N and e == NONE and st.si[s, window_at(t, w0) + LENGTH] >= t.groups[g, G_PARAM]:
            return False
        e = new_entry(t, st, s, g, k, k2, e)
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
        fold_event(t, st, s, g, w, e, new, vf, vi, mask, x, te, pos)
    if kind == LAST_N and st.si[s, window_at(t, w0) + LENGTH] > t.groups[g, G_PARAM]:
        oldest = st.si[s, group_at(g) + HEAD]
        leave(t, st, s, g, w0, steady)
        drop_entry(st, s, g, oldest)
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
        te = st.pi[p, PLACE]
        take_event(t, st, s, g, now, te, steady, st.pf, st.pj, st.pm, p, te, st.pi[p, PLACE2])
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
                leave(t, st, s, g, w, steady)
                e = st.si[s, wat + FRONT]
                changed = True
            if t.windows[w, W_MODE] == COMPLETED:
                e = st.si[s, wat + AHEAD]
                while e != NONE and (st.ei[e, PLACE] + 1) * hop <= now:
                    st.si[s, wat + AHEAD] = st.ei[e, AFTER]
                    if leaves(t, g, w, st.ei[e, PLACE]) > now:
                        enter(t, st, s, g, w, e)
                        changed = True
                    e = st.si[s, wat + AHEAD]
        e = st.si[s, at + HEAD]
        while e != NONE and leaves(t, g, t.groups[g, G_LONGEST], st.ei[e, PLACE]) <= now:
            drop_entry(st, s, g, e)
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
            drop_entry(st, s, g, e)
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
