"""Rows of drivers for bulk writing, and what Redis has of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import redis

from headrace.stores.feast_columns import FeastTable, encode_keys
from headrace.stores.feast_rows import field_of
from headrace.stores.feast_values import read_timestamp, read_varint
from headrace.stores.redis_bulk import BulkDone, BulkWriter

TABLE = FeastTable("rides", "stats", (("driver", 4),), (("trips", 4), ("score", 5), ("name", 2)))
TIME, TRIPS, SCORE, NAME = (b"_ts:stats", *(field_of("stats", name) for name in ("trips", "score", "name")))
AT = 1_700_000_000_000_000


def rows(drivers: list[int], times: list[int], trips: list[int] | None = None) -> pa.Table:
    """Rows whose features all say how many trips there were, by default as many as the time has microseconds."""
    said = times if trips is None else trips
    return pa.table(
        {
            "driver": pa.array(drivers, pa.int64()),
            "event_timestamp": pa.array(times, pa.timestamp("us")),
            "trips": pa.array(said, pa.int64()),
            "score": pa.array([None if each % 3 == 0 else each / 4 for each in said], pa.float64()),
            "name": pa.array([None if each % 5 == 0 else "n" * (each % 200) for each in said], pa.string()),
        }
    )


def write(url: str, *tables: pa.Table, **options: Any) -> BulkDone:
    with BulkWriter(url, table=TABLE, **options) as writer:
        for table in tables:
            writer.write(table)
        return writer.finish()


def key(driver: int) -> bytes:
    (found,) = encode_keys(TABLE, [pa.array([driver])]).to_pylist()
    return bytes(found)


def hashes(client: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    return {each: client.hgetall(each) for each in client.scan_iter()}


def said(found: dict[bytes, bytes]) -> tuple[int, int]:
    """Event timestamp and trips of a hash."""
    return read_timestamp(found[TIME]), read_varint(found[TRIPS], 1)[0]
