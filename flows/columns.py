"""The arrays of one reading: made, grown, compacted, copied and saved.

Kernels never allocate. Before each call the owner makes room: one free entry per group and event (and per pending event
that the call may release), one free pending cell per group that holds events back.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.flows.lanes import FOREVER, NEVER
from headrace.flows.plan import Plan
from headrace.flows.readings import BLOCK
from headrace.flows.state import (
    AFTER,
    ASOF,
    ENTRIES_LEFT,
    FIRST_GROUP,
    FREE_ENTRIES,
    FREE_PENDING,
    GROUP_STRIDE,
    HEAD,
    LENGTH,
    NEWEST,
    NEXT,
    NONE,
    PENDING_HEAD,
    PENDING_LEFT,
    WINDOW_STRIDE,
    WRITTEN,
    State,
)

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
SLOT_ARRAYS = ("si", "sf", "vf", "vk")
ENTRY_ARRAYS = ("ei", "ef")
PENDING_ARRAYS = ("pi", "pf", "pm")
ARRAYS = (*SLOT_ARRAYS, *ENTRY_ARRAYS, *PENDING_ARRAYS, "control")
UNSEEN = 2  # in `vk`: no value was ever written for this slot, so any value differs from it


class StateColumns:
    """One reading of one view: `state` for the kernels, `blocks` with the earliest next change of each block of
    slots."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.slots = 0
        t = plan.tables
        self._width = FIRST_GROUP + GROUP_STRIDE * len(t.groups) + WINDOW_STRIDE * len(t.windows)
        groups = FIRST_GROUP + np.arange(len(t.groups)) * GROUP_STRIDE
        windows = FIRST_GROUP + GROUP_STRIDE * len(t.groups) + np.arange(len(t.windows)) * WINDOW_STRIDE
        self._lengths = windows + LENGTH
        self._heads = groups + HEAD
        self._waiting = groups + PENDING_HEAD
        self.blocks: Ints = np.empty(0, dtype=np.int64)
        self.state = _state(
            si=np.empty((0, self._width), dtype=np.int64),
            sf=np.empty((0, plan.back_lanes)),
            vf=np.empty((0, len(t.results))),
            vk=np.empty((0, len(t.results)), dtype=np.uint8),
            ei=np.empty((0, 4), dtype=np.int64),
            ef=np.empty((0, plan.entry_lanes)),
            pi=np.empty((0, 4), dtype=np.int64),
            pf=np.empty((0, max(1, len(plan.inputs)))),
            pm=np.empty((0, len(plan.masks)), dtype=np.uint8),
            control=np.array([NONE, NONE, 0, 0], dtype=np.int64),
        )

    def reserve(self, slots: int, events: int) -> None:
        """Room for `slots` slots in all, and for folding `events` more events."""
        if slots > len(self.state.si):
            self._grow_slots(max(slots, 2 * len(self.state.si), 64))
        self.slots = max(self.slots, slots)
        groups = len(self._plan.tables.groups)
        control = self.state.control
        held = len(self.state.pi) - int(control[PENDING_LEFT])
        for cell, left, wanted in (
            (FREE_ENTRIES, ENTRIES_LEFT, events * groups + held),
            (FREE_PENDING, PENDING_LEFT, events * groups if self._plan.pends else 0),
        ):
            if control[left] < wanted:
                self._grow_pool(cell, left, wanted - int(control[left]))

    def _grow_slots(self, capacity: int) -> None:
        st = self.state
        there = len(st.si)
        si = np.empty((capacity, self._width), dtype=np.int64)
        si[:there] = st.si
        fresh = si[there:]
        fresh[:] = NONE
        fresh[:, [NEWEST, ASOF, WRITTEN]] = NEVER
        fresh[:, NEXT] = FOREVER
        fresh[:, self._lengths] = 0
        vk = np.empty((capacity, st.vk.shape[1]), dtype=np.uint8)
        vk[:there], vk[there:] = st.vk, UNSEEN
        grown = {"si": si, "sf": _longer(st.sf, capacity), "vf": _longer(st.vf, capacity), "vk": vk}
        self.state = _state(**(self._arrays() | grown))
        blocks = np.full(-(-capacity // BLOCK), FOREVER, dtype=np.int64)
        blocks[: len(self.blocks)] = self.blocks
        self.blocks = blocks

    def _grow_pool(self, cell: int, left: int, missing: int) -> None:
        arrays = self._arrays()
        names = ENTRY_ARRAYS if cell == FREE_ENTRIES else PENDING_ARRAYS
        before = len(arrays[names[0]])
        more = max(missing, before // 2, 1024)
        for name in names:
            arrays[name] = _longer(arrays[name], before + more)
        links, control = arrays[names[0]], arrays["control"]
        links[before:, AFTER] = np.arange(before + 1, before + more + 1)
        links[-1, AFTER] = control[cell]
        control[cell] = before
        control[left] += more
        self.state = _state(**arrays)

    def _arrays(self) -> dict[str, Array]:
        return {name: getattr(self.state, name) for name in ARRAYS}

    def empty_slots(self) -> npt.NDArray[np.bool_]:
        """(slots,) bool: nothing is left in any window, and nothing waits to enter one."""
        si = self.state.si[: self.slots]
        return (si[:, self._heads] == NONE).all(axis=1) & (si[:, self._waiting] == NONE).all(axis=1)

    def newest(self) -> Ints:
        """(slots,) newest event of each slot, microseconds; the least int64 before the first."""
        return self.state.si[: self.slots, NEWEST]

    def due(self) -> Ints:
        """(slots,) instant of each slot's next change, microseconds; the greatest int64 if there is none."""
        return self.state.si[: self.slots, NEXT]

    def keep(self, slots: Ints) -> None:
        """Keep only these slots, which take the numbers 0, 1, ... in the order given; what the others hold is freed."""
        dropped = np.ones(self.slots, dtype=np.bool_)
        dropped[slots] = False
        self._free(dropped, self._heads, self.state.ei, FREE_ENTRIES, ENTRIES_LEFT)
        self._free(dropped, self._waiting, self.state.pi, FREE_PENDING, PENDING_LEFT)
        self.state = _state(**{n: a[slots] if n in SLOT_ARRAYS else a for n, a in self._arrays().items()})
        self.slots = len(slots)
        self.reschedule()

    def _free(self, dropped: Array, heads: Ints, links: Ints, cell: int, left: int) -> None:
        """Put the lists that start at columns `heads` of the dropped slots before the free list of their pool."""
        found = []
        at = self.state.si[: self.slots][dropped][:, heads].ravel()
        while len(at := at[at != NONE]):
            found.append(at)
            at = links[at, AFTER]
        if found:
            cells = np.concatenate(found)
            control = self.state.control
            links[cells[:-1], AFTER] = cells[1:]
            links[cells[-1], AFTER] = control[cell]
            control[cell] = cells[0]
            control[left] += len(cells)

    def reschedule(self) -> None:
        """Work out `blocks` from the slots."""
        count = len(self.state.si)
        self.blocks = np.full(-(-count // BLOCK), FOREVER, dtype=np.int64)
        if count:
            starts = np.arange(0, count, BLOCK)
            self.blocks[:] = np.minimum.reduceat(self.state.si[:, NEXT], starts)

    def nbytes(self) -> int:
        """Bytes held, free cells included."""
        return sum(int(a.nbytes) for a in self._arrays().values()) + int(self.blocks.nbytes)

    def copy(self) -> "StateColumns":
        """The same state in memory of its own."""
        made = StateColumns(self._plan)
        arrays = {n: a[: self.slots] if n in SLOT_ARRAYS else a for n, a in self._arrays().items()}
        made.state = _state(**{name: array.copy() for name, array in arrays.items()})
        made.slots = self.slots
        made.reschedule()
        return made

    def extend(self, entries: int, pending: int) -> None:
        """Put so many cells before those that there are; they belong to no list, and hold what they may."""
        arrays = self._arrays()
        for names, count in ((ENTRY_ARRAYS, entries), (PENDING_ARRAYS, pending)):
            for name in names:
                old = arrays[name]
                arrays[name] = np.concatenate([np.zeros((count, old.shape[1]), dtype=old.dtype), old])
        self.state = _state(**arrays)


def _longer(old: Array, rows: int) -> Array:
    """The same rows, and zeros behind them; memory that the system gives zeroed is not touched before it is used."""
    made = np.zeros((rows, old.shape[1]), dtype=old.dtype)
    made[: len(old)] = old
    return made


def _state(*, si: Array, sf: Array, vf: Array, vk: Array, ei: Array, ef: Array, pi: Array, pf: Array, pm: Array,
           control: Array) -> State:  # fmt: skip
    """A `State` with its float arrays read as int64 beside them."""
    return State(
        si, sf, sf.view(np.int64), vf, vf.view(np.int64), vk, ei, ef, ef.view(np.int64), pi, pf, pf.view(np.int64), pm,
        control,
    )  # fmt: skip
