"""The compute engine through Feast's own calls: which rows it takes, and what becomes of them in the online store."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, Field, FileSource, PushSource
from feast.value_type import ValueType
from tests.materialize.feast.engine_repo import (
    DRIVER,
    DRIVER_ID,
    OURS,
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

from headrace.materialize.feast import HeadraceEngine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rides.parquet"


@pytest.fixture
def made(tmp_path: Path, path: Path, redis_server: RedisAddress) -> Repo:
    """A repository of one view of the file at `path`, which a test writes."""
    return Repo(tmp_path, redis_server, trips_view(path))


# Which rows


def test_the_newest_row_of_each_entity_is_written(made: Repo, path: Path) -> None:
    write(path, rides((1, 0, 10), (1, 20, 12), (2, 5, 20), (1, 10, 11)))
    made.materialize()
    assert made.read("trips_of") == [12, 20]


def test_both_ends_of_the_range_count(made: Repo, path: Path) -> None:
    write(path, rides((1, -10, 1), (1, -10.000001, 0), (2, 10, 2), (2, 10.000001, 3)))
    made.materialize(start=-10, end=10)
    assert made.read("trips_of") == [1, 2]
    made.run("trips_of", start=-20, end=-10.000001)
    assert made.read("trips_of") == [1, 2]  # the row before the range is there now, and is older
    made.materialize(start=10.000001, end=11)
    assert made.read("trips_of") == [1, 3]


def test_rows_at_one_instant_are_told_apart_by_their_created_timestamp_and_then_by_place(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    table = rides((1, 0, 1), (1, 0, 2), (1, 0, 3), (2, 0, 4), (2, 0, 5), (3, 0, 6), (3, 0, 7))
    created = pa.array([at(5), at(9), at(7), at(5), at(5), at(-5), None], pa.timestamp("us", "UTC"))
    write(path, table.append_column("created", created))
    source = FileSource(path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created")
    repo = Repo(tmp_path, redis_server, trips_view(path, "by_created", source=source), trips_view(path, "by_place"))
    repo.materialize()
    assert repo.read("by_created", values=[1, 2, 3]) == [2, 5, 6]
    assert repo.read("by_place", values=[1, 2, 3]) == [3, 5, 7]


@pytest.mark.parametrize("kind", ["ns", "us", "ms", "s"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_instants_of_every_unit_and_zone_are_the_same_instants(
    made: Repo, path: Path, kind: str, zone: str | None, redis_server: RedisAddress
) -> None:
    table = rides((1, 0, 1), (1, 60, 2), (2, 0, 3))
    stamps = table["event_timestamp"].cast(pa.timestamp("us", "UTC")).cast(pa.timestamp(kind, "UTC"))
    stamps = stamps.cast(pa.timestamp(kind, zone)) if zone else stamps.cast(pa.timestamp(kind))
    write(path, table.set_column(1, "event_timestamp", stamps))
    made.materialize(start=0, end=60)
    assert made.read("trips_of") == [2, 3]
    written = {row[b"_ts:trips_of"] for row in hashes(redis_server).values()}
    assert written == {b"\x08" + varint(int(at(seconds).timestamp())) for seconds in (60, 0)}


def test_days_and_sparks_old_timestamps_are_instants(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    table = rides((1, 0, 1), (1, 86400, 2), (2, 0, 3))
    days = table.set_column(1, "event_timestamp", table["event_timestamp"].cast(pa.timestamp("us")).cast(pa.date32()))
    write(tmp_path / "days.parquet", days)
    pq.write_table(table, tmp_path / "spark.parquet", use_deprecated_int96_timestamps=True)
    views = [trips_view(tmp_path / f"{name}.parquet", name) for name in ("days", "spark")]
    repo = Repo(tmp_path, redis_server, *views)
    repo.materialize(start=-86400, end=2 * 86400)
    assert [repo.read(name) for name in ("days", "spark")] == [[2, 3], [2, 3]]
    midnight = int(at(-12 * 3600).timestamp())
    row = hashes(redis_server)
    assert {each[b"_ts:days"] for each in row.values()} == {b"\x08" + varint(midnight + day * 86400) for day in (0, 1)}
    assert {each[b"_ts:spark"] for each in row.values()} == {
        b"\x08" + varint(int(at(day * 86400).timestamp())) for day in (0, 1)
    }


def varint(value: int) -> bytes:
    from headrace.stores.feast_values import varint as encoded

    return encoded(value)


def test_nanoseconds_decide_what_is_newest(made: Repo, path: Path) -> None:
    base = int(at(0).timestamp()) * 10**9
    table = rides((1, 0, 1), (1, 0, 2), (2, 0, 3))
    stamps = pa.array([base + 900, base + 100, base - 1], pa.timestamp("ns"))
    write(path, table.set_column(1, "event_timestamp", stamps))
    made.materialize(start=0, end=1)
    assert made.read("trips_of") == [1, None]


def test_an_empty_range_writes_nothing(made: Repo, path: Path, redis_server: RedisAddress) -> None:
    write(path, rides((1, 0, 1)))
    made.materialize(start=100, end=200)
    assert hashes(redis_server) == {}
    write(path, rides())
    made.materialize()
    assert hashes(redis_server) == {}


def test_columns_are_called_by_the_field_mapping(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    stored = {"driver_id": "did", "event_timestamp": "ts", "trips": "n", "made": "c"}
    table = rides((1, 0, 1), (1, 0, 2), (2, 0, 3))
    table = table.append_column("made", pa.array([at(9), at(1), None], pa.timestamp("us", "UTC")))
    write(path, table.rename_columns([stored[column] for column in table.column_names]))
    source = FileSource(
        path=str(path),
        timestamp_field="event_timestamp",
        created_timestamp_column="made",
        field_mapping={column: given for given, column in stored.items()},
    )
    repo = Repo(tmp_path, redis_server, trips_view(path, source=source))
    repo.materialize()
    assert repo.read("trips_of") == [1, 3]


def test_columns_may_be_called_as_our_own_query_calls_its(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    stored = {"driver_id": "time", "event_timestamp": "row", "trips": "key0", "made": "newest"}
    table = rides((1, 0, 1), (1, 0, 2), (1, -5, 9), (2, 0, 3))
    table = table.append_column("made", pa.array([at(9), at(1), at(10), None], pa.timestamp("us", "UTC")))
    write(path, table.rename_columns([stored[column] for column in table.column_names]))
    repo = Repo(
        tmp_path,
        redis_server,
        trips_view(
            path,
            source=FileSource(
                path=str(path),
                timestamp_field="event_timestamp",
                created_timestamp_column="created",
                field_mapping={"time": "driver_id", "row": "event_timestamp", "key0": "trips", "newest": "created"},
            ),
        ),
    )
    repo.materialize()
    assert repo.read("trips_of") == [1, 3]


def test_upper_and_lower_case_are_two_columns(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    table = rides((1, 0, 1), (2, 0, 2))
    write(path, table.add_column(0, "Trips", pa.array([70, 80])).append_column("TRIPS", pa.array([7, 8])))
    names = ["trips", "Trips", "TRIPS"]
    view = trips_view(path, schema=[DRIVER_ID, *(Field(name=name, dtype=feast_types.Int64) for name in names)])
    repo = Repo(tmp_path, redis_server, view)
    repo.materialize()
    assert [repo.read("trips_of", name) for name in names] == [[1, 2], [70, 80], [7, 8]]


def test_several_join_keys_and_another_name_of_the_entity(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    shop = Entity(name="shop", join_keys=["shop_name"], value_type=ValueType.STRING)
    table = rides((1, 0, 1), (1, 5, 2), (1, 3, 3)).append_column("shop_name", pa.array(["b", "a", "b"]))
    write(path, table)
    schema = [DRIVER_ID, Field(name="shop_name", dtype=feast_types.String), TRIPS]
    view = trips_view(path, entities=[shop, DRIVER], schema=schema)
    repo = Repo(tmp_path, redis_server, shop, view)
    repo.materialize()
    rows = [{"driver_id": 1, "shop_name": name} for name in ("a", "b", "c")]
    found = repo.store.get_online_features(features=["trips_of:trips"], entity_rows=rows).to_dict()
    assert found["trips"] == [2, 3, None]


@pytest.mark.parametrize("unit", ["ns", "us"])
def test_entities_that_are_instants_are_told_apart_by_their_seconds(
    tmp_path: Path, path: Path, redis_server: RedisAddress, unit: str
) -> None:
    hour = Entity(name="hour", join_keys=["hour_at"], value_type=ValueType.UNIX_TIMESTAMP)
    asked = pa.array([at(1.2), at(1.7), at(2.1)], pa.timestamp("us")).cast(pa.timestamp(unit))
    write(path, rides((1, 5, 1), (1, 3, 2), (1, 4, 3)).append_column("hour_at", asked))
    view = trips_view(path, entities=[hour], schema=[Field(name="hour_at", dtype=feast_types.UnixTimestamp), TRIPS])
    repo = Repo(tmp_path, redis_server, hour, view)
    bars: list[Bar] = []
    assert repo.run("trips_of", tqdm_builder=lambda total: bars.append(Bar(total)) or bars[-1]).error() is None
    assert bars[0].total == len(hashes(redis_server)) == 2
    assert repo.read("trips_of", key="hour_at", values=[at(1), at(2)]) == [1, 3]


def test_a_view_without_entities_has_one_row(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    write(path, rides((1, 0, 1), (2, 9, 2), (3, 5, 3)))
    repo = Repo(tmp_path, redis_server, trips_view(path, entities=None, schema=[TRIPS]))
    repo.materialize()
    assert len(hashes(redis_server)) == 1
    assert repo.read("trips_of", key="driver_id", values=[77]) == [2]


def test_files_of_a_folder_are_read_together(tmp_path: Path, redis_server: RedisAddress) -> None:
    folder = tmp_path / "rides"
    write(folder / "day=1" / "a.parquet", rides((1, 0, 1), (2, 9, 2)))
    write(folder / "day=2" / "b.parquet", rides((1, 5, 3), (2, 8, 4)).append_column("extra", pa.array([1, 2])))
    (folder / "_SUCCESS").write_text("")
    repo = Repo(tmp_path, redis_server, trips_view(folder))
    repo.materialize()
    assert repo.read("trips_of") == [3, 2]


def test_files_whose_rows_are_all_outside_the_range_shift_no_others(tmp_path: Path, redis_server: RedisAddress) -> None:
    folder = tmp_path / "rides"
    for day in range(5):
        rows = [(driver, day * 100 + driver, day * 10 + driver) for driver in range(1, 4)]
        write(folder / f"{day}.parquet", rides(*rows))
    repo = Repo(tmp_path, redis_server, trips_view(folder))
    repo.materialize(start=300, end=350)
    assert repo.read("trips_of", values=[1, 2, 3]) == [31, 32, 33]


def test_rows_without_a_key_are_left_out_and_told(
    made: Repo, path: Path, caplog: pytest.LogCaptureFixture, redis_server: RedisAddress
) -> None:
    write(path, rides((1, 0, 1), (None, 3, 2)))
    with caplog.at_level(logging.WARNING, "headrace.materialize.feast"):
        made.materialize()
    assert len(hashes(redis_server)) == 1
    assert "Feature view 'trips_of': 1 rows are left out, since a join key (driver_id) is null" in caplog.text


def test_all_rows_in_order_end_at_the_newest(made: Repo, path: Path) -> None:
    write(path, rides((1, 9, 1), (1, 5, 2), (1, 7, 3), (2, 1, 4)))
    bars: list[Bar] = []
    job = made.run("trips_of", only_latest=False, tqdm_builder=lambda total: bars.append(Bar(total)) or bars[-1])
    assert job.error() is None
    assert made.read("trips_of") == [1, 4]
    assert (bars[0].total, bars[0].done, bars[0].closed) == (4, 4, True)


class Bar:
    """Stands for tqdm."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.closed, self.name = total, 0, False, ""

    def update(self, rows: int) -> None:
        self.done += rows

    def set_description(self, name: str) -> None:
        self.name = name

    def close(self) -> None:
        self.closed = True


