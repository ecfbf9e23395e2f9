"""What a process does to have its kernels: it loads each once, without what only a compilation needs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from numba import config

from headrace.flows.warm import KERNELS, warm

SRC = Path(__file__).parents[2] / "src"
pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: the kernels are plain Python")

COMPILERS = ("numba.np.arraymath", "numba.misc.cffiimpl", "scipy.linalg", "cffi")
"""Part of what Numba imports before it compiles."""


def printed(code: str) -> Any:
    """What a process of its own prints, as JSON; the kernels have been compiled before."""
    warm()
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SRC)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kernels_load_without_what_a_compilation_needs() -> None:
    code = f"""
import json, sys
from headrace.flows.warm import KERNELS, warm
warm()
hits = [(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())) for kernel in KERNELS]
print(json.dumps([hits, [name for name in {COMPILERS} if name in sys.modules]]))
"""
    assert printed(code) == [[[1, 0]] * len(KERNELS), []]


def test_a_flow_asks_for_each_kernel_in_one_form() -> None:
    """A second signature is a second kernel to compile and to load: arrays come in one layout, also read-only ones."""
    code = """
import json, tempfile
from headrace import Entity, Event, EventTime, FeatureView, IterableSource, Lifetime, run
from headrace.flows.warm import KERNELS

class Visit(Event):
    user: str
    amount: float | None
    token: str
    at: EventTime

rows = [
    {"user": str(n % 7), "amount": None if n % 3 else n, "token": str(n), "at": 1_700_000_000 + n} for n in range(600)
]
source = IterableSource(rows, Visit, unit="s", dedup="token", lateness="10s")

class Visits(FeatureView, source=source, entity=Entity("user", key="user")):
    total = Visit.amount.sum(last=["1m", "1h"])
    newest = Visit.amount.last(over=Lifetime())
    before = Visit.count(last="1m", ending="1m")

run([Visits], tempfile.mkdtemp(), batch_size=100)
print(json.dumps([len(kernel.signatures) for kernel in KERNELS]))
"""
    assert printed(code) == [1] * len(KERNELS)


def test_compiling_goes_on_where_kernels_were_loaded() -> None:
    code = """
import json, numba, numpy
from headrace.flows.warm import warm
warm()

@numba.njit
def product(a, b):
    return numpy.sum(a * b)

print(json.dumps(product(numpy.ones(3), numpy.ones(3))))
"""
    assert printed(code) == 3.0


def test_processes_that_compile_at_once_keep_each_other_s_kernels(tmp_path: Path) -> None:
    """Each for other arguments: whoever comes later finds all of them, and each gives what it is for."""
    (tmp_path / "sums.py").write_text(
        """
import sys, time
import numpy as np
from headrace.flows.compiled import kernel

@kernel
def total(values):
    found = values[0]
    for value in values[1:]:
        found += value
    return found

if __name__ == "__main__":
    until, *names = sys.argv[1:]
    time.sleep(max(0.0, float(until) - time.time()))
    told = [str(total(np.arange(1, 5).astype(name))) for name in names]
    print(*told, len(total.stats.cache_hits), len(total.stats.cache_misses))
"""
    )
    names = ["int64", "float64", "int32", "float32", "int16", "uint8"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def start(*its: str, at: float = 0.0) -> subprocess.Popen[str]:
        command = [sys.executable, str(tmp_path / "sums.py"), str(at), *its]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    at = time.time() + 3.0
    for process in [start(name, at=at) for name in names]:
        assert process.communicate(timeout=120)[0].split()[1:] == ["0", "1"]
    told = start(*names).communicate(timeout=120)[0].split()
    assert [float(each) for each in told[:-2]] == [10.0] * len(names)
    assert told[-2:] == [str(len(names)), "0"]
