"""Many rows of one view into a Redis store, portion by portion: what fills a store from a log.

Rows go the way of redis_bulk.py, with what a view of Headrace's has besides: the newest event, values that Feast's form
does not say, the end of keys by the ttl of the entity's views. The views' generation is watched with the keys, so rows
never go by a definition that is no longer the project's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BOOL, BYTES, FLOAT, INT, STRING, TIMESTAMP, split_list
from headrace.stores.byte_columns import Fixed, Headed, array_of, plain
from headrace.stores.feast_columns import FeastTable, key_bytes, micros, value_bytes
from headrace.stores.feast_commands import Commands, commands
from headrace.stores.feast_rows import FeastRows, may_lose, note_losses, noted_losses
from headrace.stores.feast_values import encode_value
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT
from headrace.stores.redis_bulk import chunks, newest_of_each
from headrace.stores.redis_portions import PortionSender, Target, ViewsChanged
from headrace.stores.redis_project import TRIES, KnownView, ProjectViews
from headrace.stores.redis_talk import Talk
from headrace.stores.rows import plain_column

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from headrace.features.views import ViewDefinition
    from headrace.stores.layout import LoggedView

_KINDS = {BYTES: 1, STRING: 2, INT: 4, FLOAT: 5, BOOL: 7}
_TIME = 8
_LIST_OF = 10
"""A list's value type number beyond its elements'."""
_MOST_KEPT = 1 << 18
"""Rows that are kept until they are known to be written, to be sent once more when views change."""


class RedisFilling:
    """Writes rows of a view; obtained by `RedisStore.filling`.

    Args:
        talk, views: the store's. view: what is written. expire: as the store has it.
    """

    def __init__(self, talk: Talk, views: ProjectViews, view: ViewDefinition | LoggedView, expire: bool) -> None:
        self._talk, self._views, self._view, self._expire = talk, views, view, expire
        self._sender: PortionSender | None = None
        self._known: KnownView | None = None
        self._kept: list[pa.Table] = []
        self._sent = 0
        self._written = self._told = 0

    def write(self, rows: pa.Table) -> None:
        """Send rows (columns as in layout.py). They are on their way when it returns.

        Raises:
            SchemaMismatchError: they are not of the view, or the store holds rows of another definition of it.
            StoreError: Redis refuses these rows or those before. UnreachableError: it does not answer.
        """
        if sum(each.num_rows for each in self._kept) >= _MOST_KEPT:
            self._settle()
        self._kept.append(rows)
        self._until_unchanged(self._send_kept)

    def flush(self) -> int:
        """Wait until everything is in the store; how many rows were not older than what was there, since last asked.

        Raises as `write`.
        """
        self._settle()
        told, self._told = self._told, self._written
        return self._written - told

    def close(self) -> None:
        """End it; what was not flushed may be written or not."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def __enter__(self) -> RedisFilling:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settle(self) -> None:
        def drained() -> None:
            self._send_kept()
            if self._sender is not None:
                self._written += self._sender.drain()
                self._sender.written = 0

        self._until_unchanged(drained)
        self._kept.clear()
        self._sent = 0

    def _until_unchanged(self, attempt: Callable[[], None]) -> None:
        """Do it; when the views have changed, anew by what they are now."""
        for _ in range(TRIES):
            try:
                attempt()
                return
            except ViewsChanged:
                self.close()
                self._sent = 0
                self._views.fresh()
        raise self._views.restless(self._view.name)

    def _send_kept(self) -> None:
        """Send the kept rows that were not sent by the views as they are."""
        while self._sent < len(self._kept):
            self._send(self._kept[self._sent])
            self._sent += 1

    def _send(self, rows: pa.Table) -> None:
        sender, known = self._ready()
        assert isinstance(known.rows, FeastRows)
        rows = known.rows.fitted(rows)
        for part in chunks(rows, len(known.rows.fields)):
            sender.send(_commands(known.rows, part, known.expiry if self._expire else ""))

    def _ready(self) -> tuple[PortionSender, KnownView]:
        """The sender of the view as the project has it."""
        if self._sender is None or self._known is None:
            self._known = known = self._views.registered(self._view)
            expiry = known.expiry if self._expire else ""
            target = Target(
                time_field=known.rows.fields[0],
                fields=len(known.rows.fields),
                span_ms=int(expiry) if expiry.isdecimal() else None,
                guard=(self._views.key, known.kept.generation),
            )
            self._sender = PortionSender(self._talk, target)
        return self._sender, self._known


def _commands(rows: FeastRows, table: pa.Table, expiry: str) -> Commands:
    """The commands of rows; of several of one entity the newest."""
    import pyarrow as pa

    layout = rows.layout
    names = FeastTable(rows.project, layout.view, tuple((name, _KINDS[dtype]) for name, dtype in layout.keys), ())
    times = micros(table.column(EVENT_TIMESTAMP))
    keys = key_bytes(names, [table.column(name) for name, _ in layout.keys])
    newest = newest_of_each(array_of(keys), times)
    if newest is not None:
        table, times = table.take(newest), times[newest]
        keys = key_bytes(names, [table.column(name) for name, _ in layout.keys])
    newest_us = micros(table.column(NEWEST_EVENT))
    columns = [value_bytes(pa.array(newest_us), _KINDS[INT])]
    exact: list[dict[str, Any] | None] = [None] * table.num_rows
    for name, dtype in layout.features:
        columns.append(_column(table.column(name), name, dtype, exact))
    if rows.inexact:
        columns.append(_messages(noted_losses(times.tolist(), exact)))
    ends_ms = newest_us // 1000 + int(expiry) if expiry.isdecimal() else None
    said = (b"PERSIST",) if expiry == "keep" else ()
    fields = list(zip(rows.fields[1:], columns, strict=True))
    return commands(keys, times, fields, rows.time_field, ends_ms=ends_ms, said=said)


def _column(column: Any, name: str, dtype: str, exact: list[dict[str, Any] | None]) -> Fixed | Headed:
    """The messages of a feature; what Feast's form does not say is noted in `exact`."""
    kind = _KINDS.get(dtype)
    if kind is not None:
        return value_bytes(column, kind, nan_is_null=False)
    element = split_list(dtype)
    kind = None if element is None else _KINDS.get(element)
    if kind is not None and not _holes(column):
        return value_bytes(column, kind + _LIST_OF)
    values = plain_column(column, dtype)
    if may_lose(dtype):
        note_losses(exact, name, dtype, values)
    if dtype == TIMESTAMP and not column.null_count:
        return value_bytes(column, _TIME)
    return _messages([encode_value(value, dtype) for value in values])


def _holes(column: Any) -> bool:
    """Whether there is a null in one of n lists."""
    import pyarrow.compute as pc

    return bool(pc.list_flatten(column).null_count)


def _messages(values: list[bytes]) -> Headed:
    import pyarrow as pa

    return plain(pa.array(values, pa.binary()))
