"""One case of `benchmarks.growth`, in a process of its own.

    python -m benchmarks.growth_case '{"entities": 100000}'     fields of `Case`; prints its figures as JSON

Times are those of the process on a processor: the operator is one thread that waits for nothing, and what else runs on
the machine is left out, but for the caches that it takes away.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from resource import getpagesize

import numpy as np

from benchmarks.growth_stream import LATENESS_US, PICKUPS, Batch, Case, Stream
from headrace.flows.pipeline import SourceFlow
from headrace.flows.shard import ShardOperator
from headrace.flows.view_flow import SETTLE_EVENTS

SIZES = (1, 10, 100)
HOPS = 4
Say = Callable[[str], None]


class Ours:
    """An operator of one view, or a flow of several."""

    def __init__(self, case: Case) -> None:
        self._operator = ShardOperator(case.view("growth"))
        views = [case.view(f"growth_{number}") for number in range(case.views)]
        self._flow = SourceFlow(PICKUPS, views) if views else None
        self._clock = self._unsettled = 0
        self.online = self.log = 0

    def take(self, batch: Batch, settles: int = 0) -> tuple[float, float]:
        """Seconds until the online rows are there, and seconds of settling; in a flow the first are those of both.

        settles: the log settles once so many events have come, as in a live flow.
        """
        self._clock = max(self._clock, int(batch.events.time.max()))
        self._unsettled += len(batch.who)
        began = time.process_time()
        if self._flow is not None:
            made = self._flow.push(batch.events)
            over = between = time.process_time()
            self.online += sum(table.num_rows for table in made.online.values())
            self.log += sum(table.num_rows for table in made.log.values())
        else:
            self.online += self._operator.process(batch.events, self._clock).num_rows
            over = between = time.process_time()
            if self._unsettled >= settles:
                self._unsettled = 0
                self.log += self._operator.settle(self._clock - LATENESS_US).num_rows
                over = time.process_time()
        return between - began, over - between

    @property
    def nbytes(self) -> int:
        operators = [self._operator] if self._flow is None else self._flow._operators.values()
        return sum(operator.nbytes for operator in operators)


class Limit:
    """A plain NumPy pass: the tile of each event; count, sum and maximum by entity, for each view.

    In tables of all entities: that of `benchmarks.operator` makes its tables anew for each batch, which would be most
    of its work where entities are millions.
    """

    def __init__(self, case: Case, stream: Stream) -> None:
        self._hop_us, self._views = stream.hop_us, max(1, case.views)
        self._count = np.ones(case.entities, dtype=np.int64)
        self._sum = np.ones((case.numbers, case.entities))
        self._most = np.ones((case.numbers, case.entities))
        self.last_tile = 0

    def take(self, batch: Batch) -> float:
        """Seconds of the pass."""
        began = time.process_time()
        for _ in range(self._views):
            self.last_tile = int(((batch.events.time - 1) // self._hop_us)[-1])
            np.add.at(self._count, batch.who, 1)
            for total, most, amount in zip(self._sum, self._most, batch.amounts, strict=True):
                np.add.at(total, batch.who, amount)
                np.maximum.at(most, batch.who, amount)
        return time.process_time() - began


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


def large(case: Case, say: Say) -> dict[str, float]:
    """Batches of 10,000: while windows fill, and when they are full."""
    stream = Stream(case)
    limit = Limit(case, stream)
    warm(case)
    before = resident()
    ours = Ours(case)
    events = 0
    filling = []
    for batch in stream.filling():
        filling.append(sum(ours.take(batch)))
        events += len(batch.who)
    say(f"filled: {sum(filling) / events * 1e6:.3g} us an event, the longest batch {max(filling) * 1e3:.3g} ms")
    ours.online = ours.log = 0
    whole, process, least = [], [], []
    for turn in range(case.rounds):
        batches = stream.round()
        gc.collect()
        found = [ours.take(batch) for batch in batches]
        whole.append(sum(map(sum, found)) / case.events)
        process.append(sum(part for part, _ in found) / case.events)
        least.append(sum(map(limit.take, batches)) / case.events)
        say(f"{turn + 1}/{case.rounds}: {whole[-1] * 1e6:.3g} us an event, limit {least[-1] * 1e6:.3g}")
    return {
        "ours": 1 / statistics.median(whole),
        "limit": 1 / statistics.median(least),
        "least": 1 / max(whole),
        "most": 1 / min(whole),
        "process_us": statistics.median(process) * 1e6,
        "online_rows": ours.online / case.rounds / case.events,
        "log_rows": ours.log / case.rounds / case.events,
        "fill_us": sum(filling) / events * 1e6,
        "longest_ms": max(filling) * 1e3,
        "state": ours.nbytes / case.entities,
        "resident": (resident() - before) / case.entities,
    }


def small(case: Case, say: Say) -> dict[str, dict[str, float]]:
    """Small batches, microseconds each until the online rows are there; by what they are."""
    stream = Stream(case)
    limit, ours = Limit(case, stream), Ours(case)
    for batch in stream.filling():
        ours.take(batch)
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(case.rounds):
        for size, fresh in [(size, fresh) for size in SIZES for fresh in (False, True)]:
            name = f"{size}, one new" if fresh else f"{size}"
            batches = [stream.small(size, fresh=fresh) for _ in range(case.events)]
            gc.collect()
            took = np.array([ours.take(batch, SETTLE_EVENTS) for batch in batches]) * 1e6
            figures = {
                "ours": float(np.median(took[:, 0])),
                "limit": float(np.median([limit.take(batch) for batch in batches]) * 1e6),
                "p99": float(np.quantile(took[:, 0], 0.99)),
                "settle": float(took[:, 1].sum() / len(batches) / size),
            }
            for key, value in figures.items():
                found.setdefault(name, {}).setdefault(key, []).append(value)
            say(f"{turn + 1}/{case.rounds}, {name}: {figures['ours']:.4g} us a batch, limit {figures['limit']:.3g}")
    mid = {name: {key: statistics.median(each) for key, each in figures.items()} for name, figures in found.items()}
    for name, figures in found.items():
        mid[name] |= {"least": min(figures["ours"]), "most": max(figures["ours"])}
    return mid | {"a hop's end": hop_end(stream, ours, limit, say)}


def hop_end(stream: Stream, ours: Ours, limit: Limit, say: Say) -> dict[str, float]:
    """The batch of one event with which a hop ends, and what it settles, a few hops one after the other."""
    took, passed, rows = [], [], []
    for hop in range(HOPS + 1):
        stream.pass_to_hop()
        ours.online = 0
        batch = stream.small(1, fresh=False)
        each = np.array(ours.take(batch)) * 1e6
        least = limit.take(batch) * 1e6
        if hop == 0:
            continue  # it lets more time pass than a hop
        took.append(each)
        passed.append(least)
        rows.append(ours.online)
        say(f"a hop's end: {each[0] / 1e3:.4g} ms, {rows[-1]:,} rows; settling {each[1] / 1e3:.4g} ms")
    process, settle = np.array(took).T
    return {
        "ours": float(np.median(process)),
        "limit": statistics.median(passed),
        "settle": float(np.median(settle)),
        "least": float(process.min()),
        "most": float(process.max()),
        "rows": statistics.median(rows),
    }


def warm(case: Case) -> None:
    """Kernels are loaded and Arrow has begun before memory is looked at."""
    few = replace(case, entities=100, per_window=1.0)
    ours = Ours(few)
    for batch in Stream(few).filling():
        ours.take(batch)


def main() -> None:
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(sys.argv[1]).items()}
    case = Case(**told)

    def say(words: str) -> None:
        print(f"    {words}", file=sys.stderr, flush=True)

    print(json.dumps(small(case, say) if case.small else large(case, say)))


if __name__ == "__main__":
    main()
