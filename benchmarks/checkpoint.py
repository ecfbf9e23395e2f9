"""Checkpoints of one operator with a million entities in memory: a delta beside everything.

    python -m benchmarks.checkpoint [entities]

Count, sum, mean and maximum over the last 30 minutes by the minute; four events of each entity are in its window.
Between two checkpoints 1 %, 10 % or 100 % of the entities get an event.

Ours: `save`, packing, writing and fsync. Limit: a plain write and fsync of the same bytes.
Peer `plain loop`: the full snapshot each time, in the same format.
`pause` is how long the flow stands still for it (packing and writing are another thread's); its limit is a copy of
the changed state's bytes in memory. The limit of `bytes` is the events themselves, 24 bytes each.
"""

import gc
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.workload import START_US, LastHalfHour, report
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.shard import ShardOperator
from headrace.stores.checkpoints import SnapshotPart

MINUTE_US = 60_000_000
ROUNDS = 4
TURNS = 5
BATCH = 100_000
Ints = npt.NDArray[np.int64]


class Fleet:
    """An operator and what it takes to send its entities an event each."""

    def __init__(self, entities: int) -> None:
        self.operator = ShardOperator(LastHalfHour)
        self.entities = entities
        self._names = pa.array([f"driver_{i:07d}" for i in range(entities)])
        self._rng = np.random.default_rng(20240615)
        self._sent = 0
        self._now = START_US
        for _ in range(ROUNDS):
            self.touch(1.0, 5 * MINUTE_US)

    def touch(self, share: float, span_us: int = 1_000_000) -> int:
        """One event for each of a share of the entities within `span_us`, all settled. Returns how many."""
        count = int(self.entities * share)
        chosen = self._rng.permutation(self.entities)[:count]
        times = self._now + 1 + np.arange(count) * span_us // count
        for start in range(0, count, BATCH):
            part = slice(start, start + BATCH)
            self._send(chosen[part], times[part])
        self._now = int(times[-1])
        return count

    def _send(self, who: Ints, times: Ints) -> None:
        n = len(who)
        columns = {
            "driver_id": BatchColumn("string", arrow=self._names.take(pa.array(who))),
            "amount": BatchColumn("float64", values=np.round(self._rng.gamma(3.0, 8.0, n), 2)),
            "at": BatchColumn("timestamp", values=times),
        }
        offsets = np.arange(self._sent, self._sent + n)
        self._sent += n
        self.operator.process(EventBatch.of(columns, times, 0, offsets), int(times[-1]))
        self.operator.settle(int(times[-1]) + 1)


def saved(fleet: Fleet, place: Path, *, full: bool) -> tuple[SnapshotPart, float, float]:
    """The part, seconds that the flow stood still, seconds until it was on the disk."""
    gc.collect()
    began = time.perf_counter()
    part = fleet.operator.save(full)
    paused = time.perf_counter() - began
    written(place, part.data)
    return part, paused, time.perf_counter() - began


def written(place: Path, data: bytes) -> float:
    began = time.perf_counter()
    with open(place, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - began


def copied(size: int) -> float:
    source = np.ones(size, dtype=np.uint8)
    began = time.perf_counter()
    source.copy()
    return time.perf_counter() - began


def main() -> None:
    entities = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    fleet = Fleet(entities)
    each = fleet.operator.nbytes // 2 // entities
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "part"
        saved(fleet, place, full=True)
        for share in (0.01, 0.1, 1.0):
            found: dict[str, list[float]] = {}
            for turn in range(-1, TURNS):
                events = fleet.touch(share)
                part, pause, whole = saved(fleet, place, full=False)
                limit = written(place, part.data)
                _, pause_full, whole_full = saved(fleet, place, full=True)
                figures = {
                    "whole": whole, "limit": limit, "plain": whole_full, "pause": pause, "plain pause": pause_full,
                    "copy": copied(each * events), "bytes": len(part.data), "plain bytes": place.stat().st_size,
                    "events": 24 * events,
                }  # fmt: skip
                if turn < 0:
                    continue  # the first turn warms up
                for name, value in figures.items():
                    found.setdefault(name, []).append(value)
                print(
                    f"  {share:.0%} {turn + 1}/{TURNS}: delta={part.delta}, {len(part.data):,} bytes, pause "
                    f"{pause:.3f} s of {whole:.3f} s; full: pause {pause_full:.3f} s of {whole_full:.3f} s",
                    file=sys.stderr,
                )
            mid = {name: statistics.median(values) for name, values in found.items()}
            case = f"{entities:,} entities, {share:.0%} touched"
            for kind, ours, least, plain, unit in (
                ("", "whole", "limit", "plain", "s"),
                (", pause", "pause", "copy", "plain pause", "s"),
                (", bytes", "bytes", "events", "plain bytes", "bytes"),
            ):
                report(
                    "checkpoint",
                    case + kind,
                    mid[ours],
                    mid[least],
                    {"plain loop": mid[plain]},
                    unit,
                    TURNS,
                    higher_is_better=False,
                )


if __name__ == "__main__":
    main()
