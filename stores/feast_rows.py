"""Rows of a view in the hash that Feast keeps for an entity in Redis, byte for byte as Feast 0.67 writes them.

    key     entity key and project (feast_keys.py); one hash holds every view of the entity
    field   "_ts:" view                  ->  event_timestamp, google.protobuf.Timestamp
            murmur3("view:feature")      ->  the value, feast.types.Value (feast_values.py)
            murmur3("view:newest_event") ->  newest_event as a feature of type Int64, microseconds

Feast's types lose the fractions of a second of an instant, and nulls within lists. A view with features of such types
has one more field, which Feast never asks for:

            "_exact:" view  ->  MessagePack [event_timestamp, {feature: value}] with those of the row that Feast's form
                                does not say exactly; empty when there is none

It counts only with the event_timestamp it names, so a row that Feast wrote later is read as Feast wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.features.dtypes import INT, TIMESTAMP, split_list, split_map
from headrace.stores.errors import StoreError
from headrace.stores.feast_keys import FeastKeys
from headrace.stores.feast_values import (
    decode_value,
    encode_integers,
    encode_value,
    encode_values,
    instants,
    read_timestamp,
    timestamps,
)
from headrace.stores.keys import key_values
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, RowLayout, arrow_schema, conform
from headrace.stores.murmur import murmur3_32
from headrace.stores.online import StoredRow
from headrace.stores.rows import plain_column, plain_value

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MOST_FIELDS = 3500
"""What a script of Redis can hand to one command, less some room."""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list).decode
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """n rows on their way to a server.

    Attributes:
        keys: (n,) keys.
        values: one list of n for each field of the row.
        newest_us: (n,) int64, newest event in microseconds.
    """

    keys: list[bytes]
    values: list[list[bytes]]
    newest_us: npt.NDArray[np.int64]

    def part(self, start: int, stop: int) -> EncodedRows:
        """Rows `start` to `stop`, without the last."""
        return EncodedRows(
            self.keys[start:stop], [each[start:stop] for each in self.values], self.newest_us[start:stop]
        )


class FeastRows:
    """Encoder and decoder of one view's rows in a project; holds no state between calls."""

    def __init__(self, layout: RowLayout, project: str) -> None:
        self.layout, self.project = layout, project
        self.keys = FeastKeys(layout.keys, project)
        self.time_field = b"_ts:" + layout.view.encode()
        self.inexact = [(name, dtype) for name, dtype in layout.features if may_lose(dtype)]
        names = [NEWEST_EVENT, *layout.feature_names]
        hashed = [field_of(layout.view, name) for name in names]
        self.exact_field = b"_exact:" + layout.view.encode()
        exact = [self.exact_field] if self.inexact else []
        self.fields: tuple[bytes, ...] = (self.time_field, *hashed, *exact)
        self._schema: pa.Schema | None = None
        self._check(names, hashed)

    def _check(self, names: list[str], hashed: list[bytes]) -> None:
        if len(names) > MOST_FIELDS:
            raise StoreError(
                f"View '{self.layout.view}' has {len(names)} features; in Redis a view can have {MOST_FIELDS}. "
                "Split it into several views."
            )
        seen: dict[bytes, str] = {}
        for name, field in zip(names, hashed, strict=True):
            if field in seen:
                raise StoreError(
                    f"View '{self.layout.view}': '{seen[field]}' and '{name}' have the same 32 bit hash, by which "
                    "Feast names fields in Redis. Rename one of them."
                )
            seen[field] = name

    def encode(self, rows: pa.Table) -> EncodedRows:
        """The rows as keys and values in the order of `fields`.

        Raises:
            SchemaMismatchError: the rows are not of the layout.
        """
        rows = self.fitted(rows)
        keys = self.keys.encode_columns([rows.column(name) for name, _ in self.layout.keys])
        as_of, newest = instants(rows.column(EVENT_TIMESTAMP)), instants(rows.column(NEWEST_EVENT))
        values = [timestamps(as_of), encode_integers(newest, 0x20)]
        exact: list[dict[str, Any] | None] = [None] * rows.num_rows
        for name, dtype in self.layout.features:
            column = rows.column(name)
            if may_lose(dtype):
                plain = plain_column(column, dtype)
                values.append([encode_value(value, dtype) for value in plain])
                note_losses(exact, name, dtype, plain)
            else:
                values.append(encode_values(column, dtype))
        if self.inexact:
            times = as_of.tolist()
            values.append(noted_losses(times, exact))
        return EncodedRows(keys, values, newest)

    def fitted(self, rows: pa.Table) -> pa.Table:
        """Rows in the layout's columns. Raises SchemaMismatchError when they are not of the layout."""
        return rows if self._fits(rows) else conform(self.layout, rows)

    def _fits(self, rows: pa.Table) -> bool:
        """Whether the rows are of the layout as they are, which small batches tell sooner than `conform`."""
        if self._schema is None:
            self._schema = arrow_schema(self.layout)
        schema = self._schema
        return rows.schema.equals(schema) and not any(
            rows.column(at).null_count for at, field in enumerate(schema) if not field.nullable
        )

    def decode(self, found: Sequence[bytes | None]) -> StoredRow | None:
        """The row from its fields, in the order of `fields`; None when there is no row of this view.

        A row that Feast wrote without `newest_event` is as new as its event_timestamp.
        """
        time = found[0]
        if time is None:
            return None
        as_of, noted = read_timestamp(time), found[1]
        newest = decode_value(noted, INT) if noted else None
        values = {
            name: None if data is None else decode_value(data, dtype)
            for (name, dtype), data in zip(self.layout.features, found[2:], strict=False)
        }
        if self.inexact and found[-1]:
            at, said = _unpack(found[-1])
            if at == as_of:
                for name, dtype in self.inexact:
                    if name in said:
                        values[name] = plain_value(said[name], dtype)
        return StoredRow(values, as_of, as_of if newest is None else newest)

    def key(self, key: Mapping[str, Any]) -> bytes:
        """An entity's key. Raises DataError when it is not of the key columns' types."""
        return self.keys.encode(key_values(self.layout.view, self.layout.keys, key))

    def plain_keys(self, keys: Sequence[tuple[Any, ...]]) -> list[bytes]:
        """The keys of entities given as plain values."""
        return self.keys.encode_many(keys)

    def pattern(self) -> bytes:
        """A pattern for SCAN that every key of the entity matches, and few others."""
        return _escaped(self.keys.prefix) + b"*" + _escaped(self.keys.suffix)

    def key_of(self, key: bytes) -> tuple[Any, ...] | None:
        """The key's values in the entity's order, None when it is another entity's or project's."""
        return self.keys.decode(key)


