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


def test_the_benchmark_of_backfills_runs() -> None:
    command = [sys.executable, "-m", "benchmarks.backfill", "--quick"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr[-3000:]
    rate, memory = [json.loads(line) for line in told.stdout.splitlines()]
    assert (rate["case"], rate["unit"], memory["unit"]) == ("W1 20k", "events/s", "MB")
    assert min(rate["ours"], rate["limit"], memory["ours"], memory["limit"]) > 0


def test_the_benchmark_of_materializing_runs(redis_port: int) -> None:
    command = [sys.executable, "-m", "benchmarks.materialize", "--quick"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr[-3000:]
    rate, memory = [json.loads(line) for line in told.stdout.splitlines()]
    assert (rate["case"], rate["unit"], memory["unit"]) == ("20k x 10", "rows/s", "MB")
    assert min(rate["ours"], rate["limit"], memory["ours"], memory["limit"]) > 0


def test_the_benchmark_of_training_sets_runs() -> None:
    command = [sys.executable, "-m", "benchmarks.training", "--quick"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr[-3000:]
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line["case"] for line in lines] == ["shallow 1k x 10 of 20k", "deep 1k x 10 of 20k"]
    for line in lines:
        assert (line["bench"], list(line["peers"]), line["unit"], line["n"]) == (
            "training",
            ["duckdb"],
            "spine rows/s",
            1,
        )
        assert min(line["ours"], line["limit"], line["peers"]["duckdb"]) > 0
