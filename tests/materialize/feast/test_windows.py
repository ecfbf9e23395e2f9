"""Feast views with aggregations, materialized by the engine: the contract's windows at the end of the range."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.materialize.feast.engine_repo import DRIVER, DRIVER_ID, T0, Repo, at, hashes, write
from tests.oracle.closeness import agrees
from tests.oracle.described import Feature, Sent, View, Window
from tests.oracle.naive import Oracle
from tests.servers.fixtures import RedisAddress

from headrace.features.errors import DefinitionError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from feast import BatchFeatureView, Entity, FeatureView, Field, FileSource, PushSource, StreamFeatureView
    from feast.aggregation import Aggregation
    from feast.types import Float32, Float64, Int32, Int64, String, UnixTimestamp
    from feast.value_type import ValueType

    from headrace.materialize.feast import aggregations_tag
    from headrace.materialize.feast.windows import aggregations_of, translated

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
FUNCTIONS = ("sum", "count", "mean", "max", "min", "std")
SIX = [Aggregation(column="amount", function=each, time_window=HOUR, slide_interval=MINUTE) for each in FUNCTIONS]
FIELDS = [Field(name=f"{each}_amount_3600s", dtype=Int64 if each == "count" else Float64) for each in FUNCTIONS]


def payments(*rows: tuple[int | None, float, float | None]) -> pa.Table:
    """Rows (driver, minutes after T0, amount)."""
    return pa.table(
        {
            "driver_id": pa.array([driver for driver, _, _ in rows], pa.int64()),
            "event_timestamp": pa.array([at(60 * minutes) for _, minutes, _ in rows], pa.timestamp("us", "UTC")),
            "amount": pa.array([amount for _, _, amount in rows], pa.float64()),
        }
    )


def source(path: Path, **options: Any) -> FileSource:
    return FileSource(name=f"of_{path.stem}", path=str(path), timestamp_field="event_timestamp", **options)


def stream_view(path: Path, name: str = "spend", **options: Any) -> StreamFeatureView:
    chosen = {"aggregations": SIX, "schema": [DRIVER_ID, *FIELDS], "entities": [DRIVER], **options}
    return made(
        StreamFeatureView,
        name=name,
        source=PushSource(name=f"pushed_{name}", batch_source=options.pop("batch_source", None) or source(path)),
        timestamp_field="event_timestamp",
        **{key: value for key, value in chosen.items() if key != "batch_source"},
    )


def made(kind: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**options)


def read(repo: Repo, view: str, features: Sequence[str], driver: Any = 1) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = [f"{view}:{feature}" for feature in features]
        found = repo.store.get_online_features(features=asked, entity_rows=[{"driver_id": driver}]).to_dict()
    return {feature: found[feature][0] for feature in features}


def six(repo: Repo, view: str = "spend", driver: int = 1) -> dict[str, Any]:
    found = read(repo, view, [f"{each}_amount_3600s" for each in FUNCTIONS], driver)
    return {name.removesuffix("_amount_3600s"): value for name, value in found.items()}


@pytest.mark.parametrize("offline", ["file", "duckdb"])
def test_a_stream_view_has_its_windows_at_the_end_of_the_range(
    tmp_path: Path, redis_server: RedisAddress, offline: str
) -> None:
    """
    minute  1                                          181 182 183   185                242 243
            100                                          1   2   3     ?                   ?   ?
                                 last hour: (125 .................., 185]   nothing is left
    """
    events = payments((1, 1, 100.0), (1, 181, 1.0), (1, 182, 2.0), (1, 183, 3.0), (2, 184, None), (None, 184, 9.0))
    path = write(tmp_path / "payments.parquet", events)
    repo = Repo(tmp_path, redis_server, stream_view(path), offline=offline)
    repo.materialize(0, 185 * 60)
    assert six(repo) == {"sum": 6.0, "count": 3, "mean": 2.0, "max": 3.0, "min": 1.0, "std": 1.0}
    empty = {"sum": 0.0, "count": 0, "mean": None, "max": None, "min": None, "std": None}
    assert six(repo, driver=2) == empty  # an event without amount
    assert len(hashes(redis_server)) == 2
    repo.materialize(185 * 60, 242 * 60)
    assert six(repo) == {"sum": 3.0, "count": 1, "mean": 3.0, "max": 3.0, "min": 3.0, "std": None}
    repo.materialize(242 * 60, 243 * 60)
    assert six(repo) == empty
    repo.materialize(0, 185 * 60)
    assert six(repo) == empty, "an older row covers no newer one"


def test_views_that_feasts_registry_loses_aggregations_of_carry_them_in_a_tag(
    tmp_path: Path, redis_server: RedisAddress
) -> None:
    path = write(tmp_path / "payments.parquet", payments((1, 1, 4.0), (1, 30, 5.0)))
    options: dict[str, Any] = {"entities": [DRIVER], "schema": [DRIVER_ID, *FIELDS], "tags": aggregations_tag(SIX)}
    views = [
        made(BatchFeatureView, name="batch", source=source(path), online=True, aggregations=SIX, **options),
        made(FeatureView, name="plain", source=source(path), **options),
    ]
    repo = Repo(tmp_path, redis_server, *views)
    assert aggregations_of(repo.store.get_feature_view("batch")) == SIX
    repo.materialize(0, 40 * 60)
    for view in ("batch", "plain"):
        assert six(repo, view)["sum"] == 9.0
        assert six(repo, view)["count"] == 2


def test_without_a_window_the_range_counts(tmp_path: Path, redis_server: RedisAddress) -> None:
    path = write(tmp_path / "payments.parquet", payments((1, 0, 9.0), (1, 1, 4.0), (1, 2, 5.0), (1, 3, 8.0)))
    total = [Aggregation(column="amount", function="sum"), Aggregation(function="count", name="n")]
    schema = [DRIVER_ID, Field(name="sum_amount", dtype=Float64), Field(name="n", dtype=Int64)]
    repo = Repo(tmp_path, redis_server, stream_view(path, aggregations=total, schema=schema))
    repo.materialize(0, 120)
    assert read(repo, "spend", ["sum_amount", "n"]) == {"sum_amount": 9.0, "n": 2}


def test_fields_have_the_types_of_the_schema_and_names_of_columns_are_mapped(
    tmp_path: Path, redis_server: RedisAddress
) -> None:
    """The source calls them `drv`, `amt`, `when`; created breaks the tie of the last."""
    events = pa.table(
        {
            "drv": pa.array([1, 1, 1], pa.int64()),
            "when": pa.array([at(0), at(60), at(60)], pa.timestamp("ns")),
            "written": pa.array([at(1), at(63), at(62)], pa.timestamp("us")),
            "amt": pa.array([2, 3, 4], pa.int16()),
            "shop": ["a", "b", "c"],
        }
    )
    path = write(tmp_path / "mapped.parquet", events)
    mapping = {"drv": "driver_id", "amt": "amount", "when": "event_timestamp", "written": "created"}
    batch = source(path, field_mapping=mapping, created_timestamp_column="created")
    asked = {
        "last_shop": (String, "last", "shop"),
        "total": (Int32, "sum", "amount"),
        "mean": (Float32, "avg", "amount"),
        "shops": (Float64, "nunique", "shop"),
        "newest": (UnixTimestamp, "max", "event_timestamp"),
    }
    aggregations = [
        Aggregation(column=column, function=function, time_window=HOUR, name=name)
        for name, (_, function, column) in asked.items()
    ]
    schema = [DRIVER_ID, *(Field(name=name, dtype=dtype) for name, (dtype, _, _) in asked.items())]
    view = stream_view(path, batch_source=batch, aggregations=aggregations, schema=schema)
    repo = Repo(tmp_path, redis_server, view)
    repo.materialize(0, 120)
    found = read(repo, "spend", list(asked))
    assert found == {"last_shop": "b", "total": 9, "mean": 3.0, "shops": 3.0, "newest": at(60)}


def test_a_transformation_comes_before_the_windows(tmp_path: Path, redis_server: RedisAddress) -> None:
    """The events of the window before the range are transformed, too."""

    def doubled(df: pd.DataFrame) -> pd.DataFrame:
        df["amount"] = df["price"] * 2
        return df

    doubled.__annotations__ = {"df": pd.DataFrame, "return": pd.DataFrame}  # Feast reads them
    events = payments((1, 1, 4.0), (1, 50, 5.0), (2, 50, 1.0)).rename_columns(["driver_id", "event_timestamp", "price"])
    path = write(tmp_path / "prices.parquet", events)
    view = stream_view(path, udf=doubled, udf_string="doubled", mode="pandas")
    repo = Repo(tmp_path, redis_server, view)
    repo.materialize(40 * 60, 60 * 60)
    assert six(repo)["sum"] == 18.0
    assert six(repo, driver=2)["sum"] == 2.0


def test_windows_over_another_views_rows_see_all_of_them(tmp_path: Path, redis_server: RedisAddress) -> None:
    """Not only the newest row of each entity, which is what Feast's nodes give of a source view."""
    path = write(tmp_path / "payments.parquet", payments((1, 1, 4.0), (1, 2, 5.0), (1, 80, 1.0)))
    amount = Field(name="amount", dtype=Float64)
    base = made(FeatureView, name="base", entities=[DRIVER], schema=[DRIVER_ID, amount], source=source(path))
    sink = source(write(tmp_path / "sink.parquet", payments()))
    options: dict[str, Any] = {"entities": [DRIVER], "schema": [DRIVER_ID, *FIELDS], "tags": aggregations_tag(SIX)}
    view = made(FeatureView, name="v", source=[base], sink_source=sink, **options)
    repo = Repo(tmp_path, redis_server, base, view)
    repo.materialize(0, 60 * 60, views=["v"])
    assert six(repo, "v")["count"] == 2
    other = made(FeatureView, name="base2", entities=[DRIVER], schema=[DRIVER_ID, amount], source=source(path))
    joined = made(FeatureView, name="j", source=[base, other], sink_source=sink, **options)
    repo = Repo(tmp_path, redis_server, base, other, joined)
    assert "rows of view 'j', which joins 2 views" in str(repo.run("j").error())


