"""How the kernels are compiled: two decorators and the reason for their options.

`step` marks the pieces of a kernel: inlined into their callers, because a state is a tuple of 14 arrays and passing it
through a call costs more than most pieces do. `kernel` marks the entries that Python calls; they let go of the GIL.

Both switch Numba's reference counting off (`_nrt`): no kernel allocates, every array belongs to the caller for the
whole
call, and the atomic counter updates on each array at each call took five times as long as the work itself (2.0 instead
of 11 microseconds an event on the workload of `benchmarks/operator.py`; inlining made that 0.6).

Numba keeps compiled kernels beside the source and compiles again when the file of the kernel changes. It does not look
at the files of the pieces inlined into it, so the stamp that it compares is made of all of `SOURCES` here; otherwise an
upgrade that changed a piece alone would go on running the old one.

No kernel divides by zero, so the check for it before each division is left out (`error_model`).

`NUMBA_DISABLE_JIT=1` runs all of it as plain Python, line by line.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import config, njit

SOURCES = (
    "answering.py",
    "compiled.py",
    "lanes.py",
    "readings.py",
    "results.py",
    "runs.py",
    "state.py",
    "tiles.py",
    "walking.py",
)
"""Files of this folder that kernels are made of."""

F = TypeVar("F", bound=Callable[..., Any])


def _njit(**options: Any) -> Any:
    return njit(**{"_nrt": False, "error_model": "numpy", **options})


def step(function: F) -> F:
    """Compile a piece of a kernel, inlined into whatever calls it; Python itself never calls it, so it gets no
    wrappers."""
    return _njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def kernel(function: F) -> F:
    """Compile an entry of a kernel: called from Python with whole batches, without the GIL."""
    compiled = _njit(cache=True, nogil=True)(function)
    if not config.DISABLE_JIT:
        compiled._cache._cache_file._source_stamp = source_stamp()
    return compiled


@cache
def source_stamp() -> str:
    """Hash of every file that kernels are made of."""
    folder = Path(__file__).parent
    return hashlib.blake2b(b"".join((folder / name).read_bytes() for name in SOURCES), digest_size=16).hexdigest()
