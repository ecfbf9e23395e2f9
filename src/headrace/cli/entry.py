"""Where the command `headrace` and `python -m headrace` begin."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PATIENCE = 500_000
"""New objects until the collector looks through them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and ends the process with its exit code: 0 done, 1 an error that was told, 2 wrong usage.

    Args:
        arguments: the words after `headrace`; without them those of the process.
    """
    with _patient_collector():
        try:
            from headrace.cli.commands import app
        except ModuleNotFoundError as missing:
            if missing.name not in {"rich", "typer"}:
                raise
            sys.exit(
                f"The command line needs the package '{missing.name}', which is not installed. "
                "Install it with: pip install 'headrace[cli,flow]'"
            )
        app(args=arguments, prog_name="headrace")


@contextmanager
def _patient_collector() -> Iterator[None]:
    """Collect nothing while modules are imported, for the time of a `with` statement.

    What they make stays, and looking through it 400 times on the way was an eighth of a worker's start. What runs for
    long sets thresholds of its own (flows/worker/interpreter.py).
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(PATIENCE, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
