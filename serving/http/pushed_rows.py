"""Rows that callers push into a view: checked one by one, then a table as a store takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BYTES
from headrace.features.errors import DataError, did_you_mean
from headrace.features.time import format_duration, format_instant
from headrace.features.views import ViewDefinition
from headrace.serving.http.problems import Problem, unprocessable
from headrace.serving.http.pushed_values import Unfit, Writing, typed_value
from headrace.stores.keys import plain_key
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, row_layout
from headrace.stores.online import StoredRow
from headrace.stores.rows import table_of

if TYPE_CHECKING:
    import pyarrow as pa

MOST_AHEAD_US = 5 * 60 * 1_000_000
"""How far ahead of this machine's clock a pushed row may be: until its instant no other row would take its place."""

PASSED_OVER = frozenset({"created"})
"""Columns that Feast's clients send and that say nothing here."""


def pushed_rows(
    view: ViewDefinition, frame: Any, how: Writing, *, now_us: int, most: int, missing_is_null: bool = False
) -> pa.Table:
    """The rows of a request's `df`, column -> n values, as a table of the view's layout.

    Args:
        now_us: the wall clock. most: rows of one request. missing_is_null: whether features without a column are null.

    Raises:
        Problem: 422, for the first value that does not fit; `field` names column and row.
    """
    layout = row_layout(view)
    columns, n = _columns(view, frame, most)
    keys = [name for name in layout.key_names if name not in columns]
    features = [] if missing_is_null else [name for name in layout.feature_names if name not in columns]
    lacking = [*keys, *(() if EVENT_TIMESTAMP in columns else (EVENT_TIMESTAMP,)), *features]
    if lacking:
        raise _lacking(view, lacking, bool(features))
    dtypes = dict(layout.columns)
    made = {name: _typed(view, name, dtypes[name], columns[name], how) for name in dtypes if name in columns}
    as_of = made[EVENT_TIMESTAMP]
    newest = made.get(NEWEST_EVENT, as_of)
    for row, (us, event) in enumerate(zip(as_of, newest, strict=True)):
        if us > now_us + MOST_AHEAD_US:
            raise _refused(
                f"{format_instant(us)} is {format_duration(us - now_us)} ahead of the server's clock; at most "
                f"{format_duration(MOST_AHEAD_US)} may be, since until then no other row takes its place. Push a row "
                "as of the instant its values are of.",
                EVENT_TIMESTAMP,
                row,
            )
        if event > us:
            raise _refused(
                f"{format_instant(event)} is later than the row itself, which is as of {format_instant(us)}. Leave the "
                "column out: then it is event_timestamp.",
                NEWEST_EVENT,
                row,
            )
    entities = [{name: made[name][row] for name in layout.key_names} for row in range(n)]
    nothing = [None] * n
    rows = [
        StoredRow({name: made.get(name, nothing)[row] for name in layout.feature_names}, as_of[row], newest[row])
        for row in range(n)
    ]
    return table_of(layout, entities, rows)


def _columns(view: ViewDefinition, frame: Any, most: int) -> tuple[dict[str, list[Any]], int]:
    shape = 'Write {"driver_id": ["7", "8"], "event_timestamp": [...], ...}'
    if not isinstance(frame, Mapping):
        raise unprocessable(f"df: expected an object, column -> values. {shape}.", "df")
    known = [name for name, _ in row_layout(view).columns]
    columns = {}
    for name, values in frame.items():
        if name not in known:
            if name in PASSED_OVER:
                continue
            raise unprocessable(
                f"df: view '{view.name}' has no column '{name}'{did_you_mean(name, known)} Its columns are: "
                f"{', '.join(known)}.",
                f"df.{name}",
            )
        if not isinstance(values, list):
            raise unprocessable(f"df.{name}: expected an array of values, a value for each row. {shape}.", f"df.{name}")
        columns[name] = values
    lengths = {name: len(values) for name, values in columns.items()}
    n = next(iter(lengths.values()), 0)
    for name, length in lengths.items():
        if length != n:
            first = next(iter(lengths))
            raise unprocessable(
                f"df.{name}: {length} values, but df.{first} has {n}. Give each column one for each row.", f"df.{name}"
            )
    if n > most:
        raise Problem(
            422,
            f"df: {n} rows; one request may push {most}. Push them in several.",
            field="df",
            reason="too_many_entities",
        )
    return columns, n


def _lacking(view: ViewDefinition, names: list[str], features: bool) -> Problem:
    hidden = [name for name in names if name.startswith("_")]
    said = f"df: rows of view '{view.name}' without {', '.join(names)}."
    if EVENT_TIMESTAMP in names:
        said += (
            " event_timestamp is the instant a row's values are of: an older row never takes the place of a newer one."
        )
    if hidden:
        said += f" {', '.join(hidden)}: hidden features from which readers compute others."
    if features:
        said += ' A pushed row is whole; "missing": "null" makes the features that are not given null.'
    return unprocessable(said, f"df.{names[0]}")


def _typed(view: ViewDefinition, name: str, dtype: str, values: list[Any], how: Writing) -> list[Any]:
    keys = dict(row_layout(view).keys)
    never_null = name in keys or name in (EVENT_TIMESTAMP, NEWEST_EVENT)
    out = []
    for row, value in enumerate(values):
        if value is None and never_null:
            raise _refused(f"got null, expected {dtype}. A key or time is never null.", name, row)
        try:
            if name in keys and dtype != BYTES:
                out.append(plain_key(view.name, name, dtype, value))
            else:
                out.append(typed_value(value, dtype, how))
        except Unfit as error:
            raise _refused(f"{error}.", name, row) from None
        except DataError as error:
            raise _refused(str(error), name, row) from None
    return out


def _refused(said: str, name: str, row: int) -> Problem:
    field = f"df.{name}[{row}]"
    return unprocessable(f"{field}: {said} Nothing of the request was written.", field)
