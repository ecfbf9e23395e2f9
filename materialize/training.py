"""Training sets: for each row of a spine, the features that serving would have given at that instant (contract C11).

spine (n rows: keys, instant, anything else)
  -> DuckDB: ASOF join with the log's rows, settled and provisional, the newest at or before the instant     n rows
  -> headrace.features.reading: max age, decay, derived features, as for an online row                       n rows
  -> the spine's columns, then the features, in the spine's order
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.features.errors import DataError
from headrace.features.reading import STATUSES, read_columns
from headrace.features.views import ViewDefinition, definition
from headrace.materialize.spine import Spine, key_columns, read_spine
from headrace.stores.columns import column_of, pair_of
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, arrow_type, row_layout
from headrace.stores.offline import OfflineLog
from headrace.stores.sql import fetch, name

if TYPE_CHECKING:
    import duckdb

INSTANT = pa.timestamp("us", tz="UTC")


def training_set(
    spine: Any,
    views: Any | Iterable[Any],
    *,
    log: OfflineLog,
    time: str = "event_timestamp",
    keys: Mapping[str, str] | None = None,
    prefix: bool = False,
    statuses: bool = False,
) -> pa.Table:
    """The spine with the features of each row's entity as of each row's instant; nothing from the future, expiry
    included.

    Args:
        spine: a pandas or Polars frame, an Arrow table or a list of dicts: key columns, a time column, and whatever
            else (a label). Rows stay in their order, equal ones too. A row with a null key is an entity never seen.
        views: one view or several.
        log: the log of the flow that computed them. An instant beyond what it has settled is answered from its
            provisional
            rows: exact if no further event comes.
        time: the spine's column of instants, with a zone.
        keys: for keys that have another name in the spine, key -> column: `keys={"airport": "origin"}`.
        prefix: name the features `<view>__<feature>`, for views whose features share names.
        statuses: add a column `<feature>__status` after each feature; see `headrace.features.reading.Status`.

    Returns:
        an Arrow table (`.to_pandas()`, or `polars.from_arrow`); an entity not seen by then has the values of empty
        windows.

    Raises:
        DataError: the spine lacks a column, its time has no zone or is null, a key is of another type, or a column of
            the result would stand there twice.
        MissingStoreError: the log has nothing of a view.
        SchemaMismatchError: the log's rows are of another definition of a view.
    """
    several = views if isinstance(views, Iterable) and not hasattr(views, "__view__") else [views]
    definitions = [definition(view) for view in several]
    asked = read_spine(spine, time)
    titles = _titles(asked.table.column_names, definitions, prefix, statuses)
    upto = int(asked.times.max()) if asked.table.num_rows else None

    def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> list[pa.Table]:
        return [_matched(connection, sources[view.name], view, asked, keys or {}) for view in definitions]

    out = asked.table
    for view, rows in zip(definitions, log.query(definitions, work, to_us=upto), strict=True):
        for feature, column, status in _features(view, rows, asked):
            title = titles[view.name, feature]
            out = out.append_column(title, column)
            if statuses:
                out = out.append_column(f"{title}__status", status)
    return out


def _titles(taken: list[str], views: list[ViewDefinition], prefix: bool, statuses: bool) -> dict[tuple[str, str], str]:
    """Column of each feature; refuses one that would stand in the result twice."""
    owner = dict.fromkeys(taken, "the spine")
    titles = {}
    for view in views:
        for feature in view.feature_names():
            title = f"{view.name}__{feature}" if prefix else feature
            for column in (title, f"{title}__status") if statuses else (title,):
                if column in owner:
                    advice = "Rename the spine's column." if prefix else "Give prefix=True, or rename one of them."
                    raise DataError(
                        f"Column '{column}' would come from {owner[column]} and from view '{view.name}'. {advice}"
                    )
                owner[column] = f"view '{view.name}'"
            titles[view.name, feature] = title
    return titles


def _matched(
    connection: duckdb.DuckDBPyConnection, source: str, view: ViewDefinition, spine: Spine, names: Mapping[str, str]
) -> pa.Table:
    """For each spine row the newest log row of its entity at or before its instant, or nulls; in the spine's order."""
    layout = row_layout(view)
    asked = {
        "row": pa.array(np.arange(len(spine.times))),
        "at": pa.array(spine.times).cast(INSTANT),
        **{f"k{i}": column for i, column in enumerate(key_columns(spine, layout, names))},
    }
    connection.register("asked", pa.table(asked))
    columns = [EVENT_TIMESTAMP, NEWEST_EVENT, *layout.feature_names]
    pairs = [(f"k{i}", name(key)) for i, key in enumerate(layout.key_names)]
    wanted = " AND ".join(f"e.{ours} = l.{theirs}" for ours, theirs in pairs)
    same = " AND ".join(f"a.{ours} = r.{theirs}" for ours, theirs in pairs)
    entities = ", ".join(ours for ours, _ in pairs)
    sql = f"""
        SELECT {", ".join("r." + name(column) for column in columns)}
        FROM asked a ASOF LEFT JOIN (
            SELECT * FROM {source} l SEMI JOIN (SELECT DISTINCT {entities} FROM asked) e ON {wanted}
        ) r ON {same} AND a.at >= r.{EVENT_TIMESTAMP}
        ORDER BY a.row
    """
    return fetch(connection, sql)


def _features(view: ViewDefinition, rows: pa.Table, spine: Spine) -> Iterable[tuple[str, pa.Array, pa.Array]]:
    """Name, values and statuses of each feature of the matched rows, read as of the spine's instants."""
    layout = row_layout(view)
    as_of, found = pair_of(rows.column(EVENT_TIMESTAMP), "timestamp")
    newest, _ = pair_of(rows.column(NEWEST_EVENT), "timestamp")
    stored = {
        feature: pair_of(rows.column(feature).cast(arrow_type(dtype)), dtype) for feature, dtype in layout.features
    }
    values, codes = read_columns(view, stored, as_of, newest, spine.times, found)
    for feature in view.feature_names():
        status = pa.DictionaryArray.from_arrays(pa.array(codes[feature]), pa.array([str(each) for each in STATUSES]))
        yield feature, column_of(values[feature], view.dtypes[feature]), status
