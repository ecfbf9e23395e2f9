"""One bucket of a history: all events of some entities, settled at once."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.views import ViewDefinition
from headrace.flows.backfill.portions import Portion
from headrace.flows.buffer import Prepared
from headrace.flows.chain import Link
from headrace.flows.events import prepare
from headrace.flows.keys import KeyTable
from headrace.flows.ordering import in_order
from headrace.flows.plan import compile_view
from headrace.flows.records import Records
from headrace.flows.rows import table
from headrace.flows.saving import Position, Restored, packer, restored
from headrace.flows.settled import SettledReading

Ints = npt.NDArray[np.int64]
ORDER = "headrace order"
"""Column of a bucket's rows: what entities of one instant are ordered by, see `KeyTable.order`."""


def settle_bucket(
    view: ViewDefinition,
    portions: Iterable[Portion],
    position: Position,
    since_us: int | None,
    write: Callable[[pa.Table], None],
) -> bytes:
    """Compute the log rows of the entities that these events are of.

    Args:
        portions: all events that were let in, one after the other in time; within each in any order.
        position: where the flow stands; events effective after `position.settled` wait.
        since_us: only rows as of later instants, microseconds; None: all.
        write: is given the rows, by instant and from one call to the next, with the column `ORDER`.

    Returns:
        what a flow has to know to go on from there, as a snapshot's full part.
    """
    plan = compile_view(view)
    keys = KeyTable(view.entity.keys, [view.schema.field(key).dtype for key in view.entity.keys])
    reading = SettledReading(plan)
    waiting: list[Prepared] = []
    for portion in portions:
        events = None
        if portion.events is not None:
            prepared = prepare(plan, keys, portion.events)
            due = prepared.effective <= portion.upto
            events = _by_entity(prepared.take(due))
            if not due.all():
                waiting.append(prepared.take(~due))
        rows = reading.settle(len(keys), events, portion.upto)
        if since_us is not None:
            rows = rows.take(rows.instant > since_us)
        if len(rows):
            entity = keys.order(rows.slot)
            order = _in_order(rows.instant, entity)
            write(table(view, keys, rows.take(order)).append_column(ORDER, pa.array(entity[order])))
    records = reading.gather(np.arange(len(keys)))
    pack = packer(plan, reading.names, lambda: records, None, 0, keys.since(0), waiting, position)
    return pack(Link(0, b""))


def joined_state(view: ViewDefinition, parts: list[bytes]) -> Restored | None:
    """The state of all buckets of a view as one, for `SourceFlow.take_up`; None where there are none."""
    if not parts:
        return None
    states = [restored([part], view, plain=False, on_change="refuse") for part in parts]
    keys: list[object] = []
    waiting = []
    for state in states:
        if state.waiting is not None:
            waiting.append(state.waiting.on_slots(np.arange(len(keys), len(keys) + len(state.keys))))
        keys += state.keys
    return replace(
        states[0],
        records=Records.joined([state.records for state in states]),
        keys=keys,
        waiting=Prepared.concat(waiting) if waiting else None,
    )


def _in_order(instant: Ints, entity: Ints) -> Ints:
    return in_order(instant, lambda at: (entity[at],))


def _by_entity(events: Prepared) -> Prepared | None:
    """In order of entity, and within each in the order of the log: what the kernels touch lies together."""
    if not len(events):
        return None
    order = np.lexsort((events.position, events.time, events.effective, events.slot))
    return events.take(order)
