"""Events as objects for functions, however their class takes attributes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from headrace.features import Event, EventTime
from headrace.features.events import schema_of
from headrace.flows.decode import decode_rows
from headrace.flows.graph.taken import objects_of

AT = datetime(2026, 5, 1, tzinfo=UTC)


class Plain(Event):
    row: str | None
    v1: int | None
    fare: float
    at: EventTime


class Frozen(Plain):
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} cannot be set")


Odd = type(Event)("Odd", (Event,), {"__annotations__": {"class": int | None, "at": EventTime}, "__module__": __name__})


@pytest.mark.parametrize("event", [Plain, Frozen, Odd])
def test_objects_have_the_values_of_their_rows(event: Any) -> None:
    every = {"row": ["a", None, ""], "v1": [None, -1, 2**62], "fare": [0.5, 1.0, -2.0], "class": [1, None, 3]}
    rows = [{**{name: each[i] for name, each in every.items()}, "at": AT + timedelta(i)} for i in range(3)]
    schema = schema_of(event)
    batch, dead = decode_rows(schema, rows, 0, np.arange(3, dtype=np.int64))
    assert not dead
    given = objects_of(event, schema, batch)
    assert [type(each) for each in given] == [event] * 3
    assert [vars(each) for each in given] == [{name: row[name] for name in schema.names} for row in rows]
