"""Long streams of the oracle's events, made from a seed: what Hypothesis would draw too slowly, event by event."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.oracle.described import Sent
from tests.oracle.naive import Taken

JANUARY = 1_767_225_600_000_000  # 2026-01-01T00:00Z


@dataclass(frozen=True)
class Step:
    """Events that arrive together; then the clock and the watermark stand at these instants, microseconds."""

    taken: Sequence[Taken]
    clock: int
    watermark: int


def stream(
    seed: int,
    n: int,
    *,
    unit: int,
    lateness: int = 0,
    keys: int = 3,
    gap: float = 0.03,
    batch: tuple[int, int] = (1, 40),
) -> list[Step]:
    """`n` events of `keys` entities over two partitions, cut into batches.

    Instants are multiples of `unit`, give or take a microsecond, with ties; one step in 1 / `gap` is long enough to
    empty windows. An event arrives at most `lateness` after a newer one, so none is late. Values are multiples of 1/4:
    sums of them are exact, so that a value changes in both of two computations or in neither.
    """
    rng = random.Random(seed)
    now = JANUARY
    events = []
    for _ in range(n):
        now += unit * (rng.choice((8, 20, 60)) if rng.random() < gap else rng.choice((0, 0, 1, 1, 2)))
        time = now + (rng.choice((-1, 0, 0, 1)) if unit > 1 else 0)
        events.append((time + rng.randint(0, lateness), time))
    events.sort(key=lambda e: e[0])
    offsets = [0, 0]
    taken = []
    for _, time in events:
        partition = rng.randrange(2)
        columns = {
            "who": f"e{rng.randrange(keys)}",
            "where_from": rng.randrange(2),
            "id": None,
            "amount": rng.choice((None, math.nan, *(rng.randrange(400) / 4 for _ in range(8)))),
            "units": rng.choice((None, *range(6))),
            "city": rng.choice((None, "", "oslo", "rome", "ürümqi")),
            "paid": rng.choice((None, True, False)),
        }
        taken.append(Taken(Sent(time, columns, partition, offsets[partition]), time))
        offsets[partition] += 1
    steps = []
    at = 0
    newest = JANUARY - unit
    while at < n:
        some = taken[at : at + rng.randint(*batch)]
        at += len(some)
        newest = max(newest, *(one.event.time for one in some))
        # Arrival is in order of time + delay, so what comes later is at most `lateness` older; give or take the jitter.
        steps.append(Step(some, newest, newest - lateness - 2))
    return steps
