"""Lookups over HTTP: `headrace serve` beside `feast serve` over the same rows in Redis.

    python -m benchmarks.server
    python -m benchmarks.server --quick      one short round, without peers: whether all still runs

1 or 100 entities, 10 or 50 features. `1x10 p50`, `1x10 p99`: one client on one connection kept open, milliseconds
from the first byte sent to the last byte received. `1x10 requests/s`: wrk with 32 connections for some seconds, with
one worker process and with two; `1x10 p50 of 32`, `1x10 p99 of 32`: milliseconds of a request among them, as wrk
tells. Five rounds in which all take turns, of which the medians are taken. `1x10 slowest`: the longest of 100,000
requests of one client, once; of 3,000 with Feast, which is to its favour. Without wrk (Debian's) its cases are left
out.

Ours: every default, Feast's layout. Peer: `feast serve` with its defaults (one worker), and with `--workers 2`.
Limit: the same HTTP stack, which reads the request and answers constant bytes, as many as our answer has.
"""

import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.http_servers import Program, constant, feast, headrace, running
from benchmarks.keep_alive import PATH, KeepAlive, post
from benchmarks.served_rows import CASES, Case, feast_repository, filled_redis, users
from benchmarks.workload import report

ROUNDS = 5
CONNECTIONS = 32
MANY, FEW = 100_000, 3_000
BODIES = 500
SCRIPT = Path(__file__).with_name("wrk.lua")


def bodies(case: Case, count: int, seed: int) -> list[bytes]:
    """Requests, each about other users."""
    return [
        json.dumps({"features": case.references, "entities": {"user_id": each}}).encode()
        for each in users(case, count, seed)
    ]


def asked(program: Program, path: str, found: list[bytes]) -> list[float]:
    """The milliseconds of each request."""
    requests, milliseconds = [post(body, path) for body in found], []
    with KeepAlive(program.port) as client:
        client.ask(requests[0])
        for request in requests:
            began = time.perf_counter()
            status, answer = client.ask(request)
            milliseconds.append((time.perf_counter() - began) * 1000)
            if status != 200:
                raise SystemExit(f"server: {program.name} answered {status}: {answer[:500]!r}")
    return milliseconds


