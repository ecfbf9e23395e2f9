"""The two readings of one view (contract C17 and C18) over the same tiles.

*Online*: events are folded in as they come, and a slot's row is as of the clock or its newest event. *Settled*: events
are folded in order as the watermark passes, stopping at every instant at which something enters or leaves, so that
each instant gives its row. Both write rows into output columns and return when those are full; the caller makes room
and goes on.

A slot that has written no row although it holds something is one whose view has changed: it writes one when it next
changes, and the change says when that is (migration.py).
"""

from typing import Any, NamedTuple

import numpy as np

from headrace.flows.compiled import kernel, step
from headrace.flows.lanes import FOREVER, NEVER
from headrace.flows.results import CANDIDATE, EVENT, write_row
from headrace.flows.state import ASOF, G_DELAY, G_MASK, G_PENDS, NEWEST, NEXT, ROW, WRITTEN
from headrace.flows.tiles import advance_slot, hold_event, is_empty, next_change, take_event

BLOCK = 1024  # slots whose earliest next change is kept in one cell, so that a quiet clock reads few of them


class Rows(NamedTuple):
    """Output columns, one row per (slot, instant)."""

    slot: np.ndarray  # (capacity,) int64
    instant: np.ndarray  # (capacity,) int64, microseconds
    newest: np.ndarray  # (capacity,) int64: newest event of the slot
    kind: np.ndarray  # (capacity,) int64: CANDIDATE, CHANGED or EVENT
    of: np.ndarray  # (capacity, results) float64
    oj: np.ndarray  # the same memory as int64
    ok: np.ndarray  # (capacity, results) uint8: not null


