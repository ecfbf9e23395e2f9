"""A soak: the server under a steady load for minutes, in which memory, open files and connections to Redis stay flat.

    python -m tests.serving.live.soak --minutes 10

Half of the clients stay; the others leave in the midst of a question now and then, and come back. Samples are taken
after the first third, in which caches and the allocator fill: the median of resident memory of their last quarter may
be greater than that of their first by no more than MOST_GROWTH and MOST_BYTES. Prints figures, and ends with code 1
when a bound does not hold.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from redis import Redis
from tests.servers.redis import RedisServer
from tests.serving.live.load import load
from tests.serving.live.process import LookupServer
from tests.serving.live.rows import write

from headrace.stores.redis import RedisStore

MOST_GROWTH = 0.02
"""Of resident memory between the first and the last quarter of the samples, as a share; plus MOST_BYTES."""
MOST_BYTES = 4 << 20
MOST_CONNECTIONS = 16
"""To Redis: a pool may grow until every client has asked at once."""


@dataclass(frozen=True)
class Sample:
    """seconds: since the load began. rss, files: of all processes of the server. connections: that Redis sees."""

    seconds: float
    rss: int
    files: int
    connections: int


@dataclass(frozen=True)
class Soaked:
    """What came of it.

    Attributes:
        rss_first, rss_last: medians of a quarter of the samples, bytes. files, connections: least and most of the
            samples. slowest_s: the longest that any question took.
    """

    seconds: float
    right: int
    wrong: int
    refused: int
    torn: int
    left: int
    slowest_s: float
    samples: int
    rss_first: float
    rss_last: float
    files: tuple[int, int]
    connections: tuple[int, int]

    def troubles(self, clients: int) -> list[str]:
        """The bounds that do not hold."""
        found = []
        if self.wrong or self.refused or self.torn:
            found.append(f"{self.wrong} wrong, {self.refused} refused and {self.torn} torn answers, expected none")
        if self.rss_last > self.rss_first * (1 + MOST_GROWTH) + MOST_BYTES:
            found.append(f"resident memory grew from {self.rss_first:,.0f} to {self.rss_last:,.0f} bytes")
        if self.files[1] - self.files[0] > clients:
            found.append(f"open files went from {self.files[0]} to {self.files[1]}")
        if self.connections[1] - self.connections[0] > MOST_CONNECTIONS:
            found.append(f"connections to Redis went from {self.connections[0]} to {self.connections[1]}")
        return found


def quarters(samples: Sequence[Sample]) -> tuple[float, float]:
    """Medians of resident memory of the first and of the last quarter."""
    size = max(1, len(samples) // 4)
    return (
        statistics.median(each.rss for each in samples[:size]),
        statistics.median(each.rss for each in samples[-size:]),
    )


async def soak(server: LookupServer, redis: "Redis[bytes]", seconds: float, clients: int) -> Soaked:
    """Load the server and watch it."""
    samples: list[Sample] = []
    every, began = max(0.2, seconds / 200), time.monotonic()
    async with AsyncExitStack() as stack:
        staying = await stack.enter_async_context(load(server.port, clients // 2))
        moving = await stack.enter_async_context(load(server.port, clients // 2, leaving=0.2, seed=2))
        while (spent := time.monotonic() - began) < seconds:
            await asyncio.sleep(every)
            if spent > seconds / 3:
                usage = server.usage()
                seen = int((await asyncio.to_thread(redis.info, "clients"))["connected_clients"])
                samples.append(Sample(round(spent, 1), usage.rss, usage.files, seen))
    first, last = quarters(samples)
    tallies = (staying, moving)
    for each in tallies:
        for trouble in each.wrong[:5]:
            print(f"  wrong: {trouble}", file=sys.stderr)
    return Soaked(
        seconds=round(time.monotonic() - began, 1),
        right=sum(each.right for each in tallies),
        wrong=sum(len(each.wrong) for each in tallies),
        refused=sum(sum(each.refused.values()) for each in tallies),
        torn=sum(each.torn for each in tallies),
        left=moving.left,
        slowest_s=round(max(each.slowest_s for each in tallies), 3),
        samples=len(samples),
        rss_first=first,
        rss_last=last,
        files=(min(each.files for each in samples), max(each.files for each in samples)),
        connections=(min(each.connections for each in samples), max(each.connections for each in samples)),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="A steady load on headrace serve, in which nothing may grow.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-soak-") as name:
        redis = RedisServer(Path(name) / "redis")
        redis.start()
        try:
            with RedisStore(redis.url) as store:
                write(store)
            server = LookupServer(Path(name) / "serve", redis.url, workers=given.workers)
            server.start()
            try:
                with redis.client() as client:
                    found = asyncio.run(soak(server, client, given.minutes * 60, given.clients))
            finally:
                server.stop()
        finally:
            redis.kill()
    print(json.dumps(asdict(found)))
    troubles = found.troubles(given.clients)
    for trouble in troubles:
        print(f"soak: {trouble}", file=sys.stderr)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
