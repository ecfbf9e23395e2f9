"""What the engine leaves in Redis is what Feast's local engine leaves there: keys, fields and bytes."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, Field
from feast.value_type import ValueType
from tests.materialize.feast.engine_repo import DRIVER, DRIVER_ID, OURS, Repo, at, feast_types, hashes, trips_view
from tests.servers.fixtures import RedisAddress

from headrace.materialize.feast import engine, writing
from headrace.materialize.feast.files import file_reading
from headrace.materialize.feast.messages import encoded_here

IDS = [str(uuid.UUID(int=number)) for number in (0, 7, 2**128 - 1)]
UTC_US = pa.timestamp("us", "UTC")
t = feast_types

COLUMNS: dict[str, tuple[Any, pa.Array]] = {
    "int32": (t.Int32, pa.array([-(2**31), None, 2**31 - 1], pa.int32())),
    "int64": (t.Int64, pa.array([-5, None, 2**53])),
    "whole_int64": (t.Int64, pa.array([-(2**63), 0, 2**63 - 1])),
    "float32": (t.Float32, pa.array([0.1, None, float("inf")], pa.float32())),
    "float64": (t.Float64, pa.array([float("nan"), None, -0.0])),
    "float64_of_ints": (t.Float64, pa.array([1, 2, 0])),
    "text": (t.String, pa.array(["", None, "żółć\n"])),
    "text_of_ints": (t.String, pa.array([1, 2, 3])),
    "dictionary": (t.String, pa.array(["a", None, "a"]).dictionary_encode()),
    "binary": (t.Bytes, pa.array([b"\0\xff", None, b"b"])),
    "bool": (t.Bool, pa.array([True, None, False])),
    "instant": (t.UnixTimestamp, pa.array([at(0.5), None, at(-0.5)], UTC_US)),
    "early": (t.UnixTimestamp, pa.array([datetime(1600, 1, 1, tzinfo=UTC), at(0), datetime(9999, 1, 1)], UTC_US)),
    "unzoned": (t.UnixTimestamp, pa.array([at(0), at(1.9), at(2)], UTC_US).cast(pa.timestamp("us"))),
    "int32s": (t.Array(t.Int32), pa.array([[1, -2], None, []], pa.list_(pa.int32()))),
    "int64s": (t.Array(t.Int64), pa.array([[2**62, -1], None, []])),
    "float32s": (t.Array(t.Float32), pa.array([[0.1], None, []], pa.list_(pa.float32()))),
    "float64s": (t.Array(t.Float64), pa.array([[0.1, float("nan")], None, []])),
    "texts": (t.Array(t.String), pa.array([["ü", ""], None, []])),
    "binaries": (t.Array(t.Bytes), pa.array([[b"\0", b""], None, []])),
    "bools": (t.Array(t.Bool), pa.array([[True, False], None, []])),
    "instants": (t.Array(t.UnixTimestamp), pa.array([[at(0), at(1)], None, []], pa.list_(UTC_US))),
    "ids": (t.Array(t.Uuid), pa.array([IDS, None, []])),
    "nested": (t.Array(t.Array(t.Int64)), pa.array([[[1], []], None, []])),
    "set": (t.Set(t.Int64), pa.array([[1], None, []])),
    "json": (t.Json, pa.array(['{"a": [1]}', None, "3"])),
    "jsons": (t.Array(t.Json), pa.array([['{"a": 1}', "1"], None, []])),
    "id": (t.Uuid, pa.array(IDS)),
    "time_id": (t.TimeUuid, pa.array(IDS)),
    "decimal": (t.Decimal, pa.array([Decimal("1.50"), None, Decimal("-2.25")])),
    "decimal_text": (t.Decimal, pa.array(["1.5", None, "1e3"])),
    "struct": (t.Struct({"x": t.Int64}), pa.array([{"x": 1}, None, {"x": 3}])),
    "map_of_json": (t.Map, pa.array(['{"a": 1}', None, "{}"])),
    "pdf": (t.PdfBytes, pa.array([b"a", None, b"c"])),
    "image": (t.ImageBytes, pa.array([b"a", None, b"c"])),
}
"""Of every type that Feast's local engine can write, as it can be stored; with nulls where the type takes them."""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two rows of each of three entities, the older one of nulls, in three row groups."""
    path = tmp_path / "all.parquet"
    newest = {
        "driver_id": pa.array([7, -(2**63), 2**63 - 1]),
        "event_timestamp": pa.array([at(0.000001), at(-86400 * 365 * 100), at(86400 * 365 * 100)], UTC_US),
        **{name: values for name, (_, values) in COLUMNS.items()},
    }
    older = pa.table(newest).slice(1, 1).set_column(1, "event_timestamp", [pa.array([at(-86400 * 365 * 200)], UTC_US)])
    with pq.ParquetWriter(path, older.schema) as writer:
        for each in (older, pa.table(newest).slice(0, 1), pa.table(newest).slice(1)):
            writer.write_table(each)
    return path


