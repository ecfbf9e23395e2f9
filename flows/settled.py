"""The settled reading: events folded in time order as the watermark passes, one row per instant (contract C18)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.flows.buffer import Prepared
from headrace.flows.columns import StateColumns
from headrace.flows.derivation import Derivation
from headrace.flows.gathering import gather, scatter
from headrace.flows.identity import Names, names_of
from headrace.flows.lanes import FOREVER
from headrace.flows.object_features import ObjectFeatures
from headrace.flows.plan import Plan
from headrace.flows.readings import settle_events, settle_silence
from headrace.flows.records import Records
from headrace.flows.results import CANDIDATE
from headrace.flows.rows import Columns, grow_rows, make_rows, number_columns
from headrace.flows.state import ASOF

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
FEW = 25
"""Records of fewer slots than one in so many are made while the flow waits."""


class SettledReading:
    """State of a view as of the settled frontier."""

    def __init__(self, plan: Plan, names: Names | None = None) -> None:
        self._plan = plan
        self.names = names or names_of(plan)
        self.columns = StateColumns(plan)
        self.objects = ObjectFeatures(plan)
        self.derivation = Derivation(plan)
        self._rows = make_rows(1024, len(plan.numbers))
        self._lanes = np.zeros((1, max(1, plan.entry_lanes)))
        self.emptied = 0

    def settle(self, slots: int, events: Prepared | None, upto: int) -> Columns:
        """Fold in `events` (sorted, effective at or before `upto`) and let time pass to `upto`, inclusive.

        `slots`: how many slots there are. Returns one row per slot and instant at which an event came or a value
        changed, in time order per slot.
        """
        self.columns.reserve(slots, 0 if events is None else len(events))
        n = self._run(events, upto)
        rows = self._rows
        slot, instant, newest, kind = (c[:n].copy() for c in (rows.slot, rows.instant, rows.newest, rows.kind))
        values = number_columns(self._plan, rows, n)
        if self.objects:
            more, changed = self.objects.settle(events, slot, instant)
            values.update(more)
            kind[changed] = np.maximum(kind[changed], CANDIDATE + 1)
        self.derivation.add(values, slot, kind)
        out = Columns(slot, instant, newest, values)
        if self._plan.candidates and (kind == CANDIDATE).any():
            out = out.take(kind != CANDIDATE)
        every = self._plan.view.log_every_us
        return out if every is None else _thin(out, every)

    def _run(self, events: Prepared | None, upto: int) -> int:
        plan, st, blocks = self._plan, self.columns.state, self.columns.blocks
        lanes = self._lanes
        bits = lanes.view(np.int64)
        n = 0
        if events is not None:
            start = 0
            while True:
                start, n = settle_events(
                    plan.tables, st, blocks, lanes, bits, events.slot, events.effective, events.time, events.position,
                    events.inputs, events.inputs.view(np.int64), events.masks, start, self._rows, n, plan.candidates,
                )  # fmt: skip
                if start == len(events):
                    break
                self._rows = grow_rows(self._rows, n)
        slot = 0
        while True:
            slot, n, emptied = settle_silence(
                plan.tables, st, blocks, lanes, bits, upto, slot, self._rows, n, plan.candidates
            )
            self.emptied += emptied
            if slot == len(st.si):
                return n
            self._rows = grow_rows(self._rows, n)

    def copy(self) -> "SettledReading":
        """The same state in memory of its own."""
        made = SettledReading(self._plan, self.names)
        made.columns = self.columns.copy()
        made.objects = self.objects.copy(self.columns.slots)
        made.derivation = self.derivation.copy()
        return made

    def gather(self, slots: Ints) -> Records:
        """Records of the slots named; see records.py."""
        records = gather(self._plan, self.names, self.columns, slots)
        self.objects.gather(self.names, slots, records)
        self.derivation.gather(self.names, slots, records)
        return records

    def changed_since(self, instant: int, slots: int) -> Ints:
        """Slots of which something changed after the reading stood at `instant`, and those numbered `slots` or more.

        Whatever changes a slot moves its as-of, and instants that have settled are over: none comes back to one.
        """
        columns = self.columns
        changed = columns.state.si[: columns.slots, ASOF] > instant
        changed[slots:] = True
        return np.flatnonzero(changed)

    def frozen(self, slots: Ints) -> Callable[[], Records]:
        """The records of the slots named as they are now; made when called, in another thread perhaps.

        Of few slots they are made at once; of many it takes less time to copy the whole state and look for them later.
        """
        if FEW * len(slots) < self.columns.slots:
            records = self.gather(slots)
            return lambda: records
        plan, names, columns = self._plan, self.names, self.columns.copy()
        small = Records(len(slots))
        self.objects.gather(names, slots, small)
        self.derivation.gather(names, slots, small)

        def made() -> Records:
            records = gather(plan, names, columns, slots)
            records.fixed.update(small.fixed)
            records.lists.update(small.lists)
            return records

        return made

    def scatter(self, records: Records) -> None:
        """Take over the state of slots 0, 1, ... from their records."""
        self.columns = scatter(self._plan, self.names, records)
        self.objects.scatter(self.names, records)
        self.derivation.scatter(self.names, records)

    def keep(self, slots: Ints) -> None:
        """Keep only these slots, renumbered 0, 1, ... in the order given."""
        self.columns.keep(slots)
        self.objects.keep(slots)
        self.derivation.keep(slots)
        self.emptied = 0


def _thin(rows: Columns, every: int) -> Columns:
    """Only the last row of each slot in each interval (k*every, (k+1)*every]."""
    order = np.argsort(rows.slot, kind="stable")
    slot = rows.slot[order]
    interval = (rows.instant[order] - 1) // every
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = (slot[1:] != slot[:-1]) | (interval[1:] != interval[:-1])
    return rows.take(np.sort(order[last]))


LAST_INSTANT = FOREVER - 1
"""Time may pass to here: every window that ever empties has emptied."""
