"""Standard output, one JSON object a line."""

import sys
from collections.abc import Sequence

from headrace.flows.deadletter import DeadLetter
from headrace.flows.sinks.protocol import SinkPlace, SinkRows
from headrace.flows.sinks.records import encode, records


class LineWriter:
    """A SinkWriter to standard output, in the flow's own thread: a slow pipe holds the flow up."""

    def __init__(self, at: SinkPlace) -> None:
        self._at = at

    def open(self, state: bytes | None) -> None:
        """Nothing to be done."""

    def write(self, rows: SinkRows) -> None:
        if len(rows):
            sys.stdout.write("".join(encode(each).decode() + "\n" for each in records(rows.table)))

    def flush(self) -> bytes:
        sys.stdout.flush()
        return b""

    def committed(self) -> None:
        """Lines are out already."""

    def dead(self) -> Sequence[DeadLetter]:
        return []

    def close(self) -> None:
        """Standard output stays open; it is not ours."""
