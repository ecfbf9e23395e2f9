"""What reads Parquet reads the log: DuckDB, Feast's FileSource, pandas, Arrow, Polars. Committed rows, each once."""

import warnings
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest
from tests.stores.logs import DAY, visits

from headrace.stores.offline import OfflineLog
from headrace.stores.testing import AT, Visits

TIMES = [1, 10_000_000, DAY + 5, 2 * DAY]


@pytest.fixture
def log(tmp_path: Path) -> OfflineLog:
    """Two parts with small files, merged ones that wait, a tail and rows that are staged only."""
    for part in ("rides-0000", "rides-0001"):
        with OfflineLog(tmp_path / "log", part) as log:
            for at in TIMES:
                log.append(Visits, visits(at, user=part[-1]))
                log.commit()
            for at in range(9):
                log.append(Visits, visits(2 * DAY + 10 + at, user=part[-1]))
                log.tail(Visits, visits(9 * DAY, user=part[-1]))
                log.commit()
            log.append(Visits, visits(3 * DAY, user=part[-1]))
            log._writer._staged["visits"].finish()  # type: ignore[union-attr]
    return OfflineLog(tmp_path / "log")


EXPECTED = sorted([*TIMES, *range(2 * DAY + 10, 2 * DAY + 19)] * 2)


def test_duckdb(log: OfflineLog) -> None:
    sql = f"SELECT visits FROM read_parquet('{log.sql_path(Visits)}') ORDER BY visits"
    assert [at for (at,) in duckdb.sql(sql).fetchall()] == EXPECTED
    sql = f"SELECT count(*) FROM read_parquet('{log.sql_path(Visits)}', hive_partitioning = true)"
    assert duckdb.sql(f"{sql} WHERE date = '2026-01-02'").fetchall() == [(2,)]


def test_duckdb_on_an_object_store() -> None:
    log = OfflineLog("memory://plain/log", "p")
    log.append(Visits, visits(1, 2))
    log.commit()
    with duckdb.connect() as connection:
        log.place.register(connection)
        found = connection.sql(f"SELECT visits FROM read_parquet('{log.sql_path(Visits)}')").fetchall()
    assert found == [(1,), (2,)]


def test_pandas_arrow_and_polars(log: OfflineLog) -> None:
    folder = Path(log.sql_path(Visits)).parent.parent
    assert sorted(pd.read_parquet(folder)["visits"]) == EXPECTED
    dates = ds.dataset(folder, partitioning="hive")
    assert sorted(dates.to_table(columns=["visits"]).column(0).to_pylist()) == EXPECTED
    assert dates.count_rows(filter=ds.field("date") == "2026-01-02") == 2
    assert sorted(pl.scan_parquet(log.sql_path(Visits)).collect()["visits"].to_list()) == EXPECTED


def test_feast_asks_a_file_source(log: OfflineLog, tmp_path: Path) -> None:
    spine = pd.DataFrame(
        {
            "user": ["0", "1", "0"],
            "event_timestamp": pd.to_datetime([AT + 2, AT + DAY + 6, AT + DAY + 4], unit="us", utc=True),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Feast, dask and pandas among themselves
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
        from feast.types import Float64, Int64

        source = FileSource(
            name="visits", path=str(Path(log.sql_path(Visits)).parent.parent), timestamp_field="event_timestamp"
        )
        user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
        view = FeatureView(
            name="visits",
            entities=[user],
            source=source,
            ttl=timedelta(days=7),
            schema=[Field(name="visits", dtype=Int64), Field(name="total", dtype=Float64)],
        )
        store = FeatureStore(
            config=RepoConfig(
                registry=str(tmp_path / "registry.db"),
                project="headrace",
                provider="local",
                online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
                offline_store={"type": "file"},
                entity_key_serialization_version=3,
            )
        )
        store.apply([user, view])
        found = store.get_historical_features(spine, ["visits:visits"]).to_df()
    answers = {(row.user, round(row.event_timestamp.timestamp() * 1e6) - AT): row.visits for row in found.itertuples()}
    assert answers == {("0", 2): 1, ("1", DAY + 6): DAY + 5, ("0", DAY + 4): 10_000_000}
