"""The columns of one reading's state, and of the tables that say how a plan uses them.

A *slot* is one entity. For each *group* of windows that share tiles, a slot has a doubly linked list of entries in
time order; an entry is a tile (k*h, (k+1)*h], an event of a last-n window, or a segment of a session. Only tiles that
hold an event exist, so memory follows the data and not the window.

Pending events of groups asked `ending` some time ago have a pool of their own, linked in the same way.
"""

from typing import NamedTuple

import numpy as np

from headrace.flows.compiled import step
from headrace.flows.lanes import FOREVER

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
