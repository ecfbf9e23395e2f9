"""The online reading: events folded in as they come, rows as of the clock or the newest event (contract C17)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.flows.buffer import Prepared
from headrace.flows.columns import UNSEEN, StateColumns
from headrace.flows.derivation import Derivation
from headrace.flows.lanes import NEVER
from headrace.flows.object_features import ObjectFeatures
from headrace.flows.plan import Plan
from headrace.flows.readings import take_events, write_expired, write_touched
from headrace.flows.results import CANDIDATE
from headrace.flows.rows import Columns, grow_rows, make_rows, number_columns
from headrace.flows.settled import SettledReading

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class OnlineReading:
    """State of a view as of now."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.columns = StateColumns(plan)
        self.objects = ObjectFeatures(plan)
        self.derivation = Derivation(plan)
        self._rows = make_rows(1024, len(plan.numbers))
        self._lanes = np.zeros((1, max(1, plan.entry_lanes)))
        self._none: Columns | None = None  # no rows, which is what most instants give

    @classmethod
    def after(cls, plan: Plan, settled: SettledReading) -> "OnlineReading":
        """The reading that has seen exactly what has settled; it takes the waiting events next."""
        made = cls(plan)
        made.columns = settled.columns.copy()
        made.columns.state.vk[:] = UNSEEN
        made.objects = settled.objects.followed()
        return made

    def take(self, slots: int, events: Prepared, clock: int, steady: int) -> Columns:
        """Fold in events in arrival order; one row per entity that they touch.

        `slots`: how many slots there are. `steady`: instant at or before which no event can come any more.
        """
        self.columns.reserve(slots, len(events))
        plan, st = self._plan, self.columns.state
        inputs = events.inputs
        touched = np.empty(len(events), dtype=np.int64)
        n = take_events(
            plan.tables, st, events.slot, events.effective, events.time, events.position, inputs, inputs.view(np.int64),
            events.masks, steady, touched,
        )  # fmt: skip
        if self.objects:
            self.objects.add(events, range(len(events)))
        return self._write(touched, n, clock, steady)

    def recall(self, clock: int, steady: int) -> None:
        """Take the values of all entities at `clock` for those last written, as they are when no restart came
        between."""
        self.all(self.columns.slots, clock, steady)

    def all(self, slots: int, clock: int, steady: int) -> Columns:
        """One row for each of `slots` entities that an event has reached, as of `clock` or its newest event."""
        self.columns.reserve(slots, 0)
        rows = self._write(np.arange(slots), slots, clock, steady)
        return rows.take(rows.newest != NEVER)

    def advance(self, clock: int, steady: int, *, every: bool = False) -> Columns:
        """Let the clock move to `clock`; one row per entity of which a value changed by that.

        every: also of those in which something entered or left a window and left all values as they were.
        """
        # Releasing events of `ending` windows takes entries too.
        self.columns.reserve(self.columns.slots, 0)
        plan, st = self._plan, self.columns.state
        slot = n = 0
        while True:
            slot, n = write_expired(
                plan.tables, st, self.columns.blocks, self._lanes, self._lanes.view(np.int64), clock, steady, slot,
                self._rows, n, plan.candidates or every,
            )  # fmt: skip
            if slot == len(st.si):
                break
            self._rows = grow_rows(self._rows, n)
        return self._columns(n, steady, every=every)

    def _write(self, touched: Ints, n: int, clock: int, steady: int) -> Columns:
        """One row for each of the first `n` slots in `touched`."""
        while n > len(self._rows.slot):
            self._rows = grow_rows(self._rows, 0)
        plan, st = self._plan, self.columns.state
        write_touched(
            plan.tables, st, self.columns.blocks, self._lanes, self._lanes.view(np.int64), touched, n, clock, steady,
            self._rows,
        )  # fmt: skip
        return self._columns(n, steady)

    def _columns(self, n: int, steady: int, *, every: bool = False) -> Columns:
        if n == 0 and self._none is not None:
            return self._none
        rows = self._rows
        slot, instant, newest, kind = (c[:n].copy() for c in (rows.slot, rows.instant, rows.newest, rows.kind))
        values = number_columns(self._plan, rows, n)
        if self.objects:
            more, changed = self.objects.at(slot, instant, steady)
            values.update(more)
            kind[changed] = np.maximum(kind[changed], CANDIDATE + 1)
        self.derivation.add(values, slot, kind)
        out = Columns(slot, instant, newest, values)
        if n == 0:
            self._none = out
        return out if every or not (kind == CANDIDATE).any() else out.take(kind != CANDIDATE)

    def keep(self, slots: Ints) -> None:
        """Keep only these slots, renumbered 0, 1, ... in the order given."""
        self.columns.keep(slots)
        self.objects.keep(slots)
        self.derivation.keep(slots)
