"""Rows of a view as one Redis string each, under a key that people can read: smaller than Feast's hash, for ours only.

    headrace:PROJECT:VIEW:KEY[:KEY...]   ->   row (rows.py): 8 bytes event_timestamp, 1 byte number of the layout among
                                              those that the view has had, MessagePack

Key values stand in the entity's order, as text; bytes, and signs that mean something in keys, are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

from headrace.features.dtypes import BYTES, INT
from headrace.stores.feast_rows import EncodedRows
from headrace.stores.feast_values import instants
from headrace.stores.keys import decode_key, key_values
from headrace.stores.layout import NEWEST_EVENT, RowLayout, conform
from headrace.stores.rows import recoder, row_codec

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.stores.lookups import FoundRow, Keys
    from headrace.stores.online import StoredRow

_SIGNS = re.compile(r"[%:{}*?\[\]\\\s\x00-\x1f\x7f]")


class PackedRows:
    """Encoder and decoder of one view's rows in a project.

    Args:
        layout: as asked for. stored: as rows are written, the same but for the order of the features. past: layouts
        that rows may still have, oldest first.
    """

    fields: tuple[bytes, ...] = (b"",)

    def __init__(
        self, layout: RowLayout, project: str, stored: RowLayout | None = None, past: Sequence[RowLayout] = ()
    ) -> None:
        self.layout = layout
        self._codec = row_codec(layout, stored)
        self._recoders = [recoder(each, stored or layout) for each in past]
        self._number = bytes([len(past)])
        self._head = f"headrace:{project}:{layout.view}:"
        self._dtypes = [dtype for _, dtype in layout.keys]

    def encode(self, rows: pa.Table) -> EncodedRows:
        """The rows as keys and one value each.

        Raises:
            SchemaMismatchError: the rows are not of the layout.
        """
        rows = conform(self.layout, rows)
        keys, values = [], []
        for key, _, value in self._codec.encode(rows):
            keys.append(self._key(decode_key(key)))
            values.append(value[:8] + self._number + value[8:])
        return EncodedRows(keys, [values], instants(rows.column(NEWEST_EVENT)))

    def decode(self, found: Sequence[bytes | None]) -> StoredRow | None:
        """The row from its value; None when there is none."""
        (value,) = found
        if value is None:
            return None
        number, plain = value[8], value[:8] + value[9:]
        if number < len(self._recoders):
            plain = self._recoders[number](plain)
        return self._codec.decode(plain)

    def reader(self, features: tuple[str, ...]) -> Callable[[bytes], FoundRow]:
        """The function that decodes some features of a row's value."""
        read, recoders = self._codec.reader(features), self._recoders

        def numbered(value: bytes) -> FoundRow:
            number, plain = value[8], value[:8] + value[9:]
            return read(recoders[number](plain) if number < len(recoders) else plain)

        return numbered

    def key(self, key: Mapping[str, Any]) -> bytes:
        """An entity's key. Raises DataError when it is not of the key columns' types."""
        return self._key(key_values(self.layout.view, self.layout.keys, key))

    def plain_keys(self, keys: Keys) -> list[bytes]:
        """The keys of entities given as plain values."""
        return [self._key(values) for values in keys]

    def _key(self, values: Sequence[Any]) -> bytes:
        return (self._head + ":".join(map(_shown, values))).encode()

    def pattern(self) -> bytes:
        """A pattern for SCAN that every key of the view matches."""
        return self._head.encode() + b"*"

    def key_of(self, key: bytes) -> tuple[Any, ...] | None:
        """The key's values in the entity's order."""
        parts = key.decode().removeprefix(self._head).split(":")
        if len(parts) != len(self._dtypes):
            return None
        return tuple(_value(part, dtype) for part, dtype in zip(parts, self._dtypes, strict=True))


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return quote_from_bytes(value, safe="")
    text = str(value)
    return _SIGNS.sub(lambda found: f"%{ord(found.group()):02X}", text) if _SIGNS.search(text) else text


def _value(text: str, dtype: str) -> Any:
    if dtype == INT:
        return int(text)
    return unquote_to_bytes(text) if dtype == BYTES else unquote(text)