def test_the_progress_bar_has_the_true_total(made: Repo, path: Path) -> None:
    write(path, rides((1, 0, 1), (1, 1, 2), (2, 0, 3), (3, 9000, 4)))
    bars: list[Bar] = []
    made.run("trips_of", tqdm_builder=lambda total: bars.append(Bar(total)) or bars[-1])
    assert [(bar.total, bar.done, bar.closed, bar.name) for bar in bars] == [(2, 2, True, "trips_of")]


# What is there already


def test_an_older_row_never_covers_a_newer_one_and_an_equal_one_corrects_it(made: Repo, path: Path) -> None:
    write(path, rides((1, 60, 7), (2, 60, 8)))
    made.materialize()
    write(path, rides((1, 59, 1), (2, 60, 2)))
    made.materialize()
    assert made.read("trips_of") == [7, 2]


def test_incremental_runs_go_on_where_the_last_one_ended(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    from datetime import timedelta

    repo = Repo(tmp_path, redis_server, trips_view(path, ttl=timedelta(days=36500)))
    write(path, rides((1, 0, 1), (2, 50, 2)))
    repo.store.materialize_incremental(at(10))
    assert repo.read("trips_of") == [1, None]
    repo.store.materialize_incremental(at(60))
    assert repo.read("trips_of") == [1, 2]
    intervals = repo.store.get_feature_view("trips_of").materialization_intervals
    assert [end for _, end in intervals] == [at(10), at(60)]
    assert intervals[1][0] == at(10)


def test_two_views_of_one_entity_share_its_hash(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    other = write(tmp_path / "other.parquet", rides((1, -5, 70)))
    write(path, rides((1, 0, 7)))
    repo = Repo(tmp_path, redis_server, trips_view(path, "one"), trips_view(other, "two"))
    repo.materialize()
    ((_, row),) = hashes(redis_server).items()
    assert {b"_ts:one", b"_ts:two"} < set(row)
    assert len(row) == 4
    assert repo.read("one", values=[1]) + repo.read("two", values=[1]) == [7, 70]


def test_the_version_of_a_view_is_in_its_name_when_feast_keeps_versions_apart(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    write(path, rides((1, 0, 7)))
    versions: dict[str, Any] = {"enable_online_feature_view_versioning": True}
    repo = Repo(tmp_path, redis_server, trips_view(path), registry=versions)
    fares = Field(name="fares", dtype=feast_types.Int64)
    repo.store.apply([trips_view(path, schema=[DRIVER_ID, TRIPS, fares])])
    repo.store.apply([trips_view(path, schema=[DRIVER_ID, TRIPS])])
    repo.materialize()
    ((_, row),) = hashes(redis_server).items()
    (name,) = [field for field in row if field.startswith(b"_ts:")]
    assert name.startswith(b"_ts:trips_of_v")
    assert repo.read("trips_of", values=[1]) == [7]


def test_a_view_that_is_pushed_to_is_filled_from_its_batch_source(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    write(path, rides((1, 0, 7)))
    batch = FileSource(path=str(path), timestamp_field="event_timestamp", name="batch")
    repo = Repo(tmp_path, redis_server, trips_view(path, source=PushSource(name="push", batch_source=batch)))
    repo.materialize()
    assert repo.read("trips_of") == [7, None]


# Options


def test_the_engine_is_found_by_its_path_and_knows_its_options(
    tmp_path: Path, path: Path, redis_server: RedisAddress
) -> None:
    options = {"type": OURS, "write_batch": 2, "memory_limit": "100MB", "threads": 1}
    repo = Repo(tmp_path, redis_server, trips_view(path), engine=options)
    engine = repo.store._get_provider().batch_engine
    assert isinstance(engine, HeadraceEngine)
    assert repo.store.config.batch_engine == engine.options
    write(path, rides(*((driver, 0, driver) for driver in range(5))))
    repo.materialize()
    assert repo.read("trips_of", values=range(5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("option", "value"), [("write_bach", 5), ("write_batch", 0), ("threads", "many")])
def test_a_wrong_option_is_named(
    tmp_path: Path, path: Path, redis_server: RedisAddress, option: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=option):
        Repo(tmp_path, redis_server, trips_view(path), engine={"type": OURS, option: value})
