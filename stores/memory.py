"""An online store in memory, for tests, notebooks and replays that serve themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from headrace.stores.keys import decode_key, encode_key
from headrace.stores.layout import RowLayout, check_readable, check_same, row_layout, same
from headrace.stores.lookups import Ask, Looked
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
from headrace.stores.rows import RowCodec, event_timestamp_of, recoder, row_codec

if TYPE_CHECKING:
    import pyarrow as pa

PLACE = "The store in memory"


class MemoryStore:
    """Rows of this process, kept as the same bytes that other stores keep. Safe to use from several threads.

    >>> store = MemoryStore()
    >>> store.clock() is None, store.views()
    (True, [])
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._layouts: dict[str, RowLayout] = {}
        self._rows: dict[str, dict[bytes, bytes]] = {}
        self._clock: Clock | None = None
        self._writers: dict[str, Writer] = {}
        self._mine: dict[str, Writer] = {}

    def write(self, view: View, rows: pa.Table) -> int:
        layout = row_layout(view)
        written = 0
        with self._lock:
            encoded = list(self._codec(layout, writing=True).encode(rows))
            self._layouts.setdefault(layout.view, layout)
            there = self._rows.setdefault(layout.view, {})
            for key, at, value in encoded:
                old = there.get(key)
                if old is None or event_timestamp_of(old) <= at:
                    there[key] = value
                    written += 1
        return written

    def take_over(self, writer: str, epoch: int) -> Reached | None:
        with self._lock:
            now = taken_over(self._writers.get(writer), writer, epoch, PLACE)
            self._writers[writer] = self._mine[writer] = now
        return now.reached

    def reached(self, writer: str) -> Reached | None:
        with self._lock:
            kept = self._writers.get(writer)
        return None if kept is None else kept.reached

    def forget_writers(self, prefix: str) -> int:
        with self._lock:
            found = [name for name in self._writers if name.startswith(prefix)]
            for name in found:
                del self._writers[name]
            return len(found)

    def migrate_view(self, view: View) -> list[str]:
        layout = row_layout(view)
        with self._lock:
            stored = self._layouts.get(layout.view)
            if stored is None or same(stored, layout):
                return []
            recode = recoder(stored, layout)
            there = self._rows.get(layout.view, {})
            self._rows[layout.view] = {key: recode(value) for key, value in there.items()}
            self._layouts[layout.view] = layout
            return stored.differences(layout)

    def write_portions(self, portions: Sequence[Portion]) -> list[Written]:
        with self._lock:
            return [self._portion(each) for each in portions]

    def _portion(self, portion: Portion) -> Written:
        kept = self._writers.get(portion.writer)
        found = judge(kept, held(self._mine, portion, PLACE), portion.epoch)
        if kept is not None and found == "written":
            for view, rows in portion.rows:
                self.write(view, rows)
            self._writers[portion.writer] = self._mine[portion.writer] = kept.after(portion)
        return found

    def read(self, view: View, keys: Sequence[Key]) -> list[StoredRow | None]:
        with self._lock:
            codec = self._codec(row_layout(view))
            wanted = [codec.key(key) for key in keys]
            there = self._rows.get(codec.layout.view, {})
            found = [there.get(key) for key in wanted]
        return [None if value is None else codec.decode(value) for value in found]

    def look_up(self, asks: Sequence[Ask]) -> Looked:
        found = []
        with self._lock:
            clock = self._clock
            for ask in asks:
                codec, there = self._codec(ask.layout), self._rows.get(ask.layout.view, {})
                found.append((codec.reader(ask.features), [there.get(encode_key(key)) for key in ask.keys]))
        rows = [[None if value is None else read(value) for value in values] for read, values in found]
        return Looked(clock, rows)

    def scan(self, view: View) -> Iterator[tuple[dict[str, Any], StoredRow]]:
        with self._lock:
            codec = self._codec(row_layout(view))
            rows = sorted(self._rows.get(codec.layout.view, {}).items())
        return ((_shown(codec, key), codec.decode(value)) for key, value in rows)

    def delete(self, view: View, keys: Sequence[Key]) -> int:
        with self._lock:
            codec = self._codec(row_layout(view), writing=True)
            wanted = [codec.key(key) for key in keys]
            there = self._rows.get(codec.layout.view, {})
            return sum(there.pop(key, None) is not None for key in wanted)

    def drop(self, name: str) -> None:
        self.forget_writers(filling_prefix(name))
        with self._lock:
            self._layouts.pop(name, None)
            self._rows.pop(name, None)

    def views(self) -> list[str]:
        with self._lock:
            return sorted(self._layouts)

    def set_clock(self, us: int, kind: ClockKind) -> None:
        with self._lock:
            self._clock = later_clock(self._clock, us, kind)

    def clock(self) -> Clock | None:
        return self._clock

    def close(self) -> None:
        """Nothing to release; the rows stay for as long as the object does."""

    def _codec(self, layout: RowLayout, *, writing: bool = False) -> RowCodec:
        stored = self._layouts.get(layout.view)
        if stored is not None:
            check = check_same if writing else check_readable
            check(stored, layout, PLACE, REMEDY.format(view=layout.view))
        return row_codec(layout, stored)


def _shown(codec: RowCodec, key: bytes) -> dict[str, Any]:
    return dict(zip(codec.layout.key_names, decode_key(key), strict=True))
