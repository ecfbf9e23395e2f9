"""Rows of a batch for a user's function, and what it gives as a batch again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.features.errors import HeadraceError
from headrace.features.steps import Step
from headrace.flows.batch import EventBatch, Ints
from headrace.flows.deadletter import FAILED, DeadLetter, payload_text
from headrace.flows.decode import Decoded, decode_columns
from headrace.flows.fit import MISSING, Missing
from headrace.flows.graph.taken import objects_of
from headrace.flows.instants import INSTANT
from headrace.flows.sinks.protocol import SinkRows
from headrace.flows.values import Reading


class StepError(HeadraceError):
    """A step whose errors are to stop the flow could not take an event."""


@dataclass
class Made:
    """What a step made of a batch. batch: rows that it gives, perhaps none. dead: events it could not take."""

    batch: EventBatch
    dead: list[DeadLetter] = field(default_factory=list)


def table_of(batch: EventBatch, step: Step) -> pa.Table:
    """The rows that `step` gives as a table, columns in the order of its schema."""
    return SinkRows.of(batch, step.schema).table


def rows_of(batch: EventBatch, step: Step) -> list[Any]:
    """The rows that `step` gives as objects of its event class; instants are aware datetimes."""
    return objects_of(step.event, step.schema, batch)


def none_of(step: Step) -> EventBatch:
    """No rows of those that `step` gives."""
    return EventBatch.empty({each.name: each.dtype for each in step.schema.fields})


def failed(step: Step, batch: EventBatch, row: int, why: str) -> DeadLetter:
    """The letter of an event that a step could not take.

    Args:
        batch: of the rows that the step takes.

    Raises:
        StepError: errors of the step are to stop the flow.
    """
    assert step.parent is not None
    one = batch.take(slice(row, row + 1))
    payload = payload_text(vars(rows_of(one, step.parent)[0]))
    if step.on_error == "stop":
        raise StepError(
            f"The flow stops: {step.shown} could not take an event: {why}. The event: {payload}. The next run goes on "
            "from the last checkpoint and tries it again. Mend the function, or say on_error='dead_letter' to set such "
            "events aside."
        )
    return DeadLetter(
        FAILED, f"{step.shown}: {why}", step.root.name,
        int(one.partition[0]), int(one.offset[0]), int(one.time[0]), payload,
    )  # fmt: skip


def raised(error: Exception) -> str:
    """How a letter tells what a function raised."""
    return f"{type(error).__name__}: {error}"


def row_fields(given: Any, step: Step) -> dict[str, Any]:
    """What a function gave as a dict of its own.

    Raises:
        TypeError: it is no row.
    """
    if type(given) is dict:
        return given.copy()
    if isinstance(given, Mapping):
        return dict(given)
    if hasattr(given, "_asdict"):
        return dict(given._asdict())
    if hasattr(given, "__dict__") and not isinstance(given, type) and not callable(given):
        return dict(vars(given))
    raise TypeError(f"gave {given!r} ({type(given).__name__}), expected a dict or a {step.event.__name__}")


def times_of(rows: Sequence[Any], step: Step) -> list[datetime]:
    """When the rows that a step takes happened. Ask before a function can change a row."""
    assert step.parent is not None
    return list(map(attrgetter(step.parent.schema.time_field), rows))


def batch_given(
    step: Step, taken: EventBatch, times: Sequence[datetime], rows: Sequence[dict[str, Any]], origin: Sequence[int]
) -> Made:
    """The rows that a function gave as a batch, each with the position of the event it came from.

    Args:
        times: of `times_of`. rows: of `row_fields`. A row without an event time has that of its event; one that has
            another instant is refused. origin: (n,) for each row, which event of `taken` it came from.
    """
    of, n = np.array(origin, dtype=np.int64), len(origin)
    schema, at = step.schema, step.schema.time_field
    columns: dict[str, pa.Array | list[Any]] = {name: _values_given(rows, name) for name in schema.names if name != at}
    columns[at] = pa.array(taken.time[of]).view(INSTANT)
    told = _values_given(rows, at)
    if not set(map(type, told)) <= {Missing, type(None)}:
        own = [times[i] for i in origin]
        told = [its if each is None or each is MISSING else each for each, its in zip(told, own, strict=True)]
        if any(each is not its for each, its in zip(told, own, strict=True)):
            columns[at] = told
    where = np.arange(n, dtype=np.int64)
    return placed(step, taken, of, decode_columns(schema, columns, n, 0, where, Reading(), lambda row: ""))


def _values_given(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    try:
        return [row[name] for row in rows]
    except KeyError:
        return [row.get(name, MISSING) for row in rows]


def placed(step: Step, taken: EventBatch, of: Ints, decoded: Decoded) -> Made:
    """Decoded rows, numbered 0..n-1 as offsets, at the places of their events; see `batch_given`."""
    batch, bad = decoded
    wrong = {int(letter.offset): f"what it gave does not fit {step.event.__name__}: {letter.detail}" for letter in bad}
    moved = batch.time != taken.time[of[batch.offset]]
    for at in batch.offset[moved].tolist():
        wrong[at] = f"it gave a row of another instant; a row keeps the {step.schema.time_field} of its event"
    made = batch.take(~moved) if moved.any() else batch
    origin = of[made.offset]
    effective = taken.effective[origin]
    kept = EventBatch(made.columns, made.time, taken.partition[origin], taken.offset[origin], effective)
    return Made(kept, [failed(step, taken, int(of[at]), why) for at, why in sorted(wrong.items())])
