"""The verdict on each event in arrival order, compiled: the rules of admission.py over plain arrays.

Everything an event's verdict depends on is the state that the events before it left, so a stream may be cut into
batches anywhere. State arrays are indexed by partition number; `scalars` holds what is common to all partitions.
"""

from typing import Any

import numpy as np

from headrace.flows.compiled import kernel, step
from headrace.flows.lanes import NEVER

ACCEPTED, COUNTED, DUPLICATE, LATE, AHEAD, BEHIND = range(6)

# Cells of the scalar state, all microseconds.
CLOCK = 0  # newest reading of the flow's clock
STARTED = 1  # its first reading: silence before it is nobody's fault
FLOW = 2  # the flow's watermark, which never goes back

# Cells of the rules.
LATENESS, AHEAD_OF_CLOCK, NEWEST_ALLOWED, IDLE_AFTER, SETTLED = range(5)
UNBOUNDED = 2**62  # a bound that no instant reaches, yet can be added to an instant


def silent(p, heard, scalars, idle_after):
    """Whether partition `p` has been silent for `idle_after` by the flow's clock. Python calls it as it is."""
    if scalars[CLOCK] == NEVER:
        return False
    return scalars[CLOCK] - max(heard[p], scalars[STARTED]) >= idle_after


_silent = step(silent)


@step
def _least_watermark(newest, heard, known, scalars, lateness, idle_after):
    least = UNBOUNDED
    greatest = NEVER
    for p in range(newest.shape[0]):
        if not known[p]:
            continue
        watermark = newest[p] if newest[p] == NEVER else newest[p] - lateness
        greatest = max(greatest, watermark)
        if not _silent(p, heard, scalars, idle_after):
            least = min(least, watermark)
    return greatest if least == UNBOUNDED else least


@kernel
def least_watermark(newest, heard, known, scalars, lateness, idle_after):
    """The least watermark over active partitions; when all are silent, the greatest (who is silent does not count)."""
    return _least_watermark(newest, heard, known, scalars, lateness, idle_after)


@kernel
def judge(
    te, partition, code, seen, came_by, newest, heard, known, scalars, rules, stream_clock, count_late, judged, verdict,
    effective, mark,
):  # fmt: skip
    """Fill `verdict`, `effective` and `mark` (the instant that decided) for events 0..n-1 and move the state.

    te, partition: (n,) event time and partition. code: (n,) which id an event has, -1 for none, into `seen`: (ids,)
    the effective instant of the id's first event, NEVER for an id not seen. came_by: (ids,) the partition of that
    event, or -1. judged: each partition has been judged by itself before, so that what repeats an event of its own
    partition is another event.
    """
    lateness = rules[LATENESS]
    for e in range(te.shape[0]):
        p = partition[e]
        t = te[e]
        if not known[p] or _silent(p, heard, scalars, rules[IDLE_AFTER]):
            # The partition joins and may hold the flow back from here on: what the flow had reached without it stays.
            reached = _least_watermark(newest, heard, known, scalars, lateness, rules[IDLE_AFTER])
            scalars[FLOW] = max(scalars[FLOW], reached)
        own = newest[p] if newest[p] == NEVER else newest[p] - lateness
        settled = max(scalars[FLOW], rules[SETTLED])
        bound = max(own, settled)
        effective[e] = t
        id = code[e]
        if id >= 0 and seen[id] != NEVER and seen[id] >= bound and not (judged and came_by[id] == p):
            verdict[e] = DUPLICATE
        elif t > rules[NEWEST_ALLOWED]:
            verdict[e] = AHEAD
            mark[e] = rules[NEWEST_ALLOWED]
        elif scalars[CLOCK] != NEVER and t > scalars[CLOCK] + rules[AHEAD_OF_CLOCK]:
            verdict[e] = AHEAD
            mark[e] = scalars[CLOCK] + rules[AHEAD_OF_CLOCK]
        elif t < bound:
            verdict[e] = COUNTED if count_late else LATE if t < own else BEHIND
            mark[e] = own if t < own else settled
            effective[e] = bound if count_late else t
        else:
            verdict[e] = ACCEPTED
            known[p] = True
            newest[p] = max(newest[p], t)
            if stream_clock and t > scalars[CLOCK]:
                scalars[CLOCK] = t
                if scalars[STARTED] == NEVER:
                    scalars[STARTED] = t
        if known[p]:
            heard[p] = max(heard[p], scalars[CLOCK])
        if verdict[e] <= COUNTED and id >= 0:
            seen[id] = effective[e]
            came_by[id] = p


KERNELS: tuple[Any, ...] = (least_watermark, judge)


def empty_state(partitions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`newest`, `heard`, `known` for partitions 0..n-1 of which nothing is known."""
    never = np.full(partitions, NEVER, dtype=np.int64)
    return never, never.copy(), np.zeros(partitions, dtype=np.bool_)
