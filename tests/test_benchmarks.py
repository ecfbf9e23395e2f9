"""The benchmarks of lookups run: in short, without peers, one well-formed line per case."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKLOADS = ("1x10", "1x50", "100x10", "100x50")


@pytest.mark.parametrize("name", ["lookup", "server"])
def test_a_benchmark_of_lookups_runs(name: str, redis_port: int) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr[-3000:]
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    cases = {line["case"] for line in lines}
    assert {f"{workload} p{share}" for workload in WORKLOADS for share in (50, 99)} <= cases
    for line in lines:
        assert (line["bench"], line["peers"], line["n"]) == (name, {}, 1)
        assert line["ours"] > 0
        assert line["limit"] > 0
