"""The engine with other offline and online stores, with views that compute, and with what goes wrong."""

import logging
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import BatchFeatureView, Field, FileSource, StreamFeatureView
from feast.infra.common.materialization_job import MaterializationJobStatus
from tests.materialize.feast.engine_repo import (
    DRIVER,
    DRIVER_ID,
    TRIPS,
    Repo,
    at,
    feast_types,
    hashes,
    rides,
    trips_view,
    write,
)
from tests.servers.fixtures import RedisAddress

from headrace.materialize.feast import engine, writing
from headrace.materialize.feast.files import file_reading
from headrace.materialize.feast.reading import MaterializeError, Reading, Work
from headrace.materialize.feast.tables import table_reading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "rides.parquet", rides((1, 0, 10), (1, 20, 12), (2, 5, 20), (1, 10, 11)))


def batch_view(path: Path | None, name: str = "computed", **options: Any) -> BatchFeatureView:
    source = FileSource(path=str(path), timestamp_field="event_timestamp", name=f"source_of_{name}")
    given = {"entities": [DRIVER], "schema": [DRIVER_ID, TRIPS], "source": source, "online": True, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return BatchFeatureView(name=name, **given)


def sqlite(tmp_path: Path) -> dict[str, Any]:
    return {"type": "sqlite", "path": str(tmp_path / "online.db")}


# Stores


@pytest.mark.parametrize("offline", ["file", "dask", "duckdb"])
def test_offline_stores_of_files_give_the_same_rows(
    tmp_path: Path, path: Path, redis_server: RedisAddress, offline: str
) -> None:
    repo = Repo(tmp_path, redis_server, trips_view(path), offline=offline)
    repo.materialize()
    assert repo.read("trips_of") == [12, 20]


@pytest.mark.parametrize("offline", ["dask", "duckdb"])
@pytest.mark.parametrize("latest", [True, False])
def test_reading_files_ourselves_gives_what_feasts_store_gives(
    tmp_path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch, offline: str, latest: bool
) -> None:
    rows = [(driver, second % 7, second) for second in range(40) for driver in (3, 1, 2)]
    table = rides(*rows).append_column("created", pa.array([at(n) for n in range(len(rows))]))
    source = FileSource(
        path=str(write(tmp_path / "many.parquet", table)),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    repo = Repo(tmp_path, redis_server, trips_view(Path("unused"), source=source), offline=offline)
    works: list[Work] = []
    monkeypatch.setattr(engine, "materialize_view", works.append)
    repo.run("trips_of", start=1, end=5, only_latest=latest)
    ours, feasts = (rows_of(reader(works[0])) for reader in (file_reading, table_reading))
    assert len(ours) == (3 if latest else 3 * 29)
    order = ["event_timestamp", "created"]
    assert latest or ours == sorted(ours, key=lambda row: [row[name] for name in order])
    known = lambda row: (row["driver_id"], row["trips"])  # noqa: E731
    assert sorted(ours, key=known) == sorted(feasts, key=known)


COLUMNS = ["driver_id", "trips", "event_timestamp", "created"]


def rows_of(opened: AbstractContextManager[Reading] | None) -> list[dict[str, Any]]:
    assert opened is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with opened as reading:
            rows = [row for batch in reading.batches for row in batch.select(COLUMNS).to_pylist()]
    assert reading.rows == len(rows)
    return rows


@pytest.mark.parametrize("size", [None, 1])
def test_any_other_online_store_is_written_by_feasts_own_class(tmp_path: Path, path: Path, size: int | None) -> None:
    repo = Repo(tmp_path, sqlite(tmp_path), trips_view(path), materialization_config={"online_write_batch_size": size})
    repo.materialize()
    assert repo.read("trips_of") == [12, 20]


def test_an_offline_store_of_anybodys_is_asked_for_its_table(
    tmp_path: Path, path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repo(tmp_path, redis_server, trips_view(path))
    asked: list[list[str]] = []
    made = repo.store._get_provider().batch_engine

    class Job:
        def to_arrow(self) -> pa.Table:
            parts = pq.read_table(path)
            return pa.concat_tables([parts.slice(0, 1), parts.slice(1, 2), parts.slice(3)])  # of three chunks

    class Warehouse(type(made.offline_store)):  # type: ignore[misc]
        @staticmethod
        def pull_all_from_table_or_query(**given: Any) -> Job:
            asked.append(given["join_key_columns"])
            return Job()

    monkeypatch.setattr(made, "offline_store", Warehouse())
    repo.materialize()
    assert asked == [["driver_id"]]
    assert repo.read("trips_of") == [12, 20]


def test_rows_go_offline_too_where_the_view_says_so(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    sink = write(tmp_path / "sink.parquet", rides())
    source = trips_view(path, "source_view")
    view = batch_view(
        None, source=[source], sink_source=FileSource(path=str(sink), timestamp_field="event_timestamp"), offline=True
    )
    repo = Repo(tmp_path, redis_server, source, view)
    job = repo.run("computed")
    assert job.error() is None
    assert sorted(row["trips"] for row in pq.read_table(sink).to_pylist()) == [12, 20]
    assert repo.read("computed") == [12, 20]


def test_rows_do_not_go_back_to_the_source_that_they_come_from(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    before = path.read_bytes()
    repo = Repo(tmp_path, redis_server, trips_view(path, offline=True))
    repo.materialize()
    assert repo.read("trips_of") == [12, 20]
    assert path.read_bytes() == before


def test_a_view_that_is_only_offline_leaves_redis_alone(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    sink = write(tmp_path / "sink.parquet", rides())
    source = trips_view(path, "source_view")
    view = batch_view(
        None,
        source=[source],
        sink_source=FileSource(path=str(sink), timestamp_field="event_timestamp"),
        offline=True,
        online=False,
    )
    repo = Repo(tmp_path, redis_server, source, view)
    assert repo.run("computed").error() is None
    assert pq.read_table(sink).num_rows == 2
    assert hashes(redis_server) == {}


def test_a_partition_of_a_folder_may_be_a_feature(tmp_path: Path, redis_server: RedisAddress) -> None:
    folder = tmp_path / "rides"
    write(folder / "day=3" / "a.parquet", rides((1, 0, 1), (2, 9, 2)))
    write(folder / "day=4" / "b.parquet", rides((1, 5, 3), (2, 8, 4)))
    schema = [DRIVER_ID, TRIPS, Field(name="day", dtype=feast_types.Int64)]
    repo = Repo(tmp_path, redis_server, trips_view(folder, schema=schema))
    repo.materialize()
    assert [repo.read("trips_of", name) for name in ("trips", "day")] == [[3, 2], [4, 3]]


# Views that compute


def test_a_transformation_is_computed(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    def doubled(frame: pd.DataFrame) -> pd.DataFrame:
        frame["trips"] = frame["trips"] * 2
        return frame

    view = batch_view(path, mode="pandas", udf=doubled, udf_string="doubled")
    repo = Repo(tmp_path, redis_server, view)
    repo.materialize()
    assert repo.read("computed") == [24, 40]


def test_rows_at_one_instant_are_told_apart_after_a_transformation_as_before_one(
    tmp_path: Path, redis_server: RedisAddress
) -> None:
    def same(frame: pd.DataFrame) -> pd.DataFrame:
        return frame

    rows = [(driver, 0.0, trips) for trips in range(30) for driver in (1, 2)]
    path = write(tmp_path / "ties.parquet", rides(*rows))
    view = batch_view(path, mode="pandas", udf=same, udf_string="same")
    repo = Repo(tmp_path, redis_server, view)
    repo.materialize()
    assert repo.read("computed") == [29, 29]


def test_views_of_views_are_joined_and_computed(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    source = trips_view(path, "source_view")
    sink = FileSource(path=str(write(tmp_path / "sink.parquet", rides())), timestamp_field="event_timestamp")

    def more(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(trips=frame["trips"] + 1)

    view = batch_view(None, source=[source], sink_source=sink, mode="pandas", udf=more, udf_string="more")
    repo = Repo(tmp_path, redis_server, source, view)
    repo.materialize(views=["computed"])
    assert repo.read("computed") == [13, 21]


def test_a_stream_view_is_filled_from_its_batch_source(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    from datetime import timedelta

    from feast import KafkaSource
    from feast.data_format import JsonFormat

    stream = KafkaSource(
        name="stream",
        kafka_bootstrap_servers="nowhere:9092",
        topic="rides",
        timestamp_field="event_timestamp",
        message_format=JsonFormat("driver_id long, event_timestamp timestamp, trips long"),
        batch_source=FileSource(path=str(path), timestamp_field="event_timestamp", name="batch"),
        watermark_delay_threshold=timedelta(minutes=5),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = StreamFeatureView(name="streamed", entities=[DRIVER], schema=[DRIVER_ID, TRIPS], source=stream)
        repo = Repo(tmp_path, redis_server, view)
    repo.materialize()
    assert repo.read("streamed") == [12, 20]


def test_types_that_feasts_engine_cannot_read_are_written(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    berlin = pa.array([at(0), None], pa.timestamp("us", "Europe/Berlin"))
    columns: dict[str, tuple[Any, pa.Array]] = {
        "fares": (feast_types.Map, pa.array([[("a", 1.5)], None], pa.map_(pa.string(), pa.float64()))),
        "counts": (feast_types.ScalarMap, pa.array([[(7, 1)], None], pa.map_(pa.int64(), pa.int64()))),
        "stops": (feast_types.Array(feast_types.Map), pa.array([[{"x": 1}, {"x": 2}], None])),
        "local": (feast_types.ZonedTimestamp, berlin),
    }
    table = rides((1, 0, 1), (2, 0, 2))
    views = []
    for name, (dtype, values) in columns.items():
        file = write(tmp_path / f"{name}.parquet", table.append_column(name, values))
        views.append(trips_view(file, f"{name}_of", schema=[DRIVER_ID, Field(name=name, dtype=dtype)]))
    repo = Repo(tmp_path, redis_server, *views)
    repo.materialize()
    assert repo.read("fares_of", "fares") == [{"a": 1.5}, None]
    assert repo.read("counts_of", "counts") == [{7: 1}, None]
    assert repo.read("stops_of", "stops") == [[{"x": 1}, {"x": 2}], None]
    first, second = repo.read("local_of", "local")
    assert (first, str(first.tzinfo), second) == (at(0), "Europe/Berlin", None)


def test_validation_ends_a_view_whose_json_is_none(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    note = Field(name="note", dtype=feast_types.Json)
    write(path, rides((1, 0, 1), (2, 0, 2)).append_column("note", pa.array(['{"a": 1}', "{a"])))
    view = trips_view(path, schema=[DRIVER_ID, TRIPS, note], enable_validation=True)
    repo = Repo(tmp_path, redis_server, view)
    assert "1 invalid JSON value" in str(repo.run("trips_of").error())
    assert hashes(redis_server) == {}


def test_integers_that_pandas_stored_as_floats_are_integers(
    tmp_path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"driver_id": [1, 2, None], "trips": [None, 7, 8], "event_timestamp": [at(0)] * 3})
    frame.to_parquet(path := tmp_path / "frame.parquet")
    repo = Repo(tmp_path, redis_server, trips_view(path))
    with monkeypatch.context() as straight:
        straight.setattr(writing, "feast_messages", None)
        repo.materialize()
    assert repo.read("trips_of") == [None, 7]
    assert len(hashes(redis_server)) == 2
    frame.assign(trips=[1e30, 1.0, 2.0]).to_parquet(path)
    assert "column 'trips' holds double and cannot be written as INT64" in str(repo.run("trips_of").error())


def test_vectors_of_another_length_than_declared_end_the_view(tmp_path: Path, redis_server: RedisAddress) -> None:
    vector = Field(
        name="vector",
        dtype=feast_types.Array(feast_types.Float32),
        vector_index=True,
        vector_length=2,
        vector_search_metric="L2",
    )
    values = pa.array([[1.0, 2.0], [1.0]], pa.list_(pa.float32()))
    path = write(tmp_path / "vectors.parquet", rides((1, 0, 1), (2, 0, 2)).append_column("vector", values))
    repo = Repo(tmp_path, redis_server, trips_view(path, schema=[DRIVER_ID, vector]))
    assert "vector" in str(repo.run("trips_of").error())
    assert hashes(redis_server) == {}


# What goes wrong


def test_a_view_that_fails_says_what_to_do_and_keeps_no_other_from_being_done(
    tmp_path: Path, path: Path, redis_server: RedisAddress, caplog: pytest.LogCaptureFixture
) -> None:
    away = write(tmp_path / "away.parquet", rides((1, 0, 1)))
    views = [trips_view(away, "away"), trips_view(path), trips_view(away, "gone")]
    repo = Repo(tmp_path, redis_server, *views)
    away.unlink()
    with (
        caplog.at_level(logging.ERROR, "headrace.materialize.feast"),
        pytest.raises(
            MaterializeError, match=r"Feature view 'away' is not materialized from .* no Parquet file.*feast apply"
        ),
    ):
        repo.materialize()
    assert "Feature view 'gone' is not materialized" in caplog.text
    assert repo.read("trips_of") == [12, 20]
    intervals = [repo.store.get_feature_view(name).materialization_intervals for name in ("away", "trips_of")]
    assert [len(each) for each in intervals] == [0, 1]


def test_an_error_is_the_jobs(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    repo = Repo(tmp_path, redis_server, trips_view(path))
    done = repo.run("trips_of")
    assert (done.status(), done.error(), done.url()) == (MaterializationJobStatus.SUCCEEDED, None, None)
    path.write_bytes(b"not Parquet")
    failed = repo.run("trips_of")
    assert failed.status() == MaterializationJobStatus.ERROR
    assert not failed.should_be_retried()
    assert "cannot be read as Parquet" in str(failed.error())
    assert failed.job_id().startswith("trips_of-")


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("trips", None, "has no column 'trips'; did you mean 'trip'?"),
        ("trips", pa.array(["a", "b"]), "column 'trips' holds string and cannot be written as INT64"),
        ("driver_id", None, "has no column 'driver_id'"),
        ("driver_id", pa.array(["x", "y"]), "column 'driver_id' holds string and cannot be written as INT64"),
        ("event_timestamp", pa.array([1.5, 2.5]), "column 'event_timestamp' holds double"),
    ],
)
def test_a_column_that_is_missing_or_of_another_type_is_named(
    tmp_path: Path, path: Path, redis_server: RedisAddress, column: str, values: pa.Array | None, said: str
) -> None:
    repo = Repo(tmp_path, redis_server, trips_view(path))
    table = rides((1, 0, 1), (2, 0, 2))
    at_column = table.column_names.index(column)
    if values is None:
        table = table.rename_columns(
            [name.removesuffix("s") if name == column else name for name in table.column_names]
        )
        table = table.drop_columns(column) if column in table.column_names else table
    else:
        table = table.set_column(at_column, column, values)
    write(path, table)
    error = str(repo.run("trips_of").error())
    assert "Feature view 'trips_of' is not materialized" in error
    assert said in error
    assert hashes(redis_server) == {}


def test_a_redis_that_does_not_answer_is_worth_another_try(tmp_path: Path, path: Path) -> None:
    from tests.servers.process import free_port

    nowhere = RedisAddress(url="redis://127.0.0.1:1/0", port=free_port())
    job = Repo(tmp_path, nowhere, trips_view(path)).run("trips_of")
    assert "does not answer" in str(job.error())
    assert job.should_be_retried()
