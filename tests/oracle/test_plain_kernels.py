"""The kernels as plain Python: what Numba compiles, run line by line, judged by the same oracle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PRODUCT = Path(__file__).with_name("test_product.py")


@pytest.mark.slow
def test_every_aggregation_over_every_window_without_compiling() -> None:
    # Python warns where NumPy's scalars overflow; the compiled kernels wrap and give NaN silently, as meant.
    arguments = ["-q", "-W", "ignore::RuntimeWarning", "-k", "test_operator", str(PRODUCT)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=PRODUCT.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "16 passed" in ran.stdout
