"""Lookups in Redis without the talking: asks become one request, its answers become rows. Serves threads and asyncio.

    HMGET clock | HMGET or MGET rows ... | HGET generation of the views

The generation comes last: when it is still the one under which the request was made, no view changed before the rows
were read. In Feast's layout all views of an entity lie in one hash, so that one HMGET reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from headrace.stores.feast_reader import FeastReader
from headrace.stores.feast_rows import FeastRows
from headrace.stores.layout import RowLayout
from headrace.stores.lookups import Ask, FoundRow, Looked
from headrace.stores.online import Clock
from headrace.stores.redis_project import ProjectViews, Rows
from headrace.stores.redis_talk import Command

_MOST_CHOICES = 1000
"""Choices of features whose readers are kept."""

Read = Callable[[Sequence[Any]], list[FoundRow | None]]
"""From what Redis answers about entities to their rows."""


@dataclass(slots=True, eq=False)
class _Together:
    """Asks about the same entities whose rows lie in the same keys.

    Attributes:
        keys: in Redis. fields: of each hash; None for strings. readers: place of the ask, first and last field, reader.
    """

    keys: list[bytes]
    fields: tuple[bytes, ...] | None
    readers: list[tuple[int, int, int, Read]]


class RedisLookups:
    """Makes requests for one project.

    Args:
        views: of the project. clock_key: of its clock.
    """

    def __init__(self, views: ProjectViews, clock_key: bytes) -> None:
        self._views = views
        self._first: Command = ("HMGET", clock_key, "us", "kind")
        self._last: Command = ("HGET", views.key, "")
        self._around = packed(self._first), packed(self._last)
        self._readers: dict[tuple[str, tuple[str, ...]], tuple[Rows, FeastReader | Read]] = {}

    def request(self, asks: Sequence[Ask]) -> LookupRequest:
        """One request for all; the views must have been looked at before.

        Raises:
            SchemaMismatchError: rows of a view were made by another definition.
        """
        found: dict[Any, _Together] = {}
        generation = b""
        for place, ask in enumerate(asks):
            known = self._views.checked(ask.layout)
            generation, rows = known.kept.generation, known.rows
            reader = self._reader(ask.layout, rows, ask.features)
            fields: tuple[bytes, ...] = ()
            mark: Any = place
            read: Read
            if isinstance(reader, FeastReader):
                fields, read, mark = reader.fields, reader.read_all, (id(ask.keys), ask.layout.keys)
            else:
                read = reader
            before = found.get(mark)
            if before is None:
                keys, first = rows.plain_keys(ask.keys), 0
                found[mark] = _Together(
                    keys, fields if isinstance(rows, FeastRows) else None, [(place, 0, len(fields), read)]
                )
                continue
            assert before.fields is not None
            first = len(before.fields)
            readers = [*before.readers, (place, first, first + len(fields), read)]
            found[mark] = _Together(before.keys, before.fields + fields, readers)
        return LookupRequest(list(found.values()), len(asks), generation, self._first, self._last, self._around)

    def _reader(self, layout: RowLayout, rows: Rows, features: tuple[str, ...]) -> FeastReader | Read:
        kept = self._readers.get((layout.view, features))
        if kept is not None and kept[0] is rows:
            return kept[1]
        reader: FeastReader | Read
        if isinstance(rows, FeastRows):
            reader = FeastReader(rows, features)
        else:
            some = rows.reader(features)
            reader = lambda values: [None if each is None else some(each) for each in values]  # noqa: E731
        if len(self._readers) >= _MOST_CHOICES:
            self._readers.clear()
        self._readers[layout.view, features] = rows, reader
        return reader


@dataclass(slots=True, eq=False)  # frozen ones take twice as long to make
class LookupRequest:
    """A request on its way: commands that are sent in one round trip.

    Attributes:
        first, last: the commands that ask for clock and generation. around: both as they are sent.
    """

    groups: list[_Together]
    asks: int
    generation: bytes
    first: Command
    last: Command
    around: tuple[bytes, bytes]

    def commands(self) -> list[Command]:
        """One by one, each with one key, as a cluster wants them."""
        out = [self.first]
        for group in self.groups:
            if group.fields is None:
                out += [("GET", key) for key in group.keys]
            else:
                out += [("HMGET", key, *group.fields) for key in group.keys]
        return [*out, self.last]

    def packed(self) -> tuple[bytes, int]:
        """As they are sent to one server, and how many they are."""
        out, count = [self.around[0]], 2
        for group in self.groups:
            if group.fields is None:
                out += [packed(("MGET", *group.keys))] if group.keys else []
                count += bool(group.keys)
            else:
                head, tail = _around(group.fields)
                out += [b"%b%d\r\n%b%b" % (head, len(key), key, tail) for key in group.keys]
                count += len(group.keys)
        out.append(self.around[1])
        return b"".join(out), count

    def looked(self, answers: Sequence[Any]) -> Looked | None:
        """What the answers say; None when the views changed meanwhile: make the request anew."""
        (us, kind), *found, generation = answers
        if self.asks and (generation or b"") != self.generation:
            return None
        rows: list[list[FoundRow | None]] = [[]] * self.asks
        start = 0
        for group in self.groups:
            n = len(group.keys)
            if group.fields is None and n and len(found) > start and isinstance(found[start], list):
                mine, start = found[start], start + 1
            else:
                mine, start = found[start : start + n], start + n
            for place, first, end, read in group.readers:
                if len(group.readers) == 1:
                    rows[place] = read(mine)
                else:
                    rows[place] = read([each[first:end] for each in mine])
        return Looked(None if us is None else Clock(int(us), kind.decode()), rows)


def packed(command: Command) -> bytes:
    """A command as it is sent."""
    parts = [each.encode() if isinstance(each, str) else each for each in command]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in parts])


@lru_cache(maxsize=1000)
def _around(fields: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """What stands before and after the key in the command that reads these fields of a hash."""
    tail = b"\r\n" + b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in fields])
    return b"*%d\r\n$5\r\nHMGET\r\n$" % (2 + len(fields)), tail
