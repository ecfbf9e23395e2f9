"""How the kernels are compiled: two decorators and the reason for their options.

`step` marks the pieces of a kernel: inlined into their callers, because a state is a tuple of 14 arrays and passing it
through a call costs more than most pieces do. `kernel` marks the entries that Python calls; they let go of the GIL.

Both switch Numba's reference counting off (`_nrt`): no kernel allocates, every array belongs to the caller for the whole
call, and the atomic counter updates on each array at each call took five times as long as the work itself (2.0 instead
of 11 microseconds an event on the workload of `benchmarks/operator.py`; inlining made that 0.6).

`NUMBA_DISABLE_JIT=1` runs all of it as plain Python, line by line.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def step(function: F) -> F:
    """Compile a piece of a kernel, inlined into whatever calls it."""
    return njit(cache=True, _nrt=False, forceinline=True)(function)  # type: ignore[no-any-return]


def kernel(function: F) -> F:
    """Compile an entry of a kernel: called from Python with whole batches, without the GIL."""
    return njit(cache=True, _nrt=False, nogil=True)(function)  # type: ignore[no-any-return]
