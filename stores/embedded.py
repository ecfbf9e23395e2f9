"""The embedded online store: a folder on this machine that a flow writes while other processes read.

Kept in LMDB, a memory-mapped B-tree: readers never wait for the writer nor it for them, a batch is one transaction, and
kill -9 at any moment leaves the last finished batch. Measurements against SQLite:
docs/decisions/0002-embedded-store.md.

    0x00 "layout" 0x00 view name   ->  layout of its rows and the number that stands for it in keys
    0x00 "clock"                   ->  the clock
    0x00 "writer" 0x00 name        ->  epoch of a writer, its position and clock
    0x01 number key                ->  row (rows.py), for keys of up to 480 bytes
    0x02 number hash(key)          ->  length of the key, key, row, for longer ones: LMDB's keys end at 511 bytes
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.stores.environment import FIRST_MAP_BYTES, Environment, open_environment, release
from headrace.stores.errors import StoreError
from headrace.stores.keys import decode_key, encode_key
from headrace.stores.layout import RowLayout, check_readable, check_same, row_layout, same
from headrace.stores.lookups import Ask, FoundRow, Looked
from headrace.stores.online import (
    REMEDY,
    Clock,
    ClockKind,
    Key,
    Portion,
    Reached,
    StoredRow,
    View,
    Writer,
    Written,
    filling_prefix,
    held,
    judge,
    later_clock,
    taken_over,
)
from headrace.stores.rows import event_timestamp_of, recoder, row_codec

if TYPE_CHECKING:
    import pyarrow as pa

_LAYOUT = b"\x00layout\x00"
_CLOCK = b"\x00clock"
_WRITER = b"\x00writer\x00"
_ROW, _LONG = b"\x01", b"\x02"
_LONGEST = 480
_number = struct.Struct(">I")


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """How a view's rows are kept: the number that opens their keys, and their layout."""

    number: int
    layout: RowLayout


