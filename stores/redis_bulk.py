"""Many rows into Feast's hashes in Redis, as fast as Redis takes them; an older row never covers a newer one.

    with BulkWriter("redis://localhost:6379/0", table=table) as writer:
        for batch in batches:
            writer.write(batch)
        done = writer.finish()

Rows become commands column by column (feast_columns.py, feast_commands.py) while others are on their way over several
connections (redis_portions.py). A row at the instant of the one that is there takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.stores.byte_columns import Fixed, Headed, Integers, array_of, plain
from headrace.stores.errors import StoreError
from headrace.stores.feast_columns import FeastTable, key_bytes, micros, value_bytes
from headrace.stores.feast_commands import commands
from headrace.stores.feast_rows import field_of
from headrace.stores.redis_portions import CONNECTIONS, PortionSender, Target
from headrace.stores.redis_talk import Talk
from headrace.stores.redis_urls import RedisAddress, redis_address

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 1 << 14
_CHUNK_BYTES = 1 << 25
_FIELD_BYTES = 25
"""What a field's command says around the value."""


@dataclass(frozen=True)
class BulkDone:
    """What became of the rows.

    Attributes:
        rows: how many came. written: how many were written. older: how many were not, since a newer one is there or
        came with them.
    """

    rows: int
    written: int
    older: int


class BulkWriter:
    """Writes rows of one view of Feast's.

    Args:
        address: the server or its URL; in a cluster each row is written by a script of its own. table: the view.
        time: the column of event timestamps, without zone in UTC; of rows at one instant the last stays.
        rows_per_portion: as many become commands at once. ttl_ms: keys end so long after the event, unless they end
        later already; None says nothing about it. key_ttl_s: Feast's key_ttl_seconds: keys end so long after they were
        written. timeout_s: for each answer. connections: as many write by turns.

    Raises:
        StoreError: two features have one field in Redis, or both ends are given.
    """

    def __init__(
        self,
        address: RedisAddress | str,
        *,
        table: FeastTable,
        time: str = "event_timestamp",
        rows_per_portion: int = CHUNK_ROWS,
        ttl_ms: int | None = None,
        key_ttl_s: int | None = None,
        timeout_s: float = 30.0,
        connections: int = CONNECTIONS,
    ) -> None:
        if ttl_ms is not None and key_ttl_s:
            raise StoreError(
                f"View '{table.view}': its keys would end ttl_ms={ttl_ms} after the event and key_ttl_s={key_ttl_s} "
                "after they are written. Give one of them."
            )
        self.address = redis_address(address) if isinstance(address, str) else address
        self.table, self.time = table, time
        self._chunk_rows, self._ttl_ms = rows_per_portion, ttl_ms
        self._said = (b"EXPIRE", b"%d" % key_ttl_s) if key_ttl_s else ()
        self._time_field = b"_ts:" + table.view.encode()
        self._fields = _fields(table)
        self._rows = 0
        self._talk = Talk(self.address, timeout_s, 2)
        target = Target(self._time_field, 1 + len(self._fields), ttl_ms)
        self._sender = PortionSender(self._talk, target, connections)

    def write(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Send rows. They are on their way when it returns, and what goes wrong may be told by a later call.

        Raises:
            StoreError: a column is missing, holds what it may not, or Redis refuses. UnreachableError: it does not
            answer.
        """
        self._check(batch)
        for part in chunks(batch, len(self._fields), self._chunk_rows):
            self._send(part)

    def finish(self) -> BulkDone:
        """Wait for all rows. Raises as `write`."""
        written = self._sender.finish()
        return BulkDone(self._rows, written, self._rows - written)

    def close(self) -> None:
        """End it; what was not finished may be written or not."""
        self._sender.close()
        self._talk.close()

    def __enter__(self) -> BulkWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, batch: Any) -> None:
        wanted = [*(name for name, _ in self.table.keys), *(name for name, _ in self.table.features), self.time]
        missing = [name for name in wanted if name not in batch.schema.names]
        if missing:
            raise StoreError(
                f"View '{self.table.view}': the rows lack {', '.join(map(repr, missing))}; they have "
                f"{', '.join(map(repr, batch.schema.names))}. Expected a column for each key and feature, and the "
                f"event timestamp '{self.time}'."
            )

    def _send(self, batch: Any) -> None:
        at = self._column(batch, self.time, micros)
        keys = key_bytes(self.table, [batch.column(name) for name, _ in self.table.keys])
        self._rows += batch.num_rows
        newest = newest_of_each(array_of(keys), at)
        if newest is not None:
            batch, at = batch.take(newest), at[newest]
            keys = key_bytes(self.table, [batch.column(name) for name, _ in self.table.keys])
        columns = [(field, self._column(batch, name, _messages, kind)) for field, name, kind in self._fields]
        ends = None if self._ttl_ms is None else at // 1000 + self._ttl_ms
        self._sender.send(commands(keys, at, columns, self._time_field, ends_ms=ends, said=self._said))

    def _column(self, batch: Any, name: str, made: Any, *more: Any) -> Any:
        try:
            return made(batch.column(name), *more)
        except StoreError as error:
            raise StoreError(f"View '{self.table.view}', column '{name}': {error}") from None


def chunks(rows: Any, fields: int, most: int = CHUNK_ROWS) -> Iterator[Any]:
    """Rows in slices whose commands take some ten megabytes: wide rows and long values in smaller ones."""
    n = rows.num_rows
    size = min(most, max(1, _CHUNK_BYTES * n // (rows.nbytes + _FIELD_BYTES * fields * n + 1)))
    for start in range(0, n, size):
        yield rows.slice(start, size)


def newest_of_each(keys: pa.BinaryArray, times: Integers) -> Integers | None:
    """The places of the newest row of each key, of several at one instant the last; None when no key comes twice."""
    if len(keys.unique()) == len(keys):
        return None
    which = keys.dictionary_encode().indices.to_numpy()
    order = np.lexsort((times, which))
    last = np.flatnonzero(np.diff(which[order], append=-1))
    return np.sort(order[last])


def _fields(table: FeastTable) -> list[tuple[bytes, str, int | None]]:
    """Field, name and value type of each feature."""
    found = {field_of(table.view, name): (name, kind) for name, kind in table.features}
    if len(found) < len(table.features):
        raise StoreError(
            f"View '{table.view}': two features have the same 32 bit hash, by which Feast names fields in Redis, "
            "or the same name. Rename one of them."
        )
    return [(field, *each) for field, each in found.items()]


def _messages(column: Any, kind: int | None) -> Fixed | Headed:
    """A column's messages; those that are ready as they are, null as the empty one."""
    import pyarrow as pa

    if kind is not None:
        return value_bytes(column, kind)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_binary(column.type):
        raise StoreError(f"Messages that are ready are binary, got a column of type {column.type}.")
    return plain(column.fill_null(b"") if column.null_count else column)
