"""The values as they were known then: what a live flow would have served at an instant, having taken the events that
had arrived by it, and no other.

Of most questions that is the corrected value: every event that counts by the instant had arrived by it. The others are
computed anew, each from the events that it had: its entity becomes an entity of its own.

    event counts from e, arrived at a     questions in [min(e, a), max(e, a)) of its entity are others
    t     the question                    events with a <= t
    s     max(t, their newest e)          the instant that the online row was as of (contract C17)
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.views import ViewDefinition
from headrace.flows.answering import answers
from headrace.flows.batch import EventBatch
from headrace.flows.lanes import FOREVER
from headrace.flows.recomputing.arrivals import Arrivals, arrival_of
from headrace.flows.recomputing.asof import Bucket, Found, ranked, reach_us
from headrace.flows.rows import table

Ints = npt.NDArray[np.int64]
TOGETHER = 200_000
"""Events that are replayed at a time."""


@dataclass(frozen=True)
class Known:
    """which: (n,) questions of the bucket that were computed anew. found: their answers."""

    which: Ints
    found: Found


@dataclass(frozen=True)
class _Arrived:
    """The events that a live flow let in, in the order of `answers`, by the instants from which they counted there.

    index: (m,) in the bucket's events. slot, counts, arrival: (m,).
    """

    index: Ints
    slot: Ints
    counts: Ints
    arrival: Ints


def as_known(bucket: Bucket, events: EventBatch, arrivals: Arrivals) -> Known:
    """The questions whose answer may have been another than the corrected one, and what it was.

    Args:
        events: those that `bucket` was made of, with their arrivals.
    """
    prepared = bucket.events
    at = np.searchsorted(events.offset, prepared.position)  # one partition: positions are offsets, and ascend
    arrival = arrival_of(events, arrivals.column)[at]
    counts = arrivals.counted_from(prepared.position)
    which = np.flatnonzero(_others(bucket, counts, arrival))
    order = np.lexsort((prepared.position, prepared.time, counts, prepared.slot))
    order = order[counts[order] < FOREVER]
    arrived = _Arrived(order, prepared.slot[order], counts[order], arrival[order])
    return Known(which, _answered(bucket, arrived, which))


def _others(bucket: Bucket, counts: Ints, arrival: Ints) -> npt.NDArray[np.bool_]:
    """(n,) whether the events that counted for each question differ from those that had counted then."""
    corrected = bucket.events.effective
    same = corrected == counts
    begin = np.minimum(np.minimum(corrected, counts), np.where(counts == FOREVER, FOREVER, arrival))
    end = np.where(same, np.maximum(corrected, arrival), FOREVER)
    matters = begin < end
    slots = bucket.events.slot[matters]
    slot, at = bucket.slot, bucket.asked.at
    _, begun, _ = ranked(slots, begin[matters], slot, at)
    _, ended, _ = ranked(slots, end[matters], slot, at)
    found: npt.NDArray[np.bool_] = begun > ended
    return found


def _answered(bucket: Bucket, arrived: _Arrived, which: Ints) -> Found:
    """Answers to the questions `which`."""
    slot, at = bucket.slot[which], bucket.asked.at[which]
    begin, end = _candidates(bucket.view, arrived, slot, at)
    parts: list[Found] = []
    first = 0
    total = np.concatenate([[0], np.cumsum(end - begin)])
    while first < len(which) or not parts:
        last = max(first + 1, int(np.searchsorted(total, total[first] + TOGETHER, side="right")) - 1)
        some = slice(first, min(last, len(which)))
        parts.append(_replayed(bucket, arrived, slot[some], at[some], begin[some], end[some]))
        first = last
    before = np.cumsum([0, *(part.rows.num_rows for part in parts[:-1])])
    chosen = [np.where(part.which < 0, -1, part.which + n) for part, n in zip(parts, before.tolist(), strict=True)]
    return Found(pa.concat_tables([part.rows for part in parts]), np.concatenate(chosen))


def _candidates(view: ViewDefinition, arrived: _Arrived, slot: Ints, at: Ints) -> tuple[Ints, Ints]:
    """(n,) from which and up to which of the arrived events of its entity each question needs; not all had arrived.

    Where windows are bounded, the newest event before their reach is among them if it had arrived: it says when the
    entity was seen.
    """
    n = len(arrived.index)
    ahead = int((arrived.counts - arrived.arrival).max(initial=0))
    _, upto, first = ranked(arrived.slot, arrived.counts, slot, at + ahead)
    reach = reach_us(view)
    if reach is None or not n:
        return first, first + upto
    _, passed, _ = ranked(arrived.slot, arrived.counts, slot, at - reach)
    begin = first + passed - 1
    waiting = np.flatnonzero(begin >= first)
    while len(waiting):
        waiting = waiting[arrived.arrival[begin[waiting]] > at[waiting]]
        begin[waiting] -= 1
        waiting = waiting[begin[waiting] >= first[waiting]]
    return np.maximum(begin, first), first + upto


def _replayed(bucket: Bucket, arrived: _Arrived, slot: Ints, at: Ints, begin: Ints, end: Ints) -> Found:
    """Each question as a slot of its own, with the events that had arrived."""
    counts = end - begin
    question = np.repeat(np.arange(len(at)), counts)
    index = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts - begin, counts)
    there = arrived.arrival[index] <= at[question]
    question, index = question[there], index[there]
    as_of = at.copy()
    np.maximum.at(as_of, question, arrived.counts[index])
    events = replace(bucket.events.take(arrived.index[index]), slot=question, effective=arrived.counts[index])
    rows, which = answers(bucket.plan, len(at), events, np.arange(len(at)), as_of, reach_us(bucket.view))
    return Found(table(bucket.view, bucket.keys, replace(rows, slot=slot[rows.slot])), which)
