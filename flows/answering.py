"""A view's values at instants that are asked for, from all events: the settled reading without the rows between.

Events and questions of an entity are gone through together, in order of time. What enters and leaves a window on the
way changes the state alone, and only a question makes a row, so that a long history costs little where little is asked.
"""

import numpy as np
import numpy.typing as npt

from headrace.flows.buffer import Prepared
from headrace.flows.columns import StateColumns
from headrace.flows.compiled import kernel
from headrace.flows.derivation import Derivation
from headrace.flows.lanes import NEVER
from headrace.flows.object_features import ObjectFeatures
from headrace.flows.plan import Plan
from headrace.flows.readings import fold, put_row, schedule
from headrace.flows.results import EVENT
from headrace.flows.rows import Columns, make_rows, number_columns
from headrace.flows.state import ASOF, NEWEST, NEXT
from headrace.flows.tiles import advance_slot

Ints = npt.NDArray[np.int64]
UNBOUNDED = -1


@kernel
def answer(
    t, st, blocks, lane_f, lane_j, slots, effective, te, pos, vf, vi, mask, reach, asked_slot, asked_at, which, rows
):
    """One row for each question whose slot an event has reached by then. Returns rows written.

    slots, effective, ...: events in order of slot, then of effective instant. asked_slot, asked_at: questions in order
    of slot and instant. reach: an event effective so long before a question does not matter to it; UNBOUNDED: each may.
    which: filled with the row of each question, or -1.
    """
    x = 0
    n = 0
    m = slots.shape[0]
    for q in range(asked_slot.shape[0]):
        s = asked_slot[q]
        at = asked_at[q]
        while x < m and slots[x] < s:
            x += 1
        while x < m and slots[x] == s and effective[x] <= at:
            u = effective[x]
            if reach != UNBOUNDED and u <= at - reach:
                st.si[s, NEWEST] = max(st.si[s, NEWEST], u)
            else:
                again = st.si[s, NEXT] <= u
                if again:
                    advance_slot(t, st, s, u, u)
                st.si[s, ASOF] = u
                if fold(t, st, s, vf, vi, mask, x, u, te[x], pos[x], u) or again:
                    schedule(t, st, s, blocks, False)
            x += 1
        if st.si[s, NEWEST] == NEVER:
            which[q] = -1
            continue
        if st.si[s, NEXT] <= at:
            advance_slot(t, st, s, at, at)
            schedule(t, st, s, blocks, False)
        elif st.si[s, ASOF] == NEVER:
            st.si[s, ASOF] = at
        put_row(t, st, s, lane_f, lane_j, rows, n, EVENT, False)
        which[q] = n
        n += 1
    return n


def ordered(events: Prepared) -> Prepared:
    """In order of slot, and within each in the order of the log."""
    return events.take(np.lexsort((events.position, events.time, events.effective, events.slot)))


def answers(
    plan: Plan, slots: int, events: Prepared, slot: Ints, at: Ints, reach_us: int | None
) -> tuple[Columns, Ints]:
    """Rows at the instants asked.

    Args:
        slots: how many there are. events: of them, in order, see `ordered`.
        slot, at: (n,) which slot is asked, and as of when; microseconds.
        reach_us: an event effective so long before a question does not matter to it; None: each may.

    Returns:
        rows, as of the last change that went before or as of the question; and (n,) which of them answers each
        question, -1 where no event of the slot is effective by then.
    """
    columns, objects = StateColumns(plan), ObjectFeatures(plan)
    columns.reserve(slots, len(events))
    order = np.lexsort((at, slot))
    rows = make_rows(max(1, len(slot)), len(plan.numbers))
    lanes = np.zeros((1, max(1, plan.entry_lanes)))
    found = np.empty(len(slot), dtype=np.int64)
    n = answer(
        plan.tables, columns.state, columns.blocks, lanes, lanes.view(np.int64), events.slot, events.effective,
        events.time, events.position, events.inputs, events.inputs.view(np.int64), events.masks,
        UNBOUNDED if reach_us is None else reach_us, slot[order], at[order], found, rows,
    )  # fmt: skip
    which = np.empty(len(slot), dtype=np.int64)
    which[order] = found
    made = rows.slot[:n].copy(), rows.instant[:n].copy(), rows.newest[:n].copy()
    values = number_columns(plan, rows, n)
    if objects:
        values.update(objects.settle(events, made[0], made[1])[0])
    Derivation(plan).add(values, made[0], rows.kind[:n].copy())
    return Columns(*made, values), which