class EmbeddedStore:
    """Rows in a folder; any number of processes read meanwhile, also this one. Several may write, one at a time: each
    waits for the other's batch. Thread-safe.

    Args:
        path: the folder, made when it is not there.
        read_only: for readers: the folder must be there and nothing is changed in it.
        durable: flush every batch to the disk. Without it kill -9 still loses nothing, but a power loss can lose or
            damage what was written since the last `sync()`; fitting for a replay, whose rows can be made again.
        map_bytes: address space taken at first; it grows by itself.

    Raises:
        MissingStoreError: read_only and nothing there.
        CorruptError: what is there is damaged.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        read_only: bool = False,
        durable: bool = True,
        map_bytes: int = FIRST_MAP_BYTES,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._env: Environment | None = open_environment(self.path, not read_only, durable, map_bytes)
        self._known: dict[str, tuple[bytes, RowLayout, _Kept]] = {}
        self._mine: dict[str, Writer] = {}

    def write(self, view: View, rows: pa.Table) -> int:
        layout = row_layout(view)
        return self._writable().run(lambda txn: self._put(txn, layout, rows), write=True)

    def _put(self, txn: Any, layout: RowLayout, rows: pa.Table) -> int:
        kept = self._exactly(txn, layout) or self._number(txn, layout)
        number, written = _number.pack(kept.number), 0
        # Neighbours in the tree share pages: sorted, a batch touches each page once. Rows of one key stay in order.
        encoded = sorted(row_codec(layout, kept.layout).encode(rows), key=itemgetter(0))
        for key, at, value in encoded:
            place, head = _place(number, key)
            old = txn.get(place)
            if old is None or event_timestamp_of(old[len(head) :]) <= at:
                txn.put(place, head + value)
                written += 1
        return written

    def take_over(self, writer: str, epoch: int) -> Reached | None:
        def take(txn: Any) -> Writer:
            now = taken_over(_writer(txn, writer), writer, epoch, f"The online store at {self.path}")
            _set_writer(txn, writer, now)
            return now

        self._mine[writer] = now = self._writable().run(take, write=True)
        return now.reached

    def reached(self, writer: str) -> Reached | None:
        kept = self._environment().run(lambda txn: _writer(txn, writer))
        return None if kept is None else kept.reached

    def forget_writers(self, prefix: str) -> int:
        return self._writable().run(lambda txn: _forget_writers(txn, prefix), write=True)

    def migrate_view(self, view: View) -> list[str]:
        layout = row_layout(view)

        def migrate(txn: Any) -> list[str]:
            data = txn.get(_LAYOUT + layout.view.encode())
            if data is None:
                return []
            kept = _kept(bytes(data))
            if same(kept.layout, layout):
                return []
            recode, number = recoder(kept.layout, layout), _number.pack(kept.number)
            for key in [key for key, _ in _rows(txn, number)]:
                place, head = _place(number, key)
                txn.put(place, head + recode(txn.get(place)[len(head) :]))
            txn.put(_LAYOUT + layout.view.encode(), msgspec.msgpack.encode(_Kept(kept.number, layout)))
            return kept.layout.differences(layout)

        return self._writable().run(migrate, write=True)

    def write_portions(self, portions: Sequence[Portion]) -> list[Written]:
        def put(txn: Any) -> tuple[list[Written], dict[str, Writer]]:
            mine, found = dict(self._mine), []
            for portion in portions:
                kept = _writer(txn, portion.writer)
                told = judge(kept, held(mine, portion, repr(self)), portion.epoch)
                if kept is not None and told == "written":
                    mine[portion.writer] = kept.after(portion)
                    _set_writer(txn, portion.writer, mine[portion.writer])
                    for view, rows in portion.rows:
                        self._put(txn, row_layout(view), rows)
                found.append(told)
            return found, mine

        told, mine = self._writable().run(put, write=True)
        self._mine.update({portion.writer: mine[portion.writer] for portion in portions})
        return told

    def read(self, view: View, keys: Sequence[Key]) -> list[StoredRow | None]:
        layout = row_layout(view)

        def get(txn: Any) -> list[StoredRow | None]:
            kept = self._stored(txn, layout)
            codec = row_codec(layout, kept and kept.layout)
            wanted = [codec.key(key) for key in keys]
            if kept is None:
                return [None] * len(wanted)
            number = _number.pack(kept.number)
            found: list[StoredRow | None] = []
            for key in wanted:
                place, head = _place(number, key)
                value = txn.get(place)
                found.append(None if value is None else codec.decode(value[len(head) :]))
            return found

        return self._environment().run(get)

    def look_up(self, asks: Sequence[Ask]) -> Looked:
        def get(txn: Any) -> Looked:
            return Looked(_clock(txn), [self._looked_up(txn, ask) for ask in asks])

        return self._environment().run(get)

    def _looked_up(self, txn: Any, ask: Ask) -> list[FoundRow | None]:
        kept = self._stored(txn, ask.layout)
        if kept is None:
            return [None] * len(ask.keys)
        read = row_codec(ask.layout, kept.layout).reader(ask.features)
        number, get, found = _number.pack(kept.number), txn.get, list[FoundRow | None]()
        for key in ask.keys:
            place, head = _place(number, encode_key(key))
            value = get(place)
            found.append(None if value is None else read(value[len(head) :] if head else value))
        return found

    def scan(self, view: View) -> Iterator[tuple[dict[str, Any], StoredRow]]:
        layout = row_layout(view)

        def walk(txn: Any) -> Iterator[tuple[dict[str, Any], StoredRow]]:
            kept = self._stored(txn, layout)
            if kept is None:
                return
            codec, number = row_codec(layout, kept.layout), _number.pack(kept.number)
            for key, value in _rows(txn, number):
                yield dict(zip(layout.key_names, decode_key(key), strict=True)), codec.decode(value)

        return self._environment().stream(walk)

    def newest_us(self, view: View) -> int | None:
        """The latest instant that a row of the view is as of, microseconds; None where there is no row. Reads the first
        bytes of every row: half a second for a million."""
        layout = row_layout(view)

        def walk(txn: Any) -> int | None:
            kept = self._stored(txn, layout)
            rows = () if kept is None else _rows(txn, _number.pack(kept.number))
            return max((event_timestamp_of(row) for _, row in rows), default=None)

        return self._environment().run(walk)

    def delete(self, view: View, keys: Sequence[Key]) -> int:
        layout = row_layout(view)
        wanted = [row_codec(layout).key(key) for key in keys]

        def remove(txn: Any) -> int:
            kept = self._exactly(txn, layout)
            if kept is None:
                return 0
            number = _number.pack(kept.number)
            return sum(bool(txn.delete(_place(number, key)[0])) for key in wanted)

        return self._writable().run(remove, write=True)

    def drop(self, name: str) -> None:
        def remove(txn: Any) -> None:
            _forget_writers(txn, filling_prefix(name))
            data = txn.get(_LAYOUT + name.encode())
            if data is None:
                return
            number = _number.pack(_kept(data).number)
            for kind in (_ROW, _LONG):
                with txn.cursor() as cursor:
                    more = cursor.set_range(kind + number)
                    while more and bytes(cursor.key()[:5]) == kind + number:
                        more = cursor.delete()
            txn.delete(_LAYOUT + name.encode())

        self._writable().run(remove, write=True)

    def views(self) -> list[str]:
        return self._environment().run(lambda txn: [kept.layout.view for kept in _all_kept(txn)])

    def set_clock(self, us: int, kind: ClockKind) -> None:
        def put(txn: Any) -> None:
            before = _clock(txn)
            clock = later_clock(before, us, kind)
            if clock != before:  # a transaction that changes nothing costs no flush
                txn.put(_CLOCK, msgspec.msgpack.encode([clock.us, clock.kind]))

        self._writable().run(put, write=True)

    def clock(self) -> Clock | None:
        return self._environment().run(_clock)

    def sync(self) -> None:
        """Flush everything written to the disk; needed only without `durable`, before a checkpoint counts on it."""
        self._writable().sync()

    def close(self) -> None:
        if self._env is not None:
            release(self._env)
            self._env = None

    def __enter__(self) -> EmbeddedStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EmbeddedStore({str(self.path)!r})"

    def _environment(self) -> Environment:
        if self._env is None:
            raise StoreError(f"{self!r} is closed. Open another one.")
        self._env = self._env.of_this_process()
        return self._env

    def _writable(self) -> Environment:
        if self.read_only:
            raise StoreError(f"{self!r} was opened with read_only=True. Open one without it to write.")
        return self._environment()

    def _stored(self, txn: Any, layout: RowLayout) -> _Kept | None:
        """How the store keeps the view, None when it was never written; refuses what a reader of it cannot read."""
        data = txn.get(_LAYOUT + layout.view.encode())
        if data is None:
            return None
        known = self._known.get(layout.view)
        if known is not None and known[1] is layout and known[0] == data:
            return known[2]
        kept = _kept(bytes(data))
        check_readable(kept.layout, layout, f"The online store at {self.path}", REMEDY.format(view=layout.view))
        self._known[layout.view] = (bytes(data), layout, kept)
        return kept

    def _exactly(self, txn: Any, layout: RowLayout) -> _Kept | None:
        """The same for a writer; refuses rows of any other definition."""
        kept = self._stored(txn, layout)
        if kept is not None:
            check_same(kept.layout, layout, f"The online store at {self.path}", REMEDY.format(view=layout.view))
        return kept

    def _number(self, txn: Any, layout: RowLayout) -> _Kept:
        kept = _Kept(1 + max((each.number for each in _all_kept(txn)), default=0), layout)
        txn.put(_LAYOUT + layout.view.encode(), msgspec.msgpack.encode(kept))
        return kept


def _kept(data: bytes) -> _Kept:
    return msgspec.msgpack.decode(data, type=_Kept)


def _all_kept(txn: Any) -> list[_Kept]:
    found = []
    with txn.cursor() as cursor:
        more = cursor.set_range(_LAYOUT)
        while more and bytes(cursor.key()).startswith(_LAYOUT):
            found.append(_kept(bytes(cursor.value())))
            more = cursor.next()
    return found


def _clock(txn: Any) -> Clock | None:
    data = txn.get(_CLOCK)
    return None if data is None else Clock(*msgspec.msgpack.decode(data))


def _writer(txn: Any, name: str) -> Writer | None:
    data = txn.get(_WRITER + name.encode())
    if data is None:
        return None
    epoch, *reached = msgspec.msgpack.decode(data)
    return Writer(epoch, Reached(*reached) if reached else None)


def _forget_writers(txn: Any, prefix: str) -> int:
    found, count = _WRITER + prefix.encode(), 0
    with txn.cursor() as cursor:
        more = cursor.set_range(found)
        while more and bytes(cursor.key()).startswith(found):
            more, count = cursor.delete(), count + 1
    return count


def _set_writer(txn: Any, name: str, writer: Writer) -> None:
    reached = writer.reached
    said = [writer.epoch] if reached is None else [writer.epoch, reached.position, reached.clock_us]
    txn.put(_WRITER + name.encode(), msgspec.msgpack.encode(said))


def _place(number: bytes, key: bytes) -> tuple[bytes, bytes]:
    """LMDB's key of a row, and what stands before the row in the value."""
    if len(key) <= _LONGEST:
        return _ROW + number + key, b""
    return _LONG + number + hashlib.blake2b(key, digest_size=32).digest(), _number.pack(len(key)) + key


def _rows(txn: Any, number: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Key and value of every row of a view, ordered by key; long keys come last."""
    with txn.cursor() as cursor:
        more = cursor.set_range(_ROW + number)
        while more and bytes(cursor.key()[:5]) == _ROW + number:
            yield bytes(cursor.key()[5:]), cursor.value()
            more = cursor.next()
        more = cursor.set_range(_LONG + number)
        while more and bytes(cursor.key()[:5]) == _LONG + number:
            value = cursor.value()
            (length,) = _number.unpack_from(value)
            yield bytes(value[4 : 4 + length]), value[4 + length :]
            more = cursor.next()
