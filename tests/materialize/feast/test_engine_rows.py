"""Which rows are read, against a plain loop over all of them: by DuckDB from files, and from a table of Feast's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from feast import Entity, Field, FileSource
from feast.infra.common.materialization_job import MaterializationTask
from feast.infra.offline_stores.dask import DaskOfflineStore
from feast.value_type import ValueType
from hypothesis import given
from hypothesis import strategies as st
from tests.materialize.feast.engine_repo import DRIVER, DRIVER_ID, TRIPS, at, feast_types, trips_view, write

from headrace.materialize.feast.files import file_reading
from headrace.materialize.feast.options import HeadraceEngineConfig
from headrace.materialize.feast.reading import Reader, Work
from headrace.materialize.feast.tables import table_reading

SHOP = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
KINDS = [pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.timestamp("ms"), pa.timestamp("ns", "Asia/Tokyo")]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """seconds, created: after T0; created may be unknown. place: in the source, from its first row to its last."""

    driver: int | None
    shop: str
    seconds: int
    created: int | None
    place: int


ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(1, 3),
        st.sampled_from(["", "a", "ü"]),
        st.integers(-8, 8),
        st.none() | st.integers(-2, 2),
    ),
    max_size=40,
).map(lambda rows: [Row(*row, place) for place, row in enumerate(rows)])


def table_of(rows: list[Row], kind: pa.DataType) -> pa.Table:
    def instants(seconds: list[int | None]) -> pa.Array:
        stamps = [None if second is None else at(second) for second in seconds]
        return pa.array(stamps, pa.timestamp("us", "UTC")).cast(kind)

    return pa.table(
        {
            "driver_id": pa.array([row.driver for row in rows], pa.int64()),
            "shop": pa.array([row.shop for row in rows], pa.string()),
            "event_timestamp": instants([row.seconds for row in rows]),
            "made": instants([row.created for row in rows]),
            "trips": pa.array([row.place for row in rows], pa.int64()),
        }
    )


def expected(rows: list[Row], start: int, end: int, *, created: bool, latest: bool) -> list[Row]:
    """What the docs say, one row after another."""

    def age(row: Row) -> tuple[int, int, int]:
        known = -100 if row.created is None else row.created
        return row.seconds, known if created else 0, row.place

    inside = sorted((row for row in rows if start <= row.seconds <= end), key=age)
    if not latest:
        return inside
    return list({(row.driver, row.shop): row for row in inside}.values())


def work_of(folder: Path, store: Any, start: int, end: int, *, created: bool, latest: bool) -> Work:
    source = FileSource(
        path=str(folder),
        timestamp_field="event_timestamp",
        created_timestamp_column="made" if created else "",
    )
    shop = Field(name="shop", dtype=feast_types.String)
    view = trips_view(folder, entities=[DRIVER, SHOP], schema=[DRIVER_ID, shop, TRIPS], source=source)
    view.entity_columns = [DRIVER_ID, shop]
    task = MaterializationTask(
        project="p", feature_view=view, start_time=at(start), end_time=at(end), only_latest=latest
    )
    config = SimpleNamespace(repo_path=None, materialization_config=SimpleNamespace(pull_latest_features=False))
    registry = SimpleNamespace(get_entity=lambda name, project: {"driver": DRIVER, "shop": SHOP}[name])
    return Work(registry, task, config, store, None, HeadraceEngineConfig(memory_limit="100MB", threads=2))


class Pulled:
    """An offline store that gives a table's rows within the range, as all of Feast's do."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def pull_all_from_table_or_query(self, *, start_date: datetime, end_date: datetime, **_: Any) -> Pulled:
        stamps = self.table["event_timestamp"].cast(pa.timestamp("us")).cast(pa.int64())
        low, high = ((when - EPOCH) // timedelta(microseconds=1) for when in (start_date, end_date))
        inside = pc.and_(pc.greater_equal(stamps, low), pc.less_equal(stamps, high))
        return Pulled(self.table.filter(inside))

    def to_arrow(self) -> pa.Table:
        return self.table


@pytest.mark.parametrize("reader", [file_reading, table_reading])
@pytest.mark.parametrize("latest", [True, False])
@given(rows=ROWS, data=st.data())
def test_rows_are_those_of_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, reader: Reader, latest: bool, rows: list[Row], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    start, end = sorted(data.draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9))))
    created = data.draw(st.booleans())
    cut = data.draw(st.integers(0, len(rows)))
    folder = tmp_path_factory.mktemp("rows")
    table = table_of(rows, kind)
    write(folder / "0.parquet", table.slice(0, cut))
    write(folder / "1.parquet", table.slice(cut))
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    store = DaskOfflineStore() if reader is file_reading else Pulled(chunked)
    opened = reader(work_of(folder, store, start, end, created=created, latest=latest))
    assert opened is not None
    with opened as reading:
        got = [place for batch in reading.batches for place in batch.column("trips").to_pylist()]
    wanted = [row.place for row in expected(rows, start, end, created=created, latest=latest)]
    assert reading.rows == len(wanted)
    assert (sorted(got), sorted(wanted)) == (sorted(wanted), sorted(got)) if latest else got == wanted


def test_more_rows_than_memory_are_read(tmp_path: Path) -> None:
    """240 MB of rows, all in one row group, pass through a DuckDB that may hold 100 MB."""
    count = 600_000
    wide = dict.fromkeys([f"f{at}" for at in range(45)], pa.array(np.arange(count) * 0.1))
    table = pa.table(
        {
            "driver_id": np.arange(count),
            "shop": pa.repeat("a", count),
            "event_timestamp": pa.repeat(pa.scalar(at(0), pa.timestamp("us", "UTC")), count),
            "trips": np.arange(count),
            **wide,
        }
    )
    path = write(tmp_path / "wide.parquet", table)
    work = work_of(path, DaskOfflineStore(), -1, 1, created=False, latest=True)
    work.view.features += [Field(name=name, dtype=feast_types.Float64) for name in wide]
    opened = file_reading(work)
    assert opened is not None
    with opened as reading:
        assert sum(batch.num_rows for batch in reading.batches) == reading.rows == count
