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

Every process loads the kernels when it starts, so the cache leaves out what only a compilation needs; see
`_KernelCache`.

No kernel divides by zero, so the check for it before each division is left out (`error_model`).

`NUMBA_DISABLE_JIT=1` runs all of it as plain Python, line by line.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.codegen import ll

SOURCES = (
    "answering.py",
    "compiled.py",
    "json_kernel.py",
    "kafka/avro_kernel.py",
    "lanes.py",
    "machine.py",
    "readings.py",
    "results.py",
    "runs.py",
    "spans.py",
    "state.py",
    "tiles.py",
    "verdicts.py",
    "walking.py",
)
"""Files of this folder that kernels are made of."""

F = TypeVar("F", bound=Callable[..., Any])


def _njit(**options: Any) -> Any:
    return njit(**{"_nrt": False, "error_model": "numpy", **options})


class _Loadable(CompileResultCacheImpl):  # type: ignore[misc]  # Numba has no types
    """What is kept of a kernel: its machine code, and of its bitcode the names alone.

    Numba keeps the bitcode so that one compiled function can be put into another, and reads it at each load, which
    takes five times as long as all the rest. No kernel is part of another: that is what a `step` is for.
    """

    def reduce(self, data: Any) -> Any:
        (name, kind, (code, _)), *rest = super().reduce(data)
        return ((name, kind, (code, _names_of(data.library))), *rest)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        made = super().rebuild(target_context, payload)
        made.library._shared_module = None  # whoever would put it into another function is told so
        return made


def _names_of(library: Any) -> bytes:
    """Bitcode that defines what the library does, with nothing in it: Numba asks it what there is."""
    names = [function.name for function in library.get_defined_functions()]
    text = "\n".join(f'define void @"{name}"() {{ unreachable }}' for name in names)
    return bytes(ll.parse_assembly(text).as_bitcode())


class _Files(IndexDataCacheFile):  # type: ignore[misc]
    """The files of one kernel: an index, and one file for each kind of arguments that it was compiled for.

    Numba counts their names on from what the index has, so two processes that compile for two kinds of arguments at
    once write one file: the index then names machine code of the one for the other. Here a name is given once, is there
    before the index has it, and processes save one after the other.
    """

    def save(self, key: Any, data: Any) -> None:
        with open(f"{self._index_path}.lock", "wb") as lock:
            if os.name == "posix":
                from fcntl import LOCK_EX, flock

                flock(lock, LOCK_EX)
            overloads = self._load_index()
            overloads[key] = name = self._data_name(int.from_bytes(os.urandom(7), "big"))
            self._save_data(name, data)
            self._save_index(overloads)
            folder = Path(self._cache_path)
            for path in folder.glob(self._index_name.removesuffix("nbi") + "*.nbc"):
                if path.name not in overloads.values():  # of older sources: whoever still reads them compiles
                    path.unlink(missing_ok=True)


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache on the disk, without refreshing its registries before a load.

    They say how each function of Python and NumPy is compiled, and filling them imports a good part of Numba, and SciPy
    and CFFI where those are installed: 0.4 s, when a kernel loads in 5 ms. A compilation refreshes them by itself.
    """

    _impl_class = _Loadable

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


def step(function: F) -> F:
    """Compile a piece of a kernel, inlined into whatever calls it; Python itself never calls it, so it gets no
    wrappers."""
    return _njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def kernel(function: F) -> F:
    """Compile an entry of a kernel: called from Python with whole batches, without the GIL."""
    compiled = _njit(nogil=True)(function)
    if not config.DISABLE_JIT:
        compiled._cache = _KernelCache(function)
    return compiled


@cache
def source_stamp() -> str:
    """Hash of every file that kernels are made of."""
    folder = Path(__file__).parent
    return hashlib.blake2b(b"".join((folder / name).read_bytes() for name in SOURCES), digest_size=16).hexdigest()
