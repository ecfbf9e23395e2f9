"""Rows that Feast pushes, a message for each value: compared with what is there and written in one step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.stores.feast_rows import field_of
from headrace.stores.redis_scripts import HASHES_OF_CLUSTER
from headrace.stores.redis_talk import Command, Talk, call

PushedRow = tuple[Any, dict[str, Any], datetime, datetime | None]
"""As Feast gives a row to its online stores: entity key, values by feature, event timestamp, created timestamp."""

ROWS_PER_CALL = 256
"""Redis does nothing else for the millisecond that a call takes; in a cluster each row has its own."""


def write_pushed(
    talk: Talk, view: str, keys: Sequence[bytes], rows: Sequence[PushedRow], key_ttl_s: int | None = None
) -> int:
    """Write rows that are not older than those there; returns how many were.

    Args:
        view: its name in Redis. keys: the hash of each row, (n,). key_ttl_s: hashes that were written end so long
        after.

    Raises:
        UnreachableError: Redis does not answer or cannot write now; whether rows were written is not known, and writing
            them again is right. StoreError: it refuses.
    """
    calls: list[Command] = []
    called: list[list[bytes]] = []
    for some in _alike(rows, 1 if talk.cluster or key_ttl_s else ROWS_PER_CALL):
        names = list(rows[some[0]][1])
        fields = [f"_ts:{view}".encode(), *(field_of(view, name) for name in names)]
        values = [part for at in some for part in _parts(rows[at], names)]
        hashes = [keys[at] for at in some]
        calls.append(call(HASHES_OF_CLUSTER, hashes, ["", "", "", "", "", len(fields), *fields, *values]))
        called.append(hashes)
    written = talk.ask(calls)
    if key_ttl_s:
        touched = [key for count, hashes in zip(written, called, strict=True) if count for key in hashes]
        talk.ask([("EXPIRE", key, key_ttl_s) for key in dict.fromkeys(touched)])
    return sum(written)


def _alike(rows: Sequence[PushedRow], most: int) -> list[list[int]]:
    """Places of neighbours that have the same features, at most so many together; the order of rows stays."""
    found: list[list[int]] = []
    for at, (_, values, _, _) in enumerate(rows):
        if found and len(found[-1]) < most and rows[found[-1][0]][1].keys() == values.keys():
            found[-1].append(at)
        else:
            found.append([at])
    return found


def _parts(row: PushedRow, names: Sequence[str]) -> list[bytes]:
    _, values, at, _ = row
    stamp = Timestamp()
    stamp.FromDatetime(make_tzaware(at))
    return [stamp.SerializeToString(), *(values[name].SerializeToString() for name in names)]
