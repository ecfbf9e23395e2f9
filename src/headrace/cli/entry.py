"""Where the command `headrace` and `python -m headrace` begin."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and ends the process with its exit code: 0 done, 1 an error that was told, 2 wrong usage.

    Args:
        arguments: the words after `headrace`; without them those of the process.
    """
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