def written(folder: Path, server: RedisAddress, which: str, *objects: Any) -> dict[bytes, Any]:
    """All that Redis holds after one engine materialized everything."""
    folder.mkdir()
    repo = Repo(folder, server, *objects, engine=which)
    repo.materialize(start=-86400 * 365 * 400, end=86400 * 365 * 400)
    found = hashes(server)
    with server.client() as client:
        client.flushdb()
    return found


STRAIGHT = [name for name, (dtype, values) in COLUMNS.items() if encoded_here(dtype.to_value_type(), values.type)]
"""Columns that DuckDB reads and that are encoded without Feast."""


@pytest.mark.parametrize("names", [list(COLUMNS), STRAIGHT], ids=["all", "straight"])
def test_values_of_every_type_are_the_same_bytes(
    tmp_path: Path, table: Path, redis_server: RedisAddress, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if names == STRAIGHT:
        monkeypatch.setattr(engine, "READERS", (file_reading,))
        monkeypatch.setattr(writing, "feast_messages", None)
    fields = [Field(name=name, dtype=COLUMNS[name][0]) for name in names]
    feasts, ours = (
        written(tmp_path / which, redis_server, which, trips_view(table, schema=[DRIVER_ID, *fields]))
        for which in ("local", OURS)
    )
    assert len(feasts) == 3
    assert all(len(row) == 1 + len(names) for row in feasts.values())
    assert ours == feasts


KEYS = {
    "STRING": (t.String, pa.array(["", "żółć", "b"])),
    "BYTES": (t.Bytes, pa.array([b"\0", b"\xff\xfe", b"b"])),
    "INT32": (t.Int32, pa.array([-(2**31), 0, 2**31 - 1], pa.int32())),
    "INT64": (t.Int64, pa.array([-(2**63), 0, 2**63 - 1])),
    "UNIX_TIMESTAMP": (t.UnixTimestamp, pa.array([at(-3), at(0.5), at(1)], UTC_US)),
}


def test_texts_of_instants_within_one_second_are_different_keys(tmp_path: Path, redis_server: RedisAddress) -> None:
    """Only keys that are instants are told apart by their seconds; texts of them are texts."""
    columns = {
        "when": pa.array([at(0.1), at(0.2), at(1.1)], UTC_US),
        "trips": [4, 5, 6],
        "event_timestamp": [at(0)] * 3,
    }
    pq.write_table(pa.table(columns), tmp_path / "trips.parquet")
    entity = Entity(name="when", join_keys=["when"], value_type=ValueType.STRING)
    schema = [Field(name="when", dtype=t.String), Field(name="trips", dtype=t.Int64)]
    view = trips_view(tmp_path / "trips.parquet", "trips_of", entities=[entity], schema=schema)
    feasts, ours = (written(tmp_path / which, redis_server, which, entity, view) for which in ("local", OURS))
    assert len(feasts) == 3
    assert ours == feasts


def test_keys_of_every_type_are_the_same_bytes(tmp_path: Path, redis_server: RedisAddress) -> None:
    made: list[Any] = []
    for name, (dtype, values) in KEYS.items():
        columns = {"z": values, "driver_id": [1, 2, 3], "trips": [4, 5, 6], "event_timestamp": [at(0)] * 3}
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(columns), path)
        entity = Entity(name=f"by_{name}", join_keys=["z"], value_type=ValueType[name])
        schema = [Field(name="z", dtype=dtype), DRIVER_ID, Field(name="trips", dtype=t.Int64)]
        # A key of two parts, whose order Feast sorts, and one of a single part.
        made += [entity, trips_view(path, f"two_{name}", entities=[entity, DRIVER], schema=schema)]
        made += [trips_view(path, f"one_{name}", entities=[entity], schema=[schema[0], schema[2]])]
    feasts, ours = (written(tmp_path / which, redis_server, which, *made) for which in ("local", OURS))
    assert len(feasts) == 2 * 3 * len(KEYS)
    assert ours == feasts
