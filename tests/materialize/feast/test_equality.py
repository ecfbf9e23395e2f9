"""Ranges of whatever tables, materialized in whatever order: Feast's local engine and ours leave the same hashes, and
Feast's readers get the same answers."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureView, Field, FileSource
from feast.value_type import ValueType
from hypothesis import HealthCheck, example, given, settings
from tests.materialize.feast.engine_repo import DRIVER, DRIVER_ID, OURS, Repo, at, feast_types, hashes
from tests.servers.fixtures import RedisAddress

t = feast_types
CITY = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
CITY_ID = Field(name="city", dtype=t.String)
UTC_US = pa.timestamp("us", "UTC")
REALS = st.floats().map(lambda real: math.nan if math.isnan(real) else real)
"""One NaN of many: which one it was does not always survive Feast's way of reading lists; ours keeps its bits."""
SECONDS = 100
"""Events lie so many seconds around T0."""

FEATURES: dict[str, tuple[Any, pa.DataType, st.SearchStrategy[Any]]] = {
    "trips": (t.Int64, pa.int64(), st.integers(-(2**53), 2**53) | st.integers(-3, 300)),
    "few": (t.Int32, pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "score": (t.Float64, pa.float64(), st.floats()),
    "part": (t.Float32, pa.float32(), st.floats(width=32)),
    "name": (t.String, pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
    "raw": (t.Bytes, pa.binary(), st.binary(min_size=1, max_size=4)),
    "good": (t.Bool, pa.bool_(), st.booleans()),
    "seen": (t.UnixTimestamp, UTC_US, st.integers(-(10**6), 10**6).map(at)),
    "scores": (t.Array(t.Float64), pa.list_(pa.float64()), st.lists(REALS, max_size=3)),
    "counts": (t.Array(t.Int64), pa.list_(pa.int64()), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)),
    "tags": (t.Array(t.String), pa.list_(pa.string()), st.lists(st.text("aß", max_size=2), max_size=3)),
}
VIEWS = {"first": ["trips", "score", "name", "scores"], "second": ["few", "part", "raw", "good", "seen"],
         "by_city": ["trips", "counts", "tags"]}  # fmt: skip
"""Two views of one entity, and one of two; the second has a column that says when a row was made."""


@dataclass(frozen=True)
class Case:
    """Rows of each view, how many are in a row group, and the ranges that are materialized one after another."""

    tables: dict[str, pa.Table]
    group: int
    ranges: list[tuple[float, float]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Of rows of one entity at one instant only those that their `created` tells apart."""
    moment = st.integers(-SECONDS * 4, SECONDS * 4).map(lambda quarter: quarter / 4) | st.sampled_from(
        [0.0, 1e-6, 10.0]
    )
    return Case(
        {name: draw(_table(name, moment)) for name in VIEWS},
        draw(st.integers(1, 5)),
        draw(st.lists(st.tuples(moment, moment).map(lambda two: (min(two), max(two))), min_size=1, max_size=3)),
    )


@st.composite
def _table(draw: st.DrawFn, view: str, moment: st.SearchStrategy[float]) -> pa.Table:
    place = st.tuples(st.sampled_from([1, -7, 2**63 - 1]), st.sampled_from(["", "Żary"]), moment)
    if view == "second":
        place = st.tuples(st.sampled_from([1, -7]), st.just(""), moment, st.integers(0, 10**6))
    elif view == "first":
        place = st.tuples(st.sampled_from([1, -7, 2**63 - 1]), st.just(""), moment)
    rows = draw(st.lists(place, max_size=12, unique=True))
    columns: dict[str, pa.Array] = {
        "driver_id": pa.array([row[0] for row in rows], pa.int64()),
        "city": pa.array([row[1] for row in rows], pa.string()),
        "event_timestamp": pa.array([at(row[2]) for row in rows], UTC_US),
    }
    if view == "second":
        columns["created"] = pa.array([at(row[3]) for row in rows], UTC_US)  # type: ignore[misc]
    for name in VIEWS[view]:
        _, kind, values = FEATURES[name]
        drawn = draw(st.lists(st.none() | values, min_size=len(rows), max_size=len(rows)))
        columns[name] = pa.array(drawn, kind)
    return pa.table(columns)


def feature_view(folder: Path, name: str) -> FeatureView:
    created = {"created_timestamp_column": "created"} if name == "second" else {}
    source = FileSource(path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp", name=name, **created)
    two = name == "by_city"
    keys = [DRIVER_ID, CITY_ID] if two else [DRIVER_ID]
    return FeatureView(
        name=name,
        entities=[DRIVER, CITY] if two else [DRIVER],
        schema=[*keys, *(Field(name=each, dtype=FEATURES[each][0]) for each in VIEWS[name])],
        source=source,
    )


class Both:
    """The same repository with Feast's engine and with ours; ours in portions of a few rows."""

    def __init__(self, folder: Path, server: RedisAddress) -> None:
        self.folder, self.server = folder, server
        whole = random_case(0)
        self.write(whole)
        self.repos = {}
        for which, engine in (("local", "local"), ("ours", {"type": OURS, "write_batch": 4})):
            (folder / which).mkdir()
            views = [feature_view(folder, name) for name in VIEWS]
            self.repos[which] = Repo(folder / which, server, CITY, *views, engine=engine)

    def write(self, case: Case) -> None:
        for name, table in case.tables.items():
            pq.write_table(table, self.folder / f"{name}.parquet", row_group_size=case.group)

    def left(self, which: str, case: Case) -> tuple[Any, Any]:
        """The hashes, and what Feast's readers get."""
        repo = self.repos[which]
        with self.server.client() as client:
            client.flushdb()
        for start, end in case.ranges:
            repo.materialize(start, end)
        rows = [{"driver_id": driver, "city": city} for driver in (1, -7, 2**63 - 1, 5) for city in ("", "Żary")]
        asked = [f"{view}:{feature}" for view in VIEWS for feature in VIEWS[view]]
        answer = repo.store.get_online_features(features=asked, entity_rows=rows, full_feature_names=True)
        return hashes(self.server), answer.proto


def random_case(seed: int, rows: int = 40) -> Case:
    """Many rows, one of each entity and instant."""
    choose = random.Random(seed)
    tables: dict[str, pa.Table] = {}
    for view, features in VIEWS.items():
        columns = {
            "driver_id": pa.array([choose.choice([1, -7, 2**63 - 1]) for _ in range(rows)]),
            "city": pa.array([choose.choice(["", "Żary"]) for _ in range(rows)]),
            "event_timestamp": pa.array([at(choose.uniform(-SECONDS, SECONDS)) for _ in range(rows)], UTC_US),
        }
        if view == "second":
            columns["created"] = columns["event_timestamp"]
        for name in features:
            columns[name] = pa.array([value(choose, name) for _ in range(rows)], FEATURES[name][1])
        tables[view] = pa.table(columns)
    return Case(tables, 7, [(-SECONDS, 0), (0, SECONDS), (-SECONDS, -50)])


def value(choose: random.Random, name: str) -> Any:
    made = {
        "trips": choose.randrange(-5, 10**6),
        "few": choose.randrange(-5, 10**6),
        "score": choose.choice([choose.random(), float("nan"), float("inf")]),
        "part": choose.choice([choose.random(), float("nan"), 1e39]),
        "name": choose.choice(["", "a", "ß"]),
        "raw": b"\0" * choose.randrange(1, 300),
        "good": choose.random() < 0.5,
        "seen": at(choose.random()),
        "scores": [choose.random(), float("nan")] * choose.randrange(3),
        "counts": [choose.randrange(10**9)] * choose.randrange(3),
        "tags": ["x"] * choose.randrange(3),
    }
    return None if choose.random() < 0.2 else made[name]


@pytest.fixture
def both(tmp_path: Path, redis_server: RedisAddress) -> Both:
    return Both(tmp_path, redis_server)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
@example(case=random_case(1))
@example(case=random_case(2, 300))
def test_both_engines_leave_the_same(both: Both, case: Case) -> None:
    both.write(case)
    theirs, answered = both.left("local", case)
    ours, ours_answered = both.left("ours", case)
    assert ours == theirs
    assert ours_answered == answered


def test_a_range_without_rows_and_a_range_again(both: Both) -> None:
    case = random_case(3)
    both.write(case)
    once = Case(case.tables, 7, [(-SECONDS, SECONDS)])
    again = Case(case.tables, 7, [(5000, 6000), (-SECONDS, SECONDS), (-SECONDS, SECONDS), (5000, 6000)])
    found = both.left("ours", once)
    assert found == both.left("ours", again) == both.left("local", again)
    assert len(found[0]) == 3 + 6
    nothing, _ = both.left("ours", Case(case.tables, 7, [(5000, 6000)]))
    assert nothing == {}
