"""Lookups in process: entities and names in, values in the declared order out; 1 or 100 entities, 10 or 50 features.

    python -m benchmarks.lookup
    python -m benchmarks.lookup --quick      one round of a few calls, without peers: whether all still runs

Rows of 20,000 users lie in Redis in Feast's layout, and once more packed. Each call asks for other users.

Ours: `Client.features(references, {"user_id": [...]})` and the rows of its answer; also packed, and by `AsyncClient`.
Limit: the same fields of the same keys by redis-py, one HMGET per entity in a pipeline; keys and fields are bytes made
beforehand, and nothing is decoded. The limit of `AsyncClient` is the same by redis-py's own client of asyncio. Peer:
Feast's `get_online_features(...).to_dict()` over the very rows in Feast's layout, in its own environment. All take
turns, five rounds; p50 and p99 are the medians of those of the rounds, in microseconds.
"""

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import redis
import redis.asyncio

from benchmarks.served_rows import CASES, FEAST, ROOT, Case, Layout, feast_repository, filled_redis, users
from benchmarks.served_views import PROJECT, Fifty
from benchmarks.workload import report
from headrace.serving import AsyncClient, Client
from headrace.stores.feast_reader import FeastReader
from headrace.stores.feast_rows import FeastRows
from headrace.stores.layout import row_layout
from headrace.stores.redis import RedisStore

ROUNDS = 5
WARM = 20
Run = Callable[[Case, list[list[int]]], list[float]]
"""The seconds that each question took."""


def calls(case: Case) -> int:
    """Questions of a round."""
    return max(150, 1500 // case.entities)


def ours(url: str, layout: Layout) -> Run:
    client = Client(RedisStore(url, project=PROJECT, layout=layout), [Fifty])

    def run(case: Case, asked: list[list[int]]) -> list[float]:
        references, seconds = case.references, []
        for each in asked:
            began = time.perf_counter()
            rows = client.features(references, {"user_id": each}).rows
            seconds.append(time.perf_counter() - began)
            assert (len(rows), len(rows[0])) == (case.entities, case.features)
        return seconds

    return run


def ours_of_tasks(url: str, layout: Layout) -> Run:
    async def ask(case: Case, asked: list[list[int]]) -> list[float]:
        references, seconds = case.references, []
        async with AsyncClient(RedisStore(url, project=PROJECT, layout=layout), [Fifty]) as client:
            await client.features(references, {"user_id": asked[0]})
            for each in asked:
                began = time.perf_counter()
                rows = (await client.features(references, {"user_id": each})).rows
                seconds.append(time.perf_counter() - began)
                assert (len(rows), len(rows[0])) == (case.entities, case.features)
        return seconds

    return lambda case, asked: asyncio.run(ask(case, asked))


def limit(url: str) -> Run:
    client = redis.Redis.from_url(url)
    rows = FeastRows(row_layout(Fifty), PROJECT)

    def run(case: Case, asked: list[list[int]]) -> list[float]:
        fields = list(FeastReader(rows, tuple(name.partition(":")[2] for name in case.references)).fields)
        seconds = []
        for each in asked:
            keys = rows.plain_keys([(user,) for user in each])
            began = time.perf_counter()
            pipe = client.pipeline(transaction=False)
            for key in keys:
                pipe.hmget(key, fields)
            found = pipe.execute()
            seconds.append(time.perf_counter() - began)
            assert (len(found), found[0].count(None)) == (case.entities, 0)
        return seconds

    return run


def limit_of_tasks(url: str) -> Run:
    rows = FeastRows(row_layout(Fifty), PROJECT)

    async def ask(case: Case, asked: list[list[int]]) -> list[float]:
        fields = list(FeastReader(rows, tuple(name.partition(":")[2] for name in case.references)).fields)
        seconds = []
        async with redis.asyncio.Redis.from_url(url) as client:
            await client.ping()
            for each in asked:
                keys = rows.plain_keys([(user,) for user in each])
                began = time.perf_counter()
                pipe = client.pipeline(transaction=False)
                for key in keys:
                    pipe.hmget(key, fields)
                found = await pipe.execute()
                seconds.append(time.perf_counter() - began)
                assert (len(found), found[0].count(None)) == (case.entities, 0)
        return seconds

    return lambda case, asked: asyncio.run(ask(case, asked))


class Feast:
    """Feast in a process of its own environment."""

    def __init__(self, repository: Path) -> None:
        command = [FEAST / "python", ROOT / "benchmarks" / "peers" / "feast_lookup.py", repository]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Feast":
        if self._line() != "ready":
            raise SystemExit("lookup: Feast was not ready.")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"lookup: Feast ended with code {self._process.wait()}.")
        return line.strip()

    def run(self, case: Case, asked: list[list[int]]) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"references": case.references, "users": asked}) + "\n")
        self._process.stdin.flush()
        seconds: list[float] = json.loads(self._line())
        return seconds


def measured(case: Case, runs: dict[str, Run], quick: bool) -> dict[tuple[str, int], float]:
    """(run, percentile) -> microseconds, the median of the rounds."""
    found: dict[tuple[str, int], list[float]] = {}
    rounds = 1 if quick else ROUNDS
    for turn in range(-1, rounds):
        count = 3 if quick else WARM if turn < 0 else calls(case)
        for name, run in runs.items():
            gc.collect()
            seconds = run(case, users(case, count, turn))
            if turn < 0:
                continue
            p50, p99 = np.percentile(np.array(seconds) * 1e6, [50, 99]).tolist()
            found.setdefault((name, 50), []).append(p50)
            found.setdefault((name, 99), []).append(p99)
            print(f"  {case.name} {name} {turn + 1}/{rounds}: p50 {p50:,.0f} us, p99 {p99:,.0f} us", file=sys.stderr)
    return {which: statistics.median(values) for which, values in found.items()}


def compare(runs: dict[str, Run], peers: dict[str, Run], quick: bool) -> None:
    for case in CASES:
        found = measured(case, runs | peers, quick)
        for percentile in (50, 99):
            theirs = {name: found[name, percentile] for name in peers}
            for way in runs:
                if way.startswith("limit"):
                    continue
                shown = f"{case.name}{way.removeprefix('ours')} p{percentile}"
                at_least = found["limit asyncio" if way.endswith("asyncio") else "limit", percentile]
                n = 1 if quick else ROUNDS
                report("lookup", shown, found[way, percentile], at_least, theirs, "us", n, higher_is_better=False)


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, filled_redis(("feast", "packed")) as (server, urls):
        runs = {
            "ours": ours(urls["feast"], "feast"),
            "limit": limit(urls["feast"]),
            "ours packed": ours(urls["packed"], "packed"),
            "limit asyncio": limit_of_tasks(urls["feast"]),
            "ours asyncio": ours_of_tasks(urls["feast"], "feast"),
            "ours packed asyncio": ours_of_tasks(urls["packed"], "packed"),
        }
        repository = None if quick else feast_repository(Path(folder) / "feast", server.port)
        if repository is None:
            compare(runs, {}, quick)
            return
        with Feast(repository) as feast:
            compare(runs, {"feast": feast.run}, quick)


if __name__ == "__main__":
    main()