@step
def schedule(t, st, s, blocks, fresh):
    """Work out the slot's next change again; `fresh`: a decaying value must also be rewritten at the next hop."""
    at = next_change(t, st, s)
    if fresh and t.decay_hop > 0 and st.si[s, ASOF] - st.si[s, NEWEST] < t.decay_until:
        at = min(at, (st.si[s, ASOF] // t.decay_hop + 1) * t.decay_hop)
    st.si[s, NEXT] = at
    b = s // BLOCK
    if at < blocks[b]:
        blocks[b] = at


@step
def fold(t, st, s, vf, vi, mask, x, u, te, pos, steady):
    """Fold event `x`, effective from `u`, into every group of slot `s` that takes it. Returns whether to reschedule.

    The slot's newest event moves to `u`: an event that was let in late counts as new when it came, so that it makes no
    difference whether its entity had left memory before.
    """
    asof = st.si[s, ASOF]
    again = False
    for g in range(t.groups.shape[0]):
        if not mask[x, t.groups[g, G_MASK]]:
            continue
        delay = t.groups[g, G_DELAY]
        now = asof if asof == NEVER else asof - delay
        if t.groups[g, G_PENDS] and te > u - delay:
            hold_event(t, st, s, g, vf, vi, mask, x, te, pos)
            again = True
        elif take_event(t, st, s, g, now, u - delay, steady - delay, vf, vi, mask, x, te, pos):
            again = True
    if u > st.si[s, NEWEST]:
        st.si[s, NEWEST] = u
    return again


@step
def put_row(t, st, s, lane_f, lane_j, rows, n, kind, drifts):
    """Write row `n`: slot `s` at its as-of."""
    rows.slot[n] = s
    rows.instant[n] = st.si[s, ASOF]
    rows.newest[n] = st.si[s, NEWEST]
    rows.kind[n] = max(kind, write_row(t, st, s, lane_f, lane_j, rows.of, rows.oj, rows.ok, n, drifts))


@kernel
def settle_events(t, st, blocks, lane_f, lane_j, slots, effective, te, pos, vf, vi, mask, start, rows, n, candidates):
    """Fold events `start..` (sorted by effective instant) in order. Returns (next event, rows written).

    Stops early when the output is full. `candidates`: also write rows in which no public value changed.
    """
    capacity = rows.slot.shape[0]
    for x in range(start, slots.shape[0]):
        s = slots[x]
        u = effective[x]
        while st.si[s, NEXT] < u:
            if n == capacity:
                return x, n
            changed = advance_slot(t, st, s, st.si[s, NEXT], st.si[s, NEXT])
            schedule(t, st, s, blocks, False)
            if changed or st.si[s, WRITTEN] == NEVER:
                put_row(t, st, s, lane_f, lane_j, rows, n, CANDIDATE, False)
                if candidates or rows.kind[n] != CANDIDATE:
                    n += 1
        row = st.si[s, ROW]
        if not (0 <= row < n and rows.slot[row] == s and rows.instant[row] == u):
            if n == capacity:
                return x, n
            row = n
            n += 1
            st.si[s, ROW] = row
        again = st.si[s, NEXT] <= u
        if again:
            advance_slot(t, st, s, u, u)
        st.si[s, ASOF] = u
        if fold(t, st, s, vf, vi, mask, x, u, te[x], pos[x], u) or again:
            schedule(t, st, s, blocks, False)
        put_row(t, st, s, lane_f, lane_j, rows, row, EVENT, False)
    return slots.shape[0], n


@kernel
def settle_silence(t, st, blocks, lane_f, lane_j, upto, start, rows, n, candidates):
    """Let time pass to instant `upto` for slots whose next change is due. Returns (next slot, rows written, slots
    emptied).

    `start`: the slot to begin with.
    """
    empties = 0
    capacity = rows.slot.shape[0]
    slots = st.si.shape[0]
    s = start
    while s < slots:
        b = s // BLOCK
        end = min(slots, (b + 1) * BLOCK)
        if blocks[b] > upto:
            s = end
            continue
        while s < end:
            while st.si[s, NEXT] <= upto:
                if n == capacity:
                    return s, n, empties
                changed = advance_slot(t, st, s, st.si[s, NEXT], st.si[s, NEXT])
                schedule(t, st, s, blocks, False)
                if changed or st.si[s, WRITTEN] == NEVER:
                    put_row(t, st, s, lane_f, lane_j, rows, n, CANDIDATE, False)
                    if candidates or rows.kind[n] != CANDIDATE:
                        n += 1
                if st.si[s, NEXT] == FOREVER and is_empty(t, st, s):
                    empties += 1
            s += 1
        _refresh(st, blocks, b, end)
    return s, n, empties


@step
def _refresh(st, blocks, b, end):
    least = FOREVER
    for s in range(b * BLOCK, end):
        least = min(least, st.si[s, NEXT])
    blocks[b] = least


@kernel
def take_events(t, st, slots, effective, te, pos, vf, vi, mask, steady, dirty):
    """Fold events in arrival order. Returns how many distinct slots they touched, listed in `dirty`."""
    n = 0
    for x in range(slots.shape[0]):
        s = slots[x]
        fold(t, st, s, vf, vi, mask, x, effective[x], te[x], pos[x], steady)
        row = st.si[s, ROW]
        if not (0 <= row < n and dirty[row] == s):
            st.si[s, ROW] = n
            dirty[n] = s
            n += 1
    return n


@kernel
def write_touched(t, st, blocks, lane_f, lane_j, dirty, touched, clock, steady, rows):
    """One row per touched slot, as of the clock or its newest event, whichever is later."""
    for n in range(touched):
        s = dirty[n]
        now = max(clock, st.si[s, NEWEST], st.si[s, ASOF])
        advance_slot(t, st, s, now, steady)
        schedule(t, st, s, blocks, True)
        put_row(t, st, s, lane_f, lane_j, rows, n, EVENT, True)
    return touched


@kernel
def write_expired(t, st, blocks, lane_f, lane_j, clock, steady, start, rows, n, candidates):
    """One row per slot whose values fell because the clock moved to `clock`. Returns (next slot, rows written)."""
    capacity = rows.slot.shape[0]
    slots = st.si.shape[0]
    s = start
    while s < slots:
        b = s // BLOCK
        end = min(slots, (b + 1) * BLOCK)
        if blocks[b] > clock:
            s = end
            continue
        while s < end:
            if st.si[s, NEXT] <= clock and st.si[s, ASOF] < clock:
                if n == capacity:
                    return s, n
                advance_slot(t, st, s, clock, steady)
                schedule(t, st, s, blocks, True)
                put_row(t, st, s, lane_f, lane_j, rows, n, CANDIDATE, True)
                if candidates or rows.kind[n] != CANDIDATE:
                    n += 1
            s += 1
        _refresh(st, blocks, b, end)
    return s, n


KERNELS: tuple[Any, ...] = (settle_events, settle_silence, take_events, write_touched, write_expired)
"""What Python calls; everything else is inlined into these."""
