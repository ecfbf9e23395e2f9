"""What the start of a command costs, counted and not timed: the machine may be busy with other tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SRC = Path(__file__).parents[2] / "src"

VIEWS = """
import gc
from headrace import Entity, Event, EventTime, FeatureView, IterableSource

class Visit(Event):
    user: str
    at: EventTime

class Visits(FeatureView, source=IterableSource([], Visit), entity=Entity("user", key="user")):
    visits = Visit.count(last="1h")

collections = sum(each["collections"] for each in gc.get_stats())
"""


def printed(code: str, *words: str) -> Any:
    """The last line that a process of its own prints, as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_worker_imports_nothing_that_it_may_not_need() -> None:
    """Each takes from a hundredth to a third of a second. Who writes to Redis or reads Avro imports that then."""
    code = """
import json, sys
import headrace.cli.commands, headrace.cli.working
names = (
    *("pandas", "polars", "duckdb", "redis", "river", "feast", "fastavro", "google.protobuf", "fsspec", "pyspark"),
    *("uvicorn", "prometheus_client", "scipy.linalg", "cffi", "headrace.serving", "headrace.materialize"),
)
print(json.dumps([name for name in names if name in sys.modules]))
"""
    assert printed(code) == []


def test_the_collector_rests_while_a_command_starts(tmp_path: Path) -> None:
    """By the time its file of views is read, most of what a run needs is there: 160,000 objects, which stay."""
    views = tmp_path / "starting_views.py"
    views.write_text(VIEWS)
    code = """
import gc, json, sys
import headrace.cli
before, thresholds = sum(each["collections"] for each in gc.get_stats()), gc.get_threshold()
try:
    headrace.cli.main(["run", sys.argv[1], "--quiet", "--data", sys.argv[2]])
except SystemExit as end:
    assert not end.code
print(json.dumps([sys.modules["starting_views"].collections - before, gc.get_threshold() == thresholds]))
"""
    assert printed(code, str(views), str(tmp_path / "data")) == [0, True]  # afterwards it works as before
