"""Drives a step over settled rows as an engine may: any order of arrival, any batches, restarts at any point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from headrace.features import Event, EventTime, IterableSource
from headrace.features.events import EventSchema, schema_of
from headrace.features.keyed_stream import KeyedStream
from headrace.features.streams import Flow, Stream
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.decode import decode_rows
from headrace.flows.graph.ordering import Settling
from headrace.flows.graph.settling import settling

SECOND = 1_000_000
START = datetime(2026, 1, 1, tzinfo=UTC)
START_US = int(START.timestamp()) * SECOND
FAR_US = START_US + 10_000 * SECOND


class Reading(Event):
    who: str | None
    x: int | None
    at: EventTime


READING = schema_of(Reading)


@dataclass(frozen=True)
class Given:
    """One event: seconds since START, key, value, its offset, and the input it comes by."""

    second: int
    who: str | None
    x: int | None
    offset: int
    side: int = 0

    @property
    def us(self) -> int:
        return START_US + self.second * SECOND


def moment(second: int) -> datetime:
    return START + timedelta(seconds=second)


def keyed() -> KeyedStream:
    """The readings of a new flow by `who`."""
    return Flow("sums").read(IterableSource([], Reading, name="readings")).key_by("who")


def made(stream: Stream) -> Callable[[], Settling]:
    """The last step of a stream, at its beginning whenever it is asked for."""
    return lambda: settling(stream.step)


def streams(sides: int = 1, least: int = 0) -> st.SearchStrategy[list[Given]]:
    """Events in order of arrival: ties, gaps, null keys and values."""
    one = st.tuples(
        st.integers(0, 40), st.sampled_from(["a", "b", None]), st.none() | st.integers(-3, 3), st.integers(0, sides - 1)
    )
    return st.lists(one, min_size=least, max_size=25).map(
        lambda drawn: [Given(second, who, x, at, side) for at, (second, who, x, side) in enumerate(drawn)]
    )


def in_order(given: Sequence[Given]) -> list[Given]:
    """As a step must take them: by time, the second input first, then by position."""
    return sorted((each for each in given if each.who is not None), key=lambda e: (e.second, -e.side, e.offset))


def rows(given: Sequence[Given]) -> EventBatch:
    plain = [{"who": each.who, "x": each.x, "at": moment(each.second)} for each in given]
    batch, dead = decode_rows(READING, plain, 0, np.array([each.offset for each in given], dtype=np.int64))
    assert not dead
    return batch


Told = tuple[dict[str, Any], int]


def told(batch: EventBatch, schema: EventSchema) -> list[Told]:
    """Each row with its offset."""
    columns = {name: batch.arrow(name).to_pylist() for name in schema.names}
    return [({name: columns[name][i] for name in schema.names}, int(batch.offset[i])) for i in range(len(batch))]


def drive(
    make: Callable[[], Settling], given: Sequence[Given], data: st.DataObject
) -> tuple[list[Told], list[DeadLetter]]:
    """All rows and letters of the events, in batches as drawn, with restarts as drawn; null keys are no surprise."""
    node, at = make(), 0
    out: list[Told] = []
    dead: list[DeadLetter] = []
    while at < len(given):
        size = data.draw(st.integers(1, 6))
        part, at = given[at : at + size], at + size
        for side in {each.side for each in part}:
            dead += node.take(rows([each for each in part if each.side == side]), side)
        if data.draw(st.booleans()):
            result = node.advance(min([each.us for each in given[at:]], default=START_US))
            out += told(result.batch, node.step.schema)
            dead += result.dead
        if data.draw(st.booleans()):
            saved, node = node.save(), make()
            node.load(saved)
    result = node.advance(FAR_US, ended=True)
    out += told(result.batch, node.step.schema)
    return out, [each for each in [*dead, *result.dead] if "key who is null" not in each.detail]
