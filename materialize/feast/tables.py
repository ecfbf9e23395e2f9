"""Rows as Feast's own offline stores and its own compute nodes give them: one Arrow table, handed on in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.compute_engines.backends.factory import BackendFactory
from feast.infra.compute_engines.dag.context import ColumnInfo, ExecutionContext
from feast.infra.compute_engines.local.arrow_table_value import ArrowTableValue
from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
from feast.infra.compute_engines.local.local_node import LocalNode
from feast.infra.compute_engines.utils import create_offline_store_retrieval_job

from headrace.features.errors import did_you_mean
from headrace.materialize.feast.messages import encoded_here, through_pandas
from headrace.materialize.feast.newest import count_of, find_newest, identity, open_duckdb
from headrace.materialize.feast.reading import MaterializeError, Reading, Work, batch_rows


def table_reading(work: Work) -> AbstractContextManager[Reading] | None:
    """Reads a plain view by Feast's offline store, whichever it is."""
    return _table(work) if work.plain else None


def graph_reading(work: Work) -> AbstractContextManager[Reading] | None:
    """Computes a view by the nodes of Feast's local engine: transformations, views of views, filters, validation."""
    return _graph(work)


@contextmanager
def _table(work: Work) -> Iterator[Reading]:
    keys, features, time, created = work.source_columns
    job = create_offline_store_retrieval_job(
        data_source=work.view.batch_source,
        column_info=ColumnInfo(keys, features, time, created),
        context=execution_context(work),
        start_time=work.task.start_time,
        end_time=work.task.end_time,
    )
    table = job.to_arrow()
    back = {stored: given for given, stored in work.columns.items()}
    table = table.rename_columns([back.get(column, column) for column in table.column_names])
    table = _checked(work, table)
    yield _batches(table, _order(work, table))


@contextmanager
def _graph(work: Work) -> Iterator[Reading]:
    table = _checked(work, _UpToOutput(work).build().execute(execution_context(work)).data)
    yield _batches(table, _order(work, table))


class _UpToOutput(LocalFeatureBuilder):
    """Feast's plan without its last node, which writes; rows at one instant are told apart as elsewhere."""

    def __init__(self, work: Work) -> None:
        super().__init__(work.registry, work.task, backend=BackendFactory.infer_from_entity_df(None))
        self.work = work

    def build_dedup_node(self, view: Any, input_node: Any) -> Any:
        if view.name != self.work.view.name:
            return super().build_dedup_node(view, input_node)
        node = _NewestRows(self.work, [input_node])
        self.nodes.append(node)
        return node

    def build_output_nodes(self, view: Any, input_node: Any) -> Any:
        return input_node


class _NewestRows(LocalNode):
    """The newest row of each entity; of rows at one instant the last created, then the last that came."""

    def __init__(self, work: Work, inputs: list[Any]) -> None:
        super().__init__("dedup", inputs=inputs)
        self.work = work

    def execute(self, context: ExecutionContext) -> ArrowTableValue:
        table = _checked(self.work, self.get_single_table(context).data)
        return ArrowTableValue(table.take(_order(self.work, table)))


def execution_context(work: Work) -> ExecutionContext:
    """What Feast's nodes are run in."""
    return ExecutionContext(
        project=work.task.project,
        repo_config=work.config,
        offline_store=work.offline_store,
        online_store=work.online_store,
        entity_defs=[work.registry.get_entity(name, work.task.project) for name in work.view.entities],
    )


def _checked(work: Work, table: pa.Table) -> pa.Table:
    """The table with every column of the view, instants as instants, and what Feast encodes as its engine gets it."""
    if work.entityless and DUMMY_ENTITY_ID not in table.column_names:
        table = table.append_column(DUMMY_ENTITY_ID, pa.array([""] * table.num_rows))
    for column in [*work.keys, *work.features, work.time]:
        if column not in table.column_names:
            raise MaterializeError(
                f"what its source and transformation give has no column '{column}'"
                f"{did_you_mean(column, table.column_names)} It has: {', '.join(table.column_names)}. Add the column, "
                "or mend the view's schema or the source's field_mapping and run `feast apply`."
            )
    for column in [work.time, *([work.created] if work.created else [])]:
        if column in table.column_names:
            table = _replaced(table, column, _instants(work, column, table[column]))
    # Feast's engine takes every table through pandas on its way, which changes maps, structs and the like.
    kinds = {**work.keys, **work.features}
    odd = [
        column
        for column, kind in kinds.items()
        if not encoded_here(kind, table[column].type) and through_pandas(kind, table[column].type)
    ]
    if odd:
        through = pa.Table.from_pandas(table.select(odd).to_pandas(), preserve_index=False)
        for column in odd:
            table = _replaced(table, column, through[column])
    return table


def _replaced(table: pa.Table, column: str, values: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


def _instants(work: Work, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Instants as timestamps; texts and dates become such."""
    if pa.types.is_timestamp(values.type):
        return values
    try:
        read = pd.to_datetime(pd.Series(values.to_pandas()), utc=True)
    except (ValueError, TypeError) as error:
        raise MaterializeError(
            f"column '{column}' shall hold instants and holds {values.type}: {error}. Give the source a "
            "timestamp_field that is one."
        ) from error
    return pa.chunked_array([pa.Array.from_pandas(read, type=pa.timestamp("us", "UTC"), safe=False)])


def _order(work: Work, table: pa.Table) -> pa.Array:
    """The rows to hand on: the newest of each entity, or all, oldest first."""
    numbered = {"row": pa.array(np.arange(table.num_rows)), "time": table[work.time]}
    columns = ["row", f"{count_of('time', table[work.time].type)} AS time"]
    created = work.created if work.created in table.column_names else None  # a transformation may have dropped it
    if created is not None:
        numbered["created"] = table[created]
        columns.append(f"{count_of('created', table[created].type)} AS created")
    if not work.entityless:
        for at, key in enumerate(work.keys):
            numbered[f"key{at}"] = table[key]
            columns.append(f"{identity(f'key{at}', table[key].type, work.keys[key])} AS key{at}")
    with open_duckdb(work) as connection:
        connection.register("pulled", pa.table(numbered))
        rows = f"(SELECT {', '.join(columns)} FROM pulled WHERE time IS NOT NULL)"
        if work.latest:
            find_newest(connection, work, rows, created=created is not None)
            found = connection.sql("SELECT row FROM newest ORDER BY row")
        else:
            oldest = "time, created NULLS FIRST, row" if created is not None else "time, row"
            found = connection.sql(f"SELECT row FROM {rows} ORDER BY {oldest}")
        return found.to_arrow_table()["row"].combine_chunks()


def _batches(table: pa.Table, order: pa.Array) -> Reading:
    """The rows of a table in this order."""

    size = batch_rows(table.nbytes, table.num_rows)

    def taken() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(order), size):
            yield from table.take(order.slice(start, size)).combine_chunks().to_batches()

    return Reading(taken(), len(order))
