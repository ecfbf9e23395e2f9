"""The object features of one reading, driven by the rows that the kernels say are due."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.features.features import MISSING
from headrace.flows.buffer import Prepared
from headrace.flows.identity import Names
from headrace.flows.objects import ObjectFeature
from headrace.flows.ordered_objects import OrderedFeature
from headrace.flows.plan import Plan
from headrace.flows.records import List, Records

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class ObjectFeatures:
    """All object features of a plan. Rows must be asked for in time order per slot."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._features = [
            (OrderedFeature if r.feature.agg.ordered else ObjectFeature)(
                r.feature.agg, r.feature.window, r.feature.default, r.feature.default is not MISSING
            )
            for r in plan.objects
        ]

    def __len__(self) -> int:
        return len(self._features)

    def add(self, events: Prepared, chosen: Sequence[int]) -> None:
        """Fold the chosen events in."""
        for at, result in enumerate(self._plan.objects):
            feature = self._features[at]
            for e in chosen:
                if events.masks[e, result.rows]:
                    place = int(events.slot[e]), int(events.time[e]), int(events.position[e])
                    feature.add(*place, events.objects[e, at], int(events.effective[e]))

    def settle(
        self, events: Prepared | None, slots: Ints, instants: Ints
    ) -> tuple[dict[str, tuple[Array, Array]], Array]:
        """Values at rows (slot, instant), each after the slot's events effective by then. `events` are in time order.

        Returns the columns by feature name, and (rows,) bool: some value differs from the row before.
        """
        waiting: dict[int, list[int]] = {}
        if events is not None:
            for e, slot in enumerate(events.slot.tolist()):
                waiting.setdefault(slot, []).append(e)
        taken = dict.fromkeys(waiting, 0)
        effective = events.effective.tolist() if events is not None else []
        values = np.empty((len(slots), len(self._features)), dtype=object)
        changed = np.zeros(len(slots), dtype=np.bool_)
        for row, (slot, instant) in enumerate(zip(slots.tolist(), instants.tolist(), strict=True)):
            mine = waiting.get(slot)
            if mine is not None and events is not None:
                start = end = taken[slot]
                while end < len(mine) and effective[mine[end]] <= instant:
                    end += 1
                self.add(events, mine[start:end])
                taken[slot] = end
            changed[row] = self._write(values, row, slot, instant, instant)
        return self._columns(values), changed

    def at(self, slots: Ints, instants: Ints, steady: int) -> tuple[dict[str, tuple[Array, Array]], Array]:
        """Values of slots at instants, with everything added so far; returns as `settle` does."""
        values = np.empty((len(slots), len(self._features)), dtype=object)
        changed = np.zeros(len(slots), dtype=np.bool_)
        for row, (slot, instant) in enumerate(zip(slots.tolist(), instants.tolist(), strict=True)):
            changed[row] = self._write(values, row, slot, instant, steady)
        return self._columns(values), changed

    def _write(self, values: Array, row: int, slot: int, instant: int, steady: int) -> bool:
        changed = False
        for at, (feature, result) in enumerate(zip(self._features, self._plan.objects, strict=True)):
            value = values[row, at] = feature.value(slot, instant, steady)
            if feature.changed(slot, value) and not result.hidden:
                changed = True
        return changed

    def _columns(self, values: Array) -> dict[str, tuple[Array, Array]]:
        out = {}
        for at, result in enumerate(self._plan.objects):
            column = values[:, at]
            out[result.name] = (column, np.array([v is not None for v in column], dtype=np.bool_))
        return out

    def keep(self, slots: Ints) -> None:
        """Keep only these slots, renumbered 0, 1, ... in the order given."""
        for feature in self._features:
            feature.keep(slots.tolist())

    def copy(self, slots: int) -> "ObjectFeatures":
        """The same state of `slots` slots, to go on apart from this one, which must not change meanwhile."""
        made = ObjectFeatures(self._plan)
        made._features = [feature.copy(range(slots)) for feature in self._features]
        return made

    def followed(self) -> "ObjectFeatures":
        """The same state, to go on with events before they come to this one."""
        made = ObjectFeatures(self._plan)
        made._features = [feature.followed() for feature in self._features]
        return made

    def gather(self, names: Names, slots: Ints, out: Records) -> None:
        """Put the state of the slots into their records."""
        chosen = slots.tolist()
        for at, feature in enumerate(self._features):
            windows, last = feature.save(chosen)
            out.lists[f"object/{names.objects[at]}"] = _blobs(windows)
            out.lists[f"given/{names.given[at]}"] = _blobs(last)

    def scatter(self, names: Names, records: Records) -> None:
        """Take over the state of slots 0, 1, ... from their records; a feature that they do not know begins empty."""
        for at, feature in enumerate(self._features):
            windows, last = (
                _cut(records.lists[name]) if name in records.lists else []
                for name in (f"object/{names.objects[at]}", f"given/{names.given[at]}")
            )
            feature.load(windows, last)


def _blobs(values: list[bytes]) -> List:
    counts = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
    return List(counts, {"bytes": np.frombuffer(b"".join(values), dtype=np.uint8)})


def _cut(blobs: List) -> list[bytes]:
    data = blobs.columns["bytes"].tobytes()
    ends = np.cumsum(blobs.counts).tolist()
    return [data[end - size : end] for end, size in zip(ends, blobs.counts.tolist(), strict=True)]
