"""Events as the functions of ordered steps take them, and what those give."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import repeat
from keyword import iskeyword
from typing import Any, NamedTuple

from headrace.features.events import EventSchema, Field
from headrace.features.time import EPOCH
from headrace.flows.batch import EventBatch

Values = tuple[Any, ...]
"""The columns of one event in the order of its schema; instants as aware datetimes, None where missing."""
Remake = Callable[[Sequence[Any]], Any]
"""From `Values` to an object of the event's class."""


class Event(NamedTuple):
    """One event as a step takes it.

    row: an object of its class, for the user's function. values: the same, for what is kept. key: what it belongs to.
    time, effective: microseconds UTC. position: see `EventBatch`.
    """

    row: Any
    values: Values
    key: Any
    time: int
    effective: int
    position: int


def remaking(event: type, schema: EventSchema) -> Remake:
    """How rows of an event class are made of their values."""
    names = schema.names

    def remade(values: Sequence[Any]) -> Any:
        row: Any = object.__new__(event)
        row.__dict__.update(zip(names, values, strict=True))
        return row

    return remade


def objects_of(event: type, schema: EventSchema, batch: EventBatch) -> list[Any]:
    """The events of a batch as objects of their class, made without a call of its own for each."""
    rows: list[Any] = list(map(object.__new__, repeat(event, len(batch))))
    columns = _columns_of(schema, batch)
    own_way: Any = event.__setattr__  # a class may say how it takes attributes; rows are not made its way
    filled = _filling(schema.names) if own_way is object.__setattr__ else None
    if filled is not None:
        filled(rows, columns)
        return rows
    for name, values in zip(schema.names, columns, strict=True):
        deque(map(object.__setattr__, rows, repeat(name), values), maxlen=0)
    return rows


@lru_cache(maxsize=256)
def _filling(names: tuple[str, ...]) -> Callable[[list[Any], list[list[Any]]], None] | None:
    """What puts columns into objects, with the names of the attributes written out: a third of the time that it takes
    with names that Python has to look up for each. None where a name cannot be written.
    """
    if not all(name.isidentifier() and not iskeyword(name) for name in names):
        return None
    values = [f"v{i}" for i in range(len(names))]
    puts = "".join(f"        row.{name} = {value}\n" for name, value in zip(names, values, strict=True))
    loop = f"    for row, {', '.join(values)} in zip(rows, *columns, strict=True):\n{puts}"
    made: dict[str, Any] = {}
    exec(f"def filled(rows, columns):\n{loop}", made)
    filled: Callable[[list[Any], list[list[Any]]], None] = made["filled"]
    return filled


def values_of(schema: EventSchema, batch: EventBatch) -> list[Values]:
    """The values of the events of a batch."""
    return list(zip(*_columns_of(schema, batch), strict=True))


def column_of(field: Field, batch: EventBatch) -> list[Any]:
    """The values of a field, (n,) as Python has them."""
    numbers = batch.values(field.name)
    if field.dtype == "timestamp":
        values: list[Any] = list(map(EPOCH.__add__, numbers.view("m8[us]").tolist()))
    else:
        values = numbers.tolist()
    valid = batch.valid(field.name)
    if valid.all():
        return values
    return [value if there else None for value, there in zip(values, valid.tolist(), strict=True)]


def _columns_of(schema: EventSchema, batch: EventBatch) -> list[list[Any]]:
    """The values of each field, (n,) as Python has them."""
    return [column_of(field, batch) for field in schema.fields]
