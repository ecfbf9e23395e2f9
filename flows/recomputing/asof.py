"""The values of each entity at each instant asked, from all events of a bucket (contract C11).

events of some entities, instants asked of them
  -> entity by entity through the kernels, events and questions together in order of time     a row for each question
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.features import AggregateFeature
from headrace.features.views import ViewDefinition
from headrace.features.windows import Hopping, Sliding, Tumbling
from headrace.flows.answering import answers, ordered
from headrace.flows.batch import EventBatch
from headrace.flows.buffer import Prepared
from headrace.flows.events import prepare
from headrace.flows.keys import KeyTable
from headrace.flows.plan import Plan, compile_view
from headrace.flows.recomputing.questions import Asked
from headrace.flows.rows import table

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bucket:
    """All events of some entities, and what is asked of them.

    keys: of both. events: that concern the view; those that do not count are effective at `FOREVER`.
    slot: (n,) of each question's entity. asked: the n questions.
    """

    view: ViewDefinition
    plan: Plan
    keys: KeyTable
    events: Prepared
    slot: Ints
    asked: Asked


@dataclass(frozen=True)
class Found:
    """rows: of the view. which: (n,) the row that answers each question, -1: its entity was not seen by then."""

    rows: pa.Table
    which: Ints


def bucket_of(view: ViewDefinition, events: EventBatch, asked: Asked) -> Bucket:
    """What is asked of a bucket's entities together with their events.

    Every change of a value makes a row, also where the view's log is thinned or there is none: serving would know it.
    """
    every = replace(view, log_every_us=None)
    plan = compile_view(every)
    keys = KeyTable(view.entity.keys, [view.schema.field(key).dtype for key in view.entity.keys])
    slot = keys.slots(asked.entities)
    return Bucket(every, plan, keys, prepare(plan, keys, events), slot, asked)


def as_of(bucket: Bucket) -> Found:
    """The answers with all events known."""
    asked = bucket.asked
    due = bucket.events.take(bucket.events.effective <= int(asked.at.max()))
    rows, which = answers(bucket.plan, len(bucket.keys), ordered(due), bucket.slot, asked.at, reach_us(bucket.view))
    return Found(table(bucket.view, bucket.keys, rows), which)


def reach_us(view: ViewDefinition) -> int | None:
    """How far back of the instant asked an event can lie that still matters; None: there is no bound."""
    longest = 0
    for each in view.aggregates:
        assert isinstance(each.feature, AggregateFeature)
        window = each.feature.window
        if not isinstance(window, Sliding | Hopping | Tumbling):
            return None
        longest = max(longest, window.width_us + window.hop_us + window.ending_us)
    return longest


def ranked(slots: Ints, values: Ints, slot: Ints, value: Ints) -> tuple[Ints, Ints, Ints]:
    """How many of m entries of a slot have values at or before another, for each of n questions.

    Args:
        slots, values: (m,) entries. slot, value: (n,) questions.

    Returns:
        (m,) the entries in order of slot and value; (n,) how many; (n,) where in that order the slot begins.
    """
    m = len(slots)
    order = np.lexsort((values, slots))
    first = np.searchsorted(slots[order], slot)
    together = np.lexsort(
        (np.repeat([0, 1], [m, len(slot)]), np.concatenate([values, value]), np.concatenate([slots, slot]))
    )
    passed = np.cumsum(together < m)
    counts = np.empty(len(slot), dtype=np.int64)
    questions = together >= m
    counts[together[questions] - m] = passed[questions]
    return order, counts - first, first
