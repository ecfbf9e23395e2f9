"""A live flow whose clock is told: batches as they come, checkpoints, restarts and crashes, onto a data folder.

What it writes goes to the embedded store and the log of the folder, as a live run's does, and to any other stores
beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.read import batches
from headrace.flows.recording import Reading, Recorder
from tests.oracle.definitions import Happening
from tests.oracle.described import Clock, Sent


class Arriving(Happening):
    """An event that says when the flow found it."""

    arrived: datetime


Then = Literal["go on", "checkpoint", "restart", "crash"]


@dataclass(frozen=True)
class Turn:
    """One turn of a live flow: the wall's clock, how many events it finds there, and what happens to it afterwards."""

    wall: int
    events: int
    then: Then


class Lived:
    """Views over one source, run live into a folder.

    source: finite; read on from where the flow stands. stores: others that online rows go to.
    """

    def __init__(self, source: Any, definitions: Sequence[Any], data: Path, stores: Sequence[Any] = ()) -> None:
        self._source, self.definitions, self._data, self._stores = source, tuple(definitions), data, stores
        self._open()

    def _open(self) -> None:
        self._recorder = Recorder(self._data, "wall")
        flow = SourceFlow(self._source, self.definitions, live=True)
        self._reading = Reading(flow, self._recorder.checkpoint)
        self._recorder.follow(self._reading.flow)

    @property
    def offset(self) -> int:
        """How many events count: all, or after a crash those before the last checkpoint."""
        return self._reading.offset

    def take(self, wall: int, events: int) -> None:
        """One turn as a live run has it: what is there is taken, then time passes."""
        reading = self._reading
        upto = reading.offset + events
        while reading.offset < upto:
            events = upto - reading.offset
            part = next(batches(self._source, events, reading.offset, files=reading.files))
            self._write(reading.flow.push(part.batch, wall, wall_us=wall), part.dead)
            reading.offset, reading.files = part.progress.offset, part.progress.files
        self._write(reading.flow.advance(wall))

    def checkpoint(self) -> None:
        self._recorder.commit([self._reading])

    def crash(self) -> None:
        """Go on from the last checkpoint; what is online stays there."""
        self._recorder.__exit__(None, None, None)
        self._open()

    def end(self) -> None:
        """The run ends, as one that is asked to."""
        self._recorder.commit([self._reading], tails=True)
        self._recorder.__exit__(None, None, None)

    def _write(self, output: Output, dead: Any = ()) -> None:
        self._recorder.write(self._reading, output, dead)
        for store in self._stores:
            for view in self.definitions:
                if view.name in output.online:
                    store.write(view, output.online[view.name])


def script_of(turns: Sequence[tuple[int, int]], events: Sequence[Sent]) -> list[Sent | Clock]:
    """What a flow is told in these turns (wall clock, events), for the oracle."""
    script: list[Sent | Clock] = []
    first = 0
    for wall, count in turns:
        script += [Clock(wall), *events[first : first + count]]
        first += count
    return script
