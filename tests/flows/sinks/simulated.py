"""A flow around one sink, reduced to what a sink sees of it: rows, checkpoints, crashes, and rows again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headrace.features import Event, EventTime
from headrace.features.events import schema_of
from headrace.features.sinks import Sink
from headrace.flows.deadletter import DeadLetter
from headrace.flows.decode import decode_rows
from headrace.flows.sinks import SinkPlace, SinkRows, SinkWriter, writer_of

SECOND = 1_000_000
START = 1_767_225_600 * SECOND - 3 * SECOND  # three seconds before 2026 begins


class Alert(Event):
    number: int
    driver_id: str
    fare: float | None
    raw: bytes | None
    at: EventTime


SCHEMA = schema_of(Alert)


def alert(number: int) -> dict[str, Any]:
    """Row `number` of the stream: a driver's, at an instant of its own, with nulls."""
    return {
        "number": number,
        "driver_id": f"d{number % 3}",
        "fare": None if number % 5 == 0 else number / 4,
        "raw": None if number % 7 == 0 else bytes([number % 256, 255]),
        "at": START + number * SECOND // 2,
    }


def rows(start: int, stop: int) -> SinkRows:
    from headrace.features import IterableSource
    from headrace.flows.decode import reading_of

    how = reading_of(IterableSource([], Alert, unit="us"))
    batch, dead = decode_rows(SCHEMA, [alert(i) for i in range(start, stop)], 0, start, how)
    assert not dead
    return SinkRows.of(batch, SCHEMA, np.zeros(stop - start, dtype=np.int32))


def place(data: Path, step: str = "alerts", part: str = "") -> SinkPlace:
    return SinkPlace("pickups", step, SCHEMA, data, part, threading.Event())


class Crash(Exception):
    """The process is gone."""


class Flow:
    """Sends rows 0, 1, 2, ... to a sink, with a checkpoint now and then.

    Attributes:
        sent: rows sent since the last checkpoint and before. counted: rows of the last checkpoint that counts, and
            its state. dead: dead letters that count.
    """

    def __init__(self, sink: Sink, data: Path) -> None:
        self._make: Callable[[], SinkWriter] = lambda: writer_of(sink, place(data))
        self.counted, self._state = 0, None
        self.dead: list[DeadLetter] = []
        self.sent = 0
        self.writer = self._make()
        self.writer.open(None)

    def send(self, n: int) -> None:
        self.writer.write(rows(self.sent, self.sent + n))
        self.sent += n

    def checkpoint(self, crash: str = "") -> None:
        """crash: where within it the process is killed: "flushed", "counted", or after it, "shown"."""
        state = self.writer.flush()
        dead = self.writer.dead()
        if crash == "flushed":
            self.restart()
            return
        self.counted, self._state = self.sent, state
        self.dead += dead
        if crash == "counted":
            self.restart()
            return
        self.writer.committed()
        if crash == "shown":
            self.restart()

    def restart(self) -> None:
        """Killed and started again: nothing of before is told to the old writer."""
        self.writer = self._make()
        self.writer.open(self._state)
        self.sent = self.counted

    def end(self) -> None:
        self.checkpoint()
        self.writer.close()
