"""Rows as JSON: what Kafka, web hooks, standard output, Redis and dead letters are given."""

import base64
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa

from headrace.features.time import format_instant
from headrace.flows.deadletter import FAILED, DeadLetter
from headrace.flows.sinks.protocol import SinkPlace, SinkRows

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts that JSON carries: instants as ISO text in UTC, bytes in base64, NaN as null.

    >>> import pyarrow as pa
    >>> at = pa.array([1_767_225_600_000_000]).view(pa.timestamp("us", tz="UTC"))
    >>> records(pa.table({"fare": [2.5], "raw": [b"x"], "at": at}))
    [{'fare': 2.5, 'raw': 'eA==', 'at': '2026-01-01T00:00:00Z'}]
    """
    names = table.column_names
    return [dict(zip(names, row, strict=True)) for row in zip(*map(_plain, table.columns), strict=True)]


def _plain(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        whole = column.cast(pa.int64()).to_pylist()
        return [None if us is None else format_instant(us) for us in whole]
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [None if v is None or not math.isfinite(v) else v for v in values]
    if pa.types.is_binary(column.type):
        return [None if v is None else base64.b64encode(v).decode() for v in values]
    return values


def letters(rows: SinkRows, at: SinkPlace, why: str) -> list[DeadLetter]:
    """Dead letters of rows that a sink refused."""
    return [
        DeadLetter(
            reason=FAILED,
            detail=f"step '{at.name}': {why}",
            source=at.name,
            partition=int(rows.position[i]) >> 48,
            offset=int(rows.position[i]) & ((1 << 48) - 1),
            event_time_us=int(rows.time_us[i]),
            payload=encode(record).decode(),
        )
        for i, record in enumerate(records(rows.table))
    ]
