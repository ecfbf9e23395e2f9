"""Drift detectors at work: settled rows in, drifts out, with a state that a checkpoint holds."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.features.drift import DriftWatch
from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition
from headrace.flows.snapshot import pack, unpack
from headrace.stores.layout import EVENT_TIMESTAMP

DRIFT = "-drift"
"""The part of a checkpoint that holds the detectors; no view has such a name."""
KEPT = 1_000
"""The newest drifts that a checkpoint keeps, of all detectors of a source."""


@dataclass(frozen=True)
class Drift:
    """A detector said that a feature's values have changed.

    at_us: instant of the row at which it did, microseconds. value: the feature's there. number: how many drifts the
    detector has found, this one included. rows: how many values it had seen.
    """

    view: str
    feature: str
    detector: str
    at_us: int
    value: float
    number: int
    rows: int

    def message(self) -> bytes:
        """As JSON, for a topic."""
        return msgspec.json.encode({**asdict(self), "at": format_instant(self.at_us)})


class DriftDetectors:
    """The detectors of a flow's views over one source."""

    def __init__(self, views: Iterable[ViewDefinition]) -> None:
        self._views = {view.name: view.drift for view in views if view.drift}
        self._states = {
            (name, watch.feature, watch.name): watch.detector.init()
            for name, watches in self._views.items()
            for watch in watches
        }
        self._found: deque[Drift] = deque(maxlen=KEPT)

    def __bool__(self) -> bool:
        return bool(self._views)

    def look(self, view: str, rows: pa.Table) -> list[Drift]:
        """Let the detectors of a view see settled rows, in their order; missing values are not shown to them."""
        found: list[Drift] = []
        for watch in self._views.get(view, ()):
            found += self._watched(view, watch, rows)
        found.sort(key=lambda each: each.at_us)
        self._found.extend(found)
        return found

    def _watched(self, view: str, watch: DriftWatch, rows: pa.Table) -> list[Drift]:
        state, update = self._states[view, watch.feature, watch.name], watch.detector.update
        values = rows.column(watch.feature).to_pylist()
        instants = np.asarray(rows.column(EVENT_TIMESTAMP).cast(pa.int64())).tolist()
        found = []
        for at, value in zip(instants, values, strict=True):
            if value is None or math.isnan(value):
                continue
            before = state.drifts
            state = update(state, (value,), at, 0)
            if state.drifts > before:
                found.append(Drift(view, watch.feature, watch.name, at, float(value), state.drifts, state.seen))
        self._states[view, watch.feature, watch.name] = state
        return found

    def save(self) -> bytes:
        """All detectors, and the newest drifts they found."""
        states = [
            [name, watch.feature, watch.name, _told(watch), watch.detector.encode(state)]
            for name, watches in self._views.items()
            for watch in watches
            for state in [self._states[name, watch.feature, watch.name]]
        ]
        return pack({"states": states, "found": [asdict(each) for each in self._found]}, {})

    def load(self, data: bytes) -> None:
        """Go on from there; a detector that was another one begins anew.

        Raises:
            SnapshotError: it is damaged.
        """
        meta, _ = unpack(data)
        watches = {(name, watch.feature, watch.name): watch for name, each in self._views.items() for watch in each}
        for view, feature, name, told, state in meta["states"]:
            watch = watches.get((view, feature, name))
            if watch is not None and _told(watch) == told:
                self._states[view, feature, name] = watch.detector.decode(state)
        self._found = deque(drifts_in(data), KEPT)


def drifts_in(data: bytes) -> list[Drift]:
    """The newest drifts that a checkpoint's part names, oldest first."""
    meta, _ = unpack(data)
    found: list[dict[str, Any]] = meta["found"]
    return [Drift(**each) for each in found]


def _told(watch: DriftWatch) -> str:
    return blake2b(repr(watch.detector.key).encode(), digest_size=8).hexdigest()