def wrk(program: Program, path: str, file: Path, seconds: float) -> list[float]:
    """Requests per second, and the milliseconds that half of them and 99 in 100 take at most."""
    url = f"http://127.0.0.1:{program.port}{path}"
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    command = ["wrk", *options, "-s", str(SCRIPT), url, "--", str(file)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = json.loads(told.strip().splitlines()[-1])
    if line["bad"]:
        raise SystemExit(f"server: {program.name} answered {line['bad']} of {line['requests']} requests with an error.")
    return [float(each) for each in (line["requests"] / line["seconds"], line["p50_ms"], line["p99_ms"])]


def answer_bytes(program: Program, case: Case) -> int:
    """How long an answer is."""
    with KeepAlive(program.port) as client:
        status, answer = client.ask(post(bodies(case, 1, 0)[0]))
        found = json.loads(answer)
        if status != 200 or any(len(each["values"]) != case.entities for each in found["results"]):
            raise SystemExit(f"server: {program.name} answered {status}: {answer[:500]!r}")
        return len(answer)


def turns(rounds: int, what: str, runs: dict[str, Callable[[int], list[float]]]) -> dict[str, list[float]]:
    """name -> medians of the figures that each run gives in a round; all take turns.

    A round -1 warms up, where there is more than one.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in runs}
    for turn in range(-1 if rounds > 1 else 0, rounds):
        for name, run in runs.items():
            gc.collect()
            figures = run(turn)
            if turn >= 0:
                found[name].append(figures)
                shown = ", ".join(f"{each:,.4g}" for each in figures)
                print(f"  {what} {name} {turn + 1}/{rounds}: {shown}", file=sys.stderr)
    return {name: [statistics.median(each) for each in zip(*figures, strict=True)] for name, figures in found.items()}


def latencies(programs: dict[str, Program], case: Case, size: int, quick: bool) -> None:
    rounds = 1 if quick else ROUNDS
    calls = 3 if quick else 400 if case.entities == 1 else 60

    def run(program: Program, path: str) -> Callable[[int], list[float]]:
        def once(turn: int) -> list[float]:
            count = 5 if turn < 0 else calls
            return [float(each) for each in np.percentile(asked(program, path, bodies(case, count, turn)), [50, 99])]

        return once

    runs = {name: run(each, f"/{size}" if name == "limit" else PATH) for name, each in programs.items()}
    found = turns(rounds, f"{case.name} p50, p99 ms", runs)
    for at, share in enumerate((50, 99)):
        of = {name: figures[at] for name, figures in found.items()}
        peers = {name: of[name] for name in of if name == "feast"}
        report("server", f"{case.name} p{share}", of["ours"], of["limit"], peers, "ms", rounds, higher_is_better=False)


def throughput(programs: dict[str, Program], case: Case, size: int, workers: int, folder: Path, quick: bool) -> None:
    rounds = 1 if quick else ROUNDS
    seconds = 1.0 if quick else 2.0 if case.entities == 1 else 3.0
    file = folder / f"{case.name}.bodies"
    file.write_bytes(b"\n".join(bodies(case, BODIES, 7)) + b"\n")

    def run(program: Program, path: str) -> Callable[[int], list[float]]:
        return lambda turn: wrk(program, path, file, 1.0 if turn < 0 else seconds)

    runs = {name: run(each, f"/{size}" if name == "limit" else PATH) for name, each in programs.items()}
    more = f" {workers} workers" if workers > 1 else ""
    found = turns(rounds, f"{case.name} requests/s, p50, p99 ms of {CONNECTIONS}{more}", runs)
    for at, what in enumerate(("requests/s", f"p50 of {CONNECTIONS}", f"p99 of {CONNECTIONS}")):
        of = {name: figures[at] for name, figures in found.items()}
        peers = {name: of[name] for name in of if name == "feast"}
        unit, rate = ("ms", False) if at else ("1/s", True)
        report(
            "server", f"{case.name} {what}{more}", of["ours"], of["limit"], peers, unit, rounds, higher_is_better=rate
        )


def slowest(programs: dict[str, Program], case: Case, size: int, quick: bool) -> None:
    most = {}
    for name, program in programs.items():
        count = 100 if quick else FEW if name == "feast" else MANY
        path = f"/{size}" if name == "limit" else PATH
        found = asked(program, path, bodies(case, 1000, 11) * max(1, count // 1000))
        most[name] = max(found)
        print(f"  {case.name} slowest of {len(found)} {name}: {most[name]:,.4g} ms", file=sys.stderr)
    peers = {name: most[name] for name in most if name == "feast"}
    report("server", f"{case.name} slowest", most["ours"], most["limit"], peers, "ms", 1, higher_is_better=False)


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    if shutil.which("wrk") is None:
        print("  wrk is not installed: requests/s are left out (apt-get install wrk)", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name, filled_redis(("feast",)) as (redis, urls):
        folder = Path(name)
        repository = None if quick else feast_repository(folder / "feast", redis.port)
        for workers in (1,) if quick else (1, 2):
            with ExitStack() as stack:
                programs = {"ours": headrace(urls["feast"], workers), "limit": constant(workers)}
                if repository is not None:
                    programs["feast"] = feast(repository, workers)
                for each in programs.values():
                    stack.enter_context(running(each, folder))
                for case in CASES:
                    size = answer_bytes(programs["ours"], case)
                    if workers == 1:
                        latencies(programs, case, size, quick)
                    if shutil.which("wrk") and not (quick and case.features > 10):
                        throughput(programs, case, size, workers, folder, quick)
                    if workers == 1 and case == CASES[0]:
                        slowest(programs, case, size, quick)


if __name__ == "__main__":
    main()
