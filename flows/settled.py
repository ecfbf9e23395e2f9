"""The settled reading: events folded in time order as the watermark passes, one row per instant (contract C18)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.flows.buffer import Prepared
from headrace.flows.columns import StateColumns
from headrace.flows.derivation import Derivation
from headrace.flows.lanes import FOREVER
from headrace.flows.object_features import ObjectFeatures
from headrace.flows.plan import Plan
from headrace.flows.readings import settle_events, settle_silence
from headrace.flows.results import CANDIDATE
from headrace.flows.rows import Columns, grow_rows, make_rows, number_columns

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class SettledReading:
    """State of a view as of the settled frontier."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
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
        made = SettledReading(self._plan)
        made.load(self.save(), self.objects.save(), self.derivation.save())
        return made

    def save(self) -> dict[str, Array]:
        """The kernels' arrays; objects and derivation are saved beside them."""
        return self.columns.save()

    def load(self, arrays: Mapping[str, Array], objects: list[bytes], derivation: Mapping[str, Array]) -> None:
        """Take over saved state."""
        self.columns = StateColumns.load(self._plan, arrays)
        self.objects.load(objects)
        self.derivation.load(derivation)

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
