"""The events that a view with aggregations is computed from, as a table that DuckDB reads.

Parquet files are read as they are, any other source by Feast's offline store, and where a view transforms its rows or
takes them from other views, by the nodes of Feast's local engine up to where they would be aggregated. Only events that
a window can cover are asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
from feast.infra.compute_engines.backends.factory import BackendFactory
from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
from feast.value_type import ValueType

from headrace.materialize.feast.files import parquet_table, source_files
from headrace.materialize.feast.instants import datetime_of
from headrace.materialize.feast.reading import MaterializeError, Work
from headrace.materialize.feast.tables import execution_context
from headrace.materialize.instant import Question
from headrace.stores.sql import name


def with_events(connection: duckdb.DuckDBPyConnection, work: Work, question: Question) -> Question:
    """The question with its table of events, whose columns are called as the view calls them.

    Raises:
        MaterializeError: there are no such files. Any error of Feast's stores, of a view's function, of DuckDB.
    """
    view = work.view
    computed = bool(getattr(view, "source_views", None) or getattr(view, "feature_transformation", None))
    files = None if computed else source_files(work)
    mapping: dict[str, str] = {}
    if not computed:
        mapping = dict(view.batch_source.field_mapping or {})
    if files is None:
        table = _computed(work, question) if computed else _pulled(work, question)
        connection.register(
            "pulled",
            _typed(table, {column for column in table.column_names if mapping.get(column, column) == work.time}),
        )
    stored = "pulled" if files is None else parquet_table(files)
    types = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE SELECT * FROM {stored}").fetchall()}
    selected = []
    for column, kind in types.items():
        shown = mapping.get(column, column)
        value = name(column)
        if work.keys.get(shown) == ValueType.UNIX_TIMESTAMP and kind.startswith("TIMESTAMP"):
            value = f"date_trunc('second', {value})"  # Feast tells two instants that are keys apart by their seconds
        selected.append(f"{value} AS {name(shown)}")
    there = {mapping.get(column, column) for column in types}
    order = () if work.created is None or work.created not in there else (work.created,)
    return replace(question, rows=f"(SELECT {', '.join(selected)} FROM {stored})", order=order)


def _pulled(work: Work, question: Question) -> pa.Table:
    """What Feast's offline store has, by columns as the source calls them."""
    source = work.view.batch_source
    back = {shown: stored for stored, shown in (source.field_mapping or {}).items()}
    keys, _, time, created = work.source_columns
    inputs = dict.fromkeys(each.column for each in question.aggregations if each.column is not None)
    columns = [back.get(column, column) for column in inputs]
    job = work.offline_store.pull_all_from_table_or_query(
        config=work.config,
        data_source=source,
        join_key_columns=keys,
        feature_name_columns=[column for column in columns if column not in (*keys, time, created)],
        timestamp_field=time,
        created_timestamp_column=created,
        start_date=datetime_of(question.lower_us),
        end_date=datetime_of(question.at_us),
    )
    return job.to_arrow()


def _computed(work: Work, question: Question) -> pa.Table:
    """What Feast's nodes make of the source's rows, or of another view's rows.

    Raises:
        MaterializeError: the nodes would give the newest row of each entity only, or a join of such rows.
    """
    if work.config.materialization_config.pull_latest_features:
        raise MaterializeError(
            "its windows are over rows that are computed, of which `materialization_config: {pull_latest_features: "
            "true}` leaves the newest of each entity only. Set it to false."
        )
    _check_chain(work.view)
    task = replace(work.task, start_time=datetime_of(question.lower_us), end_time=datetime_of(question.at_us))
    builder = _UpToAggregations(work.registry, task, backend=BackendFactory.infer_from_entity_df(None))
    return builder.build().execute(execution_context(work)).data


def _check_chain(view: Any) -> None:
    sources = list(getattr(view, "source_views", None) or [])
    if len(sources) > 1:
        raise MaterializeError(
            f"its windows are over rows of view '{view.name}', which joins {len(sources)} views: a join says nothing "
            "of when things happened. Take one source view, or join after the windows."
        )
    for source in sources:
        _check_chain(source)


def _typed(table: pa.Table, times: set[str]) -> pa.Table:
    """The table, its columns of nothing but nulls as instants and numbers: they have no type of their own."""
    wanted = [
        field.with_type(pa.timestamp("us", "UTC") if field.name in times else pa.float64())
        if pa.types.is_null(field.type)
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(wanted))


class _UpToAggregations(LocalFeatureBuilder):
    """Feast's plan up to where the view's rows would be aggregated."""

    def _should_aggregate(self, view: Any) -> bool:
        return view.name != self.feature_view.name and bool(super()._should_aggregate(view))

    def _should_dedupe(self, view: Any) -> bool:
        return False  # windows are over all rows, of the view that they come from, too

    def _should_validate(self, view: Any) -> bool:
        return view.name != self.feature_view.name and bool(super()._should_validate(view))

    def build_output_nodes(self, view: Any, input_node: Any) -> Any:
        return input_node
