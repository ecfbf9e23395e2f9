"""The command line: a starter project, replays, lookups, histories and the demo. `headrace --help` teaches it."""

from headrace.cli.entry import main

__all__ = ["main"]
