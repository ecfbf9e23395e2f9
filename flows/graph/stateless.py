"""Steps that look at one row, or at many that do not concern each other: computed at once, as batches come."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.features.evaluate import evaluate
from headrace.features.steps import Step
from headrace.flows.batch import Bools, EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.decode import decode_table
from headrace.flows.graph.rows import (
    Made,
    batch_given,
    failed,
    none_of,
    placed,
    raised,
    row_fields,
    rows_of,
    table_of,
    times_of,
)


def filtered(step: Step, batch: EventBatch) -> Made:
    """Steps "filter" and "otherwise": the rows for which the condition is true, or is not."""
    dead: list[DeadLetter] = []
    if step.condition is not None:
        columns = {name: (batch.values(name), batch.valid(name)) for name in batch}
        values, valid = evaluate(step.condition, columns, len(batch))
        passed: Bools = values.astype(np.bool_) & valid
        return Made(batch.take(~passed if step.kind == "otherwise" else passed))
    assert step.parent is not None
    kept = np.zeros(len(batch), dtype=np.bool_)
    for i, row in enumerate(rows_of(batch, step.parent)):
        try:
            kept[i] = bool(step.function(row)) is (step.kind == "filter")
        except Exception as error:  # whatever the user's function raises
            dead.append(failed(step, batch, i, raised(error)))
    return Made(batch.take(kept), dead)


def inspected(step: Step, batch: EventBatch) -> Made:
    """Step "inspect": the same rows; one for which the function raises is a dead letter."""
    assert step.parent is not None
    dead: list[DeadLetter] = []
    kept = np.ones(len(batch), dtype=np.bool_)
    for i, row in enumerate(rows_of(batch, step.parent)):
        try:
            step.function(row)
        except Exception as error:  # whatever the user's function raises
            kept[i] = False
            dead.append(failed(step, batch, i, raised(error)))
    return Made(batch if kept.all() else batch.take(kept), dead)


def mapped(step: Step, batch: EventBatch) -> Made:
    """Steps "map_rows" and "flat_map". An event of which any row does not come about gives none: it is a dead letter
    whole, unless its rows do not fit the class, which is told row by row."""
    assert step.parent is not None
    rows: list[Any] = []
    origin: list[int] = []
    dead: list[DeadLetter] = []
    taken = rows_of(batch, step.parent)
    times = times_of(taken, step)
    for i, row in enumerate(taken):
        try:
            given = step.function(row)
            several = [given] if step.kind == "map_rows" else several_given(given)
            made = [row_fields(each, step) for each in several]
        except Exception as error:  # whatever the user's function raises
            dead.append(failed(step, batch, i, raised(error)))
            continue
        rows += made
        origin += [i] * len(made)
    result = batch_given(step, batch, times, rows, origin)
    return Made(result.batch, dead + result.dead)


def several_given(given: Any) -> list[Any]:
    """Rows of what a flat_map's function gives.

    Raises:
        TypeError: text, or one row that stands alone.
    """
    if given is None:
        return []
    if isinstance(given, (str, bytes, dict)) or not hasattr(given, "__iter__"):
        raise TypeError(f"gave a {type(given).__name__}, expected a list of rows or None")
    return list(given)


def framed(step: Step, batch: EventBatch) -> Made:
    """Step "map_batches". Where the function raises, it is given halves, down to the row that it cannot take."""
    if not len(batch):
        return Made(none_of(step))
    try:
        table = _table_given(step, step.function(_frame(step, batch)), batch)
    except Exception as error:  # whatever the user's function raises
        if len(batch) == 1:
            return Made(none_of(step), [failed(step, batch, 0, raised(error))])
        half = len(batch) // 2
        parts = [framed(step, batch.take(each)) for each in (slice(0, half), slice(half, None))]
        return Made(EventBatch.concat([each.batch for each in parts]), parts[0].dead + parts[1].dead)
    where = np.arange(len(batch), dtype=np.int64)
    return placed(step, batch, where, decode_table(step.schema, table, 0, where))


def _frame(step: Step, batch: EventBatch) -> Any:
    assert step.parent is not None
    table = table_of(batch, step.parent)
    if step.frames == "pandas":
        return table.to_pandas()
    if step.frames == "polars":
        import polars

        return polars.from_arrow(table)
    if step.frames == "numpy":
        return {name: table.column(name).to_numpy() for name in table.column_names}
    return table


def _table_given(step: Step, given: Any, batch: EventBatch) -> pa.Table:
    """What the function gave as a table, with the events' times where it has none.

    Raises:
        TypeError, ValueError: no frame, or not one row for each.
    """
    assert step.parent is not None
    if isinstance(given, dict):
        table = pa.table({name: _utc(pa.array(values, from_pandas=True)) for name, values in given.items()})
    elif isinstance(given, (pa.Table, pa.RecordBatch)):
        table = given if isinstance(given, pa.Table) else pa.table(given)
    elif type(given).__module__.startswith("pandas"):
        table = pa.Table.from_pandas(given, preserve_index=False)
    elif hasattr(given, "to_arrow"):
        table = given.to_arrow()
    else:
        raise TypeError(f"gave a {type(given).__name__}, expected a frame as it was given")
    if table.num_rows != len(batch):
        raise ValueError(f"gave {table.num_rows} rows for {len(batch)}; a frame has one row for each, in their order")
    at = step.schema.time_field
    if at not in table.column_names:
        table = table.append_column(at, table_of(batch, step.parent).column(step.parent.schema.time_field))
    return table


def _utc(column: pa.Array) -> pa.Array:
    """NumPy's instants have no zone; those that a function is given are UTC."""
    return column.cast(pa.timestamp(column.type.unit, "UTC")) if pa.types.is_timestamp(column.type) else column


COMPUTE: dict[str, Callable[[Step, EventBatch], Made]] = {
    "filter": filtered,
    "otherwise": filtered,
    "inspect": inspected,
    "map_rows": mapped,
    "flat_map": mapped,
    "map_batches": framed,
}
"""By kind of step."""