def exact_values(
    values: Sequence[Any], noted: bytes, as_of: int, inexact: Sequence[tuple[int, str, str]]
) -> tuple[Any, ...]:
    """Values with those in place that Feast's form does not say exactly.

    Args:
        noted: of the field `_exact:`. as_of: of the row. inexact: place, name and type of what it may hold.
    """
    at, said = _unpack(noted)
    out = list(values)
    if at == as_of:
        for place, name, dtype in inexact:
            if name in said:
                out[place] = plain_value(said[name], dtype)
    return tuple(out)


def field_of(view: str, feature: str) -> bytes:
    """Name of a feature's field in the hash."""
    return murmur3_32(f"{view}:{feature}".encode()).to_bytes(4, "little")


def may_lose(dtype: str) -> bool:
    """Whether Feast's form of a type does not say every value."""
    return TIMESTAMP in dtype or "list<" in dtype


def note_losses(exact: list[dict[str, Any] | None], name: str, dtype: str, plain: list[Any]) -> None:
    """Put into `exact` the values of a column that Feast's form does not say."""
    for at, value in enumerate(plain):
        if value is not None and _loses(value, dtype):
            said = exact[at]
            if said is None:
                said = exact[at] = {}
            said[name] = value


def noted_losses(times: Sequence[int], exact: Sequence[dict[str, Any] | None]) -> list[bytes]:
    """The field `_exact:` of n rows."""
    return [b"" if said is None else _pack([at, said]) for at, said in zip(times, exact, strict=True)]


def _loses(value: Any, dtype: str) -> bool:
    if dtype == TIMESTAMP:
        return bool(value % _SECOND)
    element = split_list(dtype)
    if element is not None:
        return any(each is None or _loses(each, element) for each in value)
    pair = split_map(dtype)
    return pair is not None and any(
        _loses(key, pair[0]) or (each is not None and _loses(each, pair[1])) for key, each in value
    )


def _escaped(data: bytes) -> bytes:
    for sign in (b"\\", b"*", b"?", b"[", b"]"):
        data = data.replace(sign, b"\\" + sign)
    return data
