"""Derived features of the rows a reading writes, and whether they changed."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.features.reading import derive
from headrace.flows.identity import Names
from headrace.flows.plan import Plan
from headrace.flows.records import Records
from headrace.flows.results import CANDIDATE, CHANGED

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class Derivation:
    """Computes derived features; remembers each slot's last values where a row may stand or fall with them.

    That is so in a view with hidden operands or object features (`plan.candidates`): elsewhere a derived value
    cannot change unless a public number did.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._view = plan.view
        moving = {each.name for each in plan.view.rederived}
        names = (n for n in plan.derived if not plan.hidden(n) and n not in moving)
        self._names = tuple(names) if plan.candidates else ()
        self._any = bool(plan.derived)
        self._last = np.zeros((0, 2 * len(self._names)), dtype=np.int64)

    def add(self, values: dict[str, tuple[Array, Array]], slots: Ints, kinds: Ints) -> None:
        """Add the derived columns to `values`, and raise `kinds` to CHANGED where a public one differs from the
        slot's last.

        Rows are in time order per slot.
        """
        if not self._any:
            return
        values.update(derive(self._view, values, len(slots)))
        if not self._names or not len(slots):
            return
        self._reserve(int(slots.max()) + 1)
        now = np.empty((len(slots), self._last.shape[1]), dtype=np.int64)
        for at, name in enumerate(self._names):
            column, valid = values[name]
            now[:, 2 * at] = np.where(valid, _bits(column), 0)
            now[:, 2 * at + 1] = valid
        order = np.argsort(slots, kind="stable")
        ordered, sorted_slots = now[order], slots[order]
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = sorted_slots[1:] != sorted_slots[:-1]
        before = np.empty_like(ordered)
        before[1:] = ordered[:-1]
        before[first] = self._last[sorted_slots[first]]
        changed = np.empty(len(order), dtype=np.bool_)
        changed[order] = (ordered != before).any(axis=1)
        kinds[changed & (kinds == CANDIDATE)] = CHANGED
        final = np.append(first[1:], True)
        self._last[sorted_slots[final]] = ordered[final]

    def keep(self, slots: Ints) -> None:
        """Keep only these slots, renumbered 0, 1, ... in the order given."""
        self._reserve(int(slots.max(initial=-1)) + 1)
        self._last = self._last[slots]

    def copy(self) -> "Derivation":
        """The same last values in memory of their own."""
        made = Derivation(self._plan)
        made._last = self._last.copy()
        return made

    def gather(self, names: Names, slots: Ints, out: Records) -> None:
        """Put the slots' last values into their records."""
        most = int(slots.max(initial=-1)) + 1
        self._reserve(most)
        last = self._last[slots]
        for at, name in enumerate(self._names):
            out.fixed[f"derived/{names.derived[name]}"] = last[:, 2 * at : 2 * at + 2]

    def scatter(self, names: Names, records: Records) -> None:
        """Take over the last values of slots 0, 1, ...; one that the records do not know differs from any value."""
        self._last = np.zeros((0, 2 * len(self._names)), dtype=np.int64)
        self._reserve(records.n)
        for at, name in enumerate(self._names):
            column = f"derived/{names.derived[name]}"
            if column in records.fixed:
                self._last[: records.n, 2 * at : 2 * at + 2] = records.fixed[column]

    def _reserve(self, slots: int) -> None:
        if slots > len(self._last):
            grown = np.zeros((max(slots, 2 * len(self._last)), self._last.shape[1]), dtype=np.int64)
            grown[:, 1::2] = 2  # neither null nor a value: the first row differs from it
            grown[: len(self._last)] = self._last
            self._last = grown


def _bits(column: Array) -> Ints:
    """int64 that are equal where the values are."""
    if column.dtype == np.float64:
        return column.view(np.int64) if column.flags.c_contiguous else np.ascontiguousarray(column).view(np.int64)
    if column.dtype == object:
        # 64 bits of a digest: two texts that an entity has one after the other do not meet in practice.
        digests = (hashlib.blake2b(repr(v).encode(), digest_size=8).digest() for v in column)
        return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)
    return column.astype(np.int64)