def test_incremental_runs_follow_the_windows_as_they_empty(tmp_path: Path, redis_server: RedisAddress) -> None:
    """A run begins where the last one ended, and tells of the events that have left since; the last tells nothing."""
    path = write(tmp_path / "payments.parquet", payments((1, 1, 4.0), (1, 30, 5.0)))
    repo = Repo(tmp_path, redis_server, stream_view(path))
    for minutes, expected in ((40, (9.0, 2)), (61, (5.0, 1)), (90, (0.0, 0)), (300, (0.0, 0))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            repo.store.materialize_incremental(at(60 * minutes))
        assert (six(repo)["sum"], six(repo)["count"]) == expected
    (row,) = hashes(redis_server).values()
    assert Timestamp.FromString(row[b"_ts:spend"]).ToDatetime(tzinfo=UTC) == at(60 * 90), "written once when it emptied"


def test_a_view_without_entities_and_another_online_store(tmp_path: Path) -> None:
    path = write(tmp_path / "payments.parquet", payments((1, 1, 4.0), (2, 30, 5.0), (None, 30, 1.0)))
    online = {"type": "sqlite", "path": str(tmp_path / "online.db")}
    options: dict[str, Any] = {"schema": FIELDS, "tags": aggregations_tag(SIX)}
    all_of_them = made(FeatureView, name="everybody", entities=[], source=source(path), **options)
    repo = Repo(tmp_path, online, all_of_them, stream_view(path))
    repo.materialize(0, 2400)
    assert six(repo, "everybody")["sum"] == 10.0
    assert [six(repo, driver=driver)["sum"] for driver in (1, 2)] == [4.0, 5.0]


def test_keys_that_are_instants_are_told_apart_by_their_seconds(tmp_path: Path, redis_server: RedisAddress) -> None:
    """As in Feast's keys, which hold no fractions: 1.2 s and 1.9 s are one entity, 2.0 s another."""
    day = Entity(name="opened", join_keys=["opened"], value_type=ValueType.UNIX_TIMESTAMP)
    events = payments((1, 1, 4.0), (1, 2, 5.0), (1, 3, 7.0))
    opened = pa.array([at(1.2), at(1.9), at(2)], pa.timestamp("us", "UTC"))
    path = write(tmp_path / "payments.parquet", events.append_column("opened", opened))
    schema = [Field(name="opened", dtype=UnixTimestamp), *FIELDS]
    repo = Repo(tmp_path, redis_server, day, stream_view(path, entities=[day], schema=schema))
    repo.materialize(0, 600)
    assert repo.read("spend", "sum_amount_3600s", "opened", [at(1), at(2)]) == [9.0, 7.0]


def test_newest_rows_alone_make_no_windows(tmp_path: Path, redis_server: RedisAddress) -> None:
    def same(df: Any) -> Any:
        return df

    same.__annotations__ = {"df": pd.DataFrame, "return": pd.DataFrame}  # Feast reads them
    path = write(tmp_path / "payments.parquet", payments((1, 1, 4.0)))
    view = stream_view(path, udf=same, udf_string="same", mode="pandas")
    repo = Repo(tmp_path, redis_server, view, materialization_config={"pull_latest_features": True})
    assert "{pull_latest_features: true}` leaves the newest of each entity only" in str(repo.run("spend").error())


def test_events_of_any_offline_store_are_asked_for_by_its_own_columns(
    tmp_path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a window can cover that is asked at the start of the range or later."""
    path = write(tmp_path / "mapped.parquet", payments())
    mapping = {"drv": "driver_id", "amt": "amount", "when": "event_timestamp"}
    batch = FileSource(name="b", path=str(path), timestamp_field="event_timestamp", field_mapping=mapping)
    repo = Repo(tmp_path, redis_server, stream_view(path, batch_source=batch))
    engine = repo.store._get_provider().batch_engine
    asked: list[dict[str, Any]] = []
    events = payments((1, 1, 4.0), (1, 30, 5.0)).rename_columns(["drv", "when", "amt"])

    class Warehouse(type(engine.offline_store)):  # type: ignore[misc]
        @staticmethod
        def pull_all_from_table_or_query(**given: Any) -> Any:
            asked.append(given)
            return SimpleNamespace(to_arrow=lambda: events)

    monkeypatch.setattr(engine, "offline_store", Warehouse())
    assert repo.run("spend", 60, 2400).error() is None
    assert six(repo)["sum"] == 9.0
    (given_,) = asked
    assert given_["join_key_columns"] == ["drv"]
    assert given_["feature_name_columns"] == ["amt"]
    assert given_["timestamp_field"] == "when"
    assert (given_["start_date"], given_["end_date"]) == (at(-3540), at(2400))
    events = pa.table({name: pa.nulls(0) for name in ("drv", "when", "amt")})
    assert repo.run("spend", 60, 2460).error() is None
    events = pa.table({"drv": [1], "when": pa.array([at(0)], pa.timestamp("us", "UTC")), "amt": pa.nulls(1)})
    assert repo.run("spend", 60, 2520).error() is None
    assert (six(repo)["sum"], six(repo)["max"]) == (0.0, None)


def test_windows_end_now_and_not_in_the_time_to_come(tmp_path: Path, redis_server: RedisAddress) -> None:
    path = write(tmp_path / "payments.parquet", payments((1, 0, 9.0)))
    repo = Repo(tmp_path, redis_server, stream_view(path))
    begun = datetime.now(UTC)
    repo.materialize(0, (begun - T0).total_seconds() + 86400)
    (row,) = hashes(redis_server).values()
    stamp = Timestamp.FromString(row[b"_ts:spend"]).ToDatetime(tzinfo=UTC)
    assert begun - timedelta(seconds=1) <= stamp <= datetime.now(UTC)


def test_a_view_of_no_events_is_done_and_writes_nothing(tmp_path: Path, redis_server: RedisAddress) -> None:
    path = write(tmp_path / "payments.parquet", payments((1, 0, 9.0)))
    repo = Repo(tmp_path, redis_server, stream_view(path))
    assert repo.run("spend", 86400, 90000).error() is None
    assert hashes(redis_server) == {}


COLUMN_OF = dict.fromkeys(("sum", "mean", "min", "max", "var", "std"), "amount") | {"count": None}


@settings(suppress_health_check=[*HealthCheck], max_examples=8)
@given(st.data())
def test_what_feasts_readers_get_is_what_the_naive_oracle_says(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisAddress, data: st.DataObject
) -> None:
    """From events to get_online_features, over two runs; every entity that had an event in a window is right."""
    minute = 60_000_000
    hops = data.draw(st.lists(st.sampled_from((1, 2, 7)), min_size=1, max_size=4))
    kinds = [data.draw(st.sampled_from(tuple(COLUMN_OF))) for _ in hops]
    features = tuple(
        Feature(
            f"f{i}", kind, Window("sliding", 10 * hop * minute, hop * minute), None if kind == "count" else "amount"
        )
        for i, (kind, hop) in enumerate(zip(kinds, hops, strict=True))
    )
    base = int(T0.timestamp()) * 1_000_000
    drawn = data.draw(
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(0, 90), st.sampled_from((None, 0.1, 0.2, -1.0, 1e15, 12.5, 3.0))),
            max_size=12,
        )
    )
    events = [
        Sent(base + m * minute, {"who": driver, "amount": amount}, 0, i) for i, (driver, m, amount) in enumerate(drawn)
    ]
    folder = tmp_path_factory.mktemp("repo")
    path = write(folder / "payments.parquet", payments(*((d, m, a) for d, m, a in drawn)))
    view = stream_view(
        path,
        aggregations=[
            Aggregation(
                column="amount" if f.column else "",
                function=f.kind,
                time_window=timedelta(microseconds=f.window.width),
                slide_interval=timedelta(microseconds=f.window.hop),
                name=f.name,
            )
            for f in features
        ],
        schema=[DRIVER_ID, *(Field(name=f.name, dtype=Int64 if f.kind == "count" else Float64) for f in features)],
    )
    with redis_server.client() as client:
        client.flushdb()
    repo = Repo(folder, redis_server, view)
    oracle = Oracle(View(features, stream=View(features).stream), sorted(events, key=lambda e: e.time))
    start = 0
    for end in sorted(data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=2, unique=True))):
        assert repo.run("spend", start * 60, end * 60).error() is None
        start, asked = end, base + end * minute
        for (driver,) in oracle.entities:
            found = read(repo, "spend", [f.name for f in features], driver)
            contents = {f.name: oracle.content(f, (driver,), asked) for f in features}
            if not any(e.event.time <= asked for e in oracle.taken((driver,))):
                continue
            for f in features:
                expected = oracle.value(f, (driver,), asked)
                assert agrees(f, found[f.name], expected, contents[f.name], asked), (driver, f, found, expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schema": [DRIVER_ID, *FIELDS[1:]]}, "its aggregation 'sum_amount_3600s' is no field of its schema; did you"),
        (
            {"schema": [DRIVER_ID, *FIELDS, Field(name="city", dtype=String)]},
            "its fields city are no aggregations of it; these are: sum_amount_3600s",
        ),
        ({"aggregations": [*SIX, SIX[0]]}, "two of its aggregations are called 'sum_amount_3600s'"),
        (
            {"schema": [DRIVER_ID, *(Field(name=field.name, dtype=Int64) for field in FIELDS)]},
            "its field 'sum_amount_3600s' is INT64 and the aggregation gives double",
        ),
        (
            {
                "aggregations": [Aggregation(column="amont", function="sum", time_window=HOUR)],
                "schema": [DRIVER_ID, Field(name="sum_amont_3600s", dtype=Float64)],
            },
            "Source 'of_payments': no column 'amont'; did you mean 'amount'?",
        ),
        (
            {
                "aggregations": [Aggregation(column="amount", function="mode", time_window=HOUR)],
                "schema": [DRIVER_ID, Field(name="mode_amount_3600s", dtype=Float64)],
            },
            "asks for function 'mode'",
        ),
        ({"tags": {"headrace.aggregations": "sum"}, "aggregations": []}, "its tag 'headrace.aggregations' is 'sum'"),
    ],
)
def test_what_does_not_fit_is_the_jobs_error(
    tmp_path: Path, redis_server: RedisAddress, options: dict[str, Any], said: str
) -> None:
    path = write(tmp_path / "payments.parquet", payments((1, 0, 9.0), (1, 1, 9.5)))
    repo = Repo(tmp_path, redis_server, stream_view(path, **options))
    job = repo.run("spend")
    assert str(job.status()) == "MaterializationJobStatus.ERROR"
    assert str(job.error()).startswith("Feature view 'spend' is not materialized from")
    assert said in str(job.error())


def test_windows_are_not_appended_to_their_events(tmp_path: Path, redis_server: RedisAddress) -> None:
    path = write(tmp_path / "payments.parquet", payments((1, 0, 9.0)))
    options: dict[str, Any] = {"entities": [DRIVER], "schema": [DRIVER_ID, *FIELDS], "tags": aggregations_tag(SIX)}
    repo = Repo(tmp_path, redis_server, made(FeatureView, name="v", source=source(path), offline=True, **options))
    assert "offline=True, which would append windows to its source of events" in str(repo.run("v").error())
    assert hashes(redis_server) == {}


def of(width: timedelta | None, slide: timedelta | None = None, tile: timedelta | None = None) -> tuple[Any, int]:
    found = translated("View", Aggregation(column="x", function="sum", time_window=width, slide_interval=slide), tile)
    return found.width_us, found.hop_us


def test_a_slide_that_was_left_out_is_the_contracts_hop_or_the_views_tile() -> None:
    minute, hour = 60_000_000, 3_600_000_000
    assert of(HOUR, MINUTE * 5) == (hour, 5 * minute)
    assert of(HOUR) == of(HOUR, HOUR) == (hour, minute)
    assert of(HOUR, tile=MINUTE * 10) == (hour, 10 * minute)
    assert of(None) == (None, 1)
    for width, slide in ((timedelta(0), None), (HOUR, timedelta(hours=2)), (HOUR, -MINUTE)):
        with pytest.raises(DefinitionError, match="slides by at most its own width"):
            of(width, slide)
    with pytest.raises(DefinitionError, match="has no function"):
        translated("View", Aggregation(column="x", time_window=HOUR))


def test_a_tag_holds_all_of_an_aggregation() -> None:
    (tag,) = aggregations_tag([SIX[0], Aggregation(column="a", function="max", name="top")]).values()
    assert json.loads(tag) == [
        {"column": "amount", "function": "sum", "window_us": 3_600_000_000, "slide_us": 60_000_000},
        {"column": "a", "function": "max", "name": "top"},
    ]
    with pytest.raises(DefinitionError, match="aggregations_tag: aggregation 'sum_a' has time_window 0:00:00"):
        aggregations_tag([Aggregation(column="a", function="sum", time_window=timedelta(0))])
