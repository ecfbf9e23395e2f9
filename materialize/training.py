"""Training sets: for each row of a spine, the features that serving would have given at that instant (contract C11).

spine (n rows: keys, instant, anything else), a million rows at a time
  -> headrace.materialize.asof: the newest row of the log at or before the instant     n rows
  -> headrace.features.reading: max age, decay, derived features, as for an online row n rows
  -> features on demand of a service, from those and from columns of the spine         n rows
  -> the spine's columns, then the features, in the spine's order
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pyarrow as pa

from headrace.features.reading import read_columns, row_reader
from headrace.features.views import ViewDefinition
from headrace.materialize.asked_features import AskedFeatures, asked_features, statuses_column
from headrace.materialize.asof import newest_rows
from headrace.materialize.spine import Spine, check_column, key_columns, read_spine, times_of
from headrace.materialize.spine_times import SpineClock
from headrace.materialize.training_output import check_form, in_form, write_portions
from headrace.stores.columns import column_of, pair_of
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, arrow_type, row_layout
from headrace.stores.offline import OfflineLog

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import numpy.typing as npt

    from headrace.features.evaluate import Pair

    Ints = npt.NDArray[np.int64]
    Rows = Callable[[ViewDefinition, Sequence[str], pa.Table, Ints], pa.Table]
    """Finds rows of a view: the columns named, for each row of a portion of the spine as of its instant; null in every
    column where there is none."""

Form = Literal["arrow", "pandas", "polars"]


@overload
def training_set(
    spine: Any,
    features: Any,
    *,
    log: OfflineLog,
    time: str = ...,
    keys: Mapping[str, str] | None = ...,
    prefix: bool = ...,
    statuses: bool = ...,
    zone: str | None = ...,
    ambiguous: str = ...,
    nonexistent: str = ...,
    as_: Form = ...,
    to: None = ...,
    memory: str | None = ...,
) -> Any: ...


@overload
def training_set(
    spine: Any,
    features: Any,
    *,
    log: OfflineLog,
    time: str = ...,
    keys: Mapping[str, str] | None = ...,
    prefix: bool = ...,
    statuses: bool = ...,
    zone: str | None = ...,
    ambiguous: str = ...,
    nonexistent: str = ...,
    as_: Form = ...,
    to: str | Path,
    memory: str | None = ...,
) -> Path: ...


def training_set(
    spine: Any,
    features: Any,
    *,
    log: OfflineLog,
    time: str = "event_timestamp",
    keys: Mapping[str, str] | None = None,
    prefix: bool = False,
    statuses: bool = False,
    zone: str | None = None,
    ambiguous: str = "refuse",
    nonexistent: str = "refuse",
    as_: Form = "arrow",
    to: str | Path | None = None,
    memory: str | None = None,
) -> Any:
    """The spine with the features of each row's entity as of each row's instant; nothing from the future, expiry
    included.

    Args:
        spine: key columns, a time column, and whatever else (a label), in a pandas or Polars frame (also a lazy one),
            an Arrow table, reader or dataset, a DuckDB relation, a list of dicts, a Parquet file or folder (its path),
            or SQL that DuckDB runs ("SELECT ... FROM 'labels.csv'"). Rows stay in their order, equal ones too. A row
            with a null key is an entity never seen.
        features: a FeatureService; or views and features of views, one or several: `DriverActivity`,
            `[DriverActivity["fare_mean_1h"], CityLoad]`. What a service's features on demand need of the request are
            columns of the spine.
        log: the log of the flow that computed them. An instant beyond what it has settled is answered from its
            provisional rows: exact if no further event comes.
        time: the spine's column of instants, with a zone.
        keys: for keys that have another name in the spine, key -> column: `keys={"airport": "origin"}`.
        prefix: name the features `<view>__<feature>`, for views whose features share names.
        statuses: add a column `<feature>__status` after each feature; see `headrace.features.reading.Status`.
        zone: IANA zone of times that come without one; without it they are refused (contract C1).
        ambiguous: a time of `zone` that occurs twice, when its clock is turned back: "refuse", or read it as the
            "earlier" or the "later" instant.
        nonexistent: a time that the clock skips when it is turned forward: "refuse", or "shift" it by the gap.
        as_: "arrow" (a pyarrow Table), "pandas" (a pandas spine's index is kept; integers with gaps are Int64) or
            "polars".
        to: a Parquet file to write instead, portion by portion, so that neither spine nor result need fit in memory.
            It appears when it is whole.
        memory: what DuckDB may hold before it spills, such as "1GB"; by default 80 % of the machine's.

    Returns:
        a table in the form asked, or the path written; an entity not seen by then has the values of empty windows.

    Raises:
        DataError: the spine lacks a column, its time has no zone or is null, a key is of another type, or a column of
            the result would stand there twice.
        DefinitionError: `features` are none, `zone` or a rule is unknown.
        MissingStoreError: the log has nothing of a view.
        SchemaMismatchError: the log's rows are of another definition of a view.
    """
    check_form(as_)
    clock = SpineClock(zone, ambiguous, nonexistent)
    asked = asked_features(features, prefix)
    source = read_spine(spine, time)
    check_column(source.schema, time, "time=")
    asked.check(source.schema, statuses)
    views = list(asked.views)

    def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> Any:
        connection.execute("SET preserve_insertion_order = false")
        if memory is not None:
            connection.execute("SET memory_limit = ?", [memory])
        answered = _answered(connection, sources, source, asked, clock, time, keys or {}, statuses)
        if to is not None:
            return write_portions(Path(to), answered)
        return pa.concat_tables(list(answered))

    found = log.query(views, work)
    return found if to is not None else in_form(found, as_, spine)


def _answered(
    connection: duckdb.DuckDBPyConnection,
    sources: Mapping[str, str],
    spine: Spine,
    asked: AskedFeatures,
    clock: SpineClock,
    time: str,
    keys: Mapping[str, str],
    statuses: bool,
) -> Iterator[pa.Table]:
    """The portions of the result, from a log."""
    first = 0
    for portion in spine.portions():
        times = times_of(portion, time, clock, first)

        def found(view: ViewDefinition, columns: Sequence[str], rows: pa.Table, at: Ints) -> pa.Table:
            layout = row_layout(view)
            where = key_columns(rows, layout, keys)
            return newest_rows(connection, sources[view.name], layout, columns, where, at)

        yield with_features(portion, times, first, asked, {"": found}, statuses)
        first += portion.num_rows


def with_features(
    portion: pa.Table,
    times: Ints,
    first: int,
    asked: AskedFeatures,
    readings: Mapping[str, Rows],
    statuses: bool,
) -> pa.Table:
    """A portion of the spine with its features, read from the rows found.

    Args:
        times: (n,) of its rows, microseconds. first: row of the spine that it begins with, for errors.
        readings: where rows are found, by what the names of the features end with.
        statuses: see `training_set`.
    """
    made = {ending: _reading(portion, times, first, asked, rows) for ending, rows in readings.items()}
    out = portion
    for title in asked.titles:
        for ending, of in made.items():
            dtype, pair, code = of[title]
            out = out.append_column(title + ending, column_of(pair, dtype))
            if statuses:
                out = out.append_column(f"{title}{ending}__status", statuses_column(code))
    return out


def _reading(
    portion: pa.Table, times: Ints, first: int, asked: AskedFeatures, found: Rows
) -> dict[str, tuple[str, Pair, Any]]:
    """Type, values and status codes of each feature, by title."""
    values: dict[tuple[str, str], Pair] = {}
    codes: dict[tuple[str, str], Any] = {}
    for view, names in asked.views.items():
        stored = row_reader(view, names).stored
        rows = found(view, (EVENT_TIMESTAMP, NEWEST_EVENT, *stored), portion, times)
        read, status = _read(view, names, stored, rows, times)
        values |= {(view.name, name): pair for name, pair in read.items()}
        codes |= {(view.name, name): each for name, each in status.items()}
    of = {
        title: (each.dtype, values[each.view.name, each.feature], codes[each.view.name, each.feature])
        for title, each in asked.stored
    }
    types = {each.name: each.feature.dtype for each in asked.on_demand}
    return of | {name: (types[name], *made) for name, made in asked.computed(portion, values, first).items()}


def _read(
    view: ViewDefinition, names: tuple[str, ...], stored: tuple[str, ...], rows: pa.Table, times: Any
) -> tuple[dict[str, Pair], dict[str, Any]]:
    """Values and status codes of features of the matched rows, read as of the spine's instants."""
    dtypes = view.dtypes
    as_of, found = pair_of(rows.column(EVENT_TIMESTAMP), "timestamp")
    newest, _ = pair_of(rows.column(NEWEST_EVENT), "timestamp")
    columns = {name: pair_of(rows.column(name).cast(arrow_type(dtypes[name])), dtypes[name]) for name in stored}
    return read_columns(view, columns, as_of, newest, times, found, names)
