"""The Redis online store: rows of many flows for many readers, in Feast's own layout or packed.

    store = RedisStore("redis://localhost:6379/0", project="rides")

Written by scripts that run inside Redis (redis_scripts.py): a row is compared and written in one step, and only for the
run of a writer that may write. Reads are one round trip. What lies in Redis: feast_rows.py, packed_rows.py,
redis_views.py, redis_scripts.py; docs/online-stores.md tells it to users.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace.features.errors import DataError
from headrace.features.views import definition
from headrace.stores import redis_scripts as scripts
from headrace.stores.errors import StoreError
from headrace.stores.feast_rows import EncodedRows, FeastRows
from headrace.stores.filling import Filling, Writing
from headrace.stores.keys import encode_key
from headrace.stores.layout import row_layout, stored_view
from headrace.stores.lookups import Ask, Looked
from headrace.stores.online import (
    Clock,
    ClockKind,
    Key,
    Portion,
    Reached,
    StoredRow,
    View,
    Written,
    fenced,
    filling_prefix,
    not_held,
)
from headrace.stores.redis_lookups import RedisLookups
from headrace.stores.redis_project import TRIES, KnownView, ProjectViews, Rows, found_keys
from headrace.stores.redis_talk import SCAN_KEYS, Command, Talk, call
from headrace.stores.redis_urls import RedisAddress, redis_address

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

CHUNK_ROWS = 256
"""Rows of one script: Redis does nothing else for the millisecond or two that it takes."""

_PROJECT = re.compile(r"^[A-Za-z0-9_.-]+$")


@dataclass
class _Mine:
    """What this object knows of a writer that it took over."""

    epoch: int
    sequence: int
    acknowledged: int
    clock_us: int | None


class RedisStore:
    """Rows on a Redis server, a cluster, or a master behind Sentinel. Thread-safe; a forked process may go on using it.

    Args:
        url: redis://, rediss:// (TLS), unix://, redis+sentinel:// or redis+cluster://, with user and password where the
            server wants them (redis_urls.py has the forms), or such a URL taken apart. They are never shown.
        project: whose features; Feast's project of that name reads them. Letters, digits, `_`, `-` and `.`.
        layout: "feast": one hash per entity as Feast 0.67 writes it. "packed": one string per view and entity.
        expire: whether rows go once the ttl of every view of the entity has passed since the newest event. Turn it off
            for a replay, whose instants are long past.
        timeout_s: for connecting and for each answer.
        connections: the most at a time; a thread that needs one more waits.

    Raises:
        StoreError: the URL is of no known form, or the package redis is missing.
    """

    def __init__(
        self,
        url: str | RedisAddress,
        *,
        project: str = "headrace",
        layout: Literal["feast", "packed"] = "feast",
        expire: bool = True,
        timeout_s: float = 5.0,
        connections: int = 32,
    ) -> None:
        if not _PROJECT.match(project):
            raise StoreError(f"RedisStore: project is {project!r}, expected letters, digits, '_', '-' and '.'.")
        if layout not in ("feast", "packed"):
            raise StoreError(f"RedisStore: layout is {layout!r}, expected 'feast' or 'packed'.")
        self.address = redis_address(url) if isinstance(url, str) else url
        self.project, self.layout, self.expire = project, layout, expire
        self._talk = Talk(self.address, timeout_s, connections)
        self._place = f"The Redis store at {self.address.shown} (project '{project}')"
        self._views = ProjectViews(self._talk, project, layout, self._place)
        self.clock_key = f"{{headrace:{project}}}:clock".encode()
        self._lookups = RedisLookups(self._views, self.clock_key)
        self._lock = threading.RLock()
        self._mine: dict[str, _Mine] = {}
        self._owner = os.urandom(8).hex()

    # Rows

    def write(self, view: View, rows: pa.Table) -> int:
        found = stored_view(view)

        def attempt() -> int | None:
            known = self._views.registered(found)
            commands = self._writing(known, known.rows.encode(rows), None)
            answers = self._talk.ask(commands, together=True)
            return None if scripts.CHANGED in answers else sum(answers)

        return self._until_unchanged(attempt)

    def filling(self, view: View) -> Filling:
        """Many rows of a view, portion by portion and several portions at a time: a reader may see a batch half."""
        from headrace.stores.redis_filling import RedisFilling

        if self.layout == "feast":
            return RedisFilling(self._talk, self._views, stored_view(view), self.expire)
        return Writing(self, view)

    def read(self, view: View, keys: Sequence[Key]) -> list[StoredRow | None]:
        layout = row_layout(view)

        def attempt() -> list[StoredRow | None] | None:
            known = self._views.checked(layout)
            rows = known.rows
            wanted = [rows.key(key) for key in keys]
            if not wanted:
                return []
            commands = [("HGET", self._views.key, ""), *_reading(rows, wanted)]
            generation, *found = self._talk.ask_again(commands, together=len(wanted) > 1)
            if (generation or b"") != known.kept.generation:
                return None
            return [rows.decode(each) for each in found]

        return self._until_unchanged(attempt)

    def look_up(self, asks: Sequence[Ask]) -> Looked:
        def attempt() -> Looked | None:
            if not self._views.looked_at:
                self._views.fresh()
            request = self._lookups.request(asks)
            if self._talk.cluster:
                return request.looked(self._talk.ask_again(request.commands()))
            return request.looked(self._talk.exchange(*request.packed()))

        return self._until_unchanged(attempt)

    def reading_views(self) -> ProjectViews:
        """The project's views for another reader of this store, which looks at them by itself (`ProjectViews.take`)."""
        return ProjectViews(self._talk, self.project, self.layout, self._place)

    def scan(self, view: View) -> Iterator[tuple[dict[str, Any], StoredRow]]:
        """Every entity's key and row, ordered by the key's bytes. Rows written meanwhile may be seen or not.

        It goes through all keys of the database.
        """
        layout = row_layout(view)
        self._views.fresh()
        return self._scanned(self._views.checked(layout).rows, layout.key_names)

    def _scanned(self, rows: Rows, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], StoredRow]]:
        keys = sorted(found_keys(self._talk, rows), key=lambda each: encode_key(each[1]))
        for start in range(0, len(keys), SCAN_KEYS):
            some = keys[start : start + SCAN_KEYS]
            found = self._talk.ask_again(_reading(rows, [key for key, _ in some]))
            for (_, values), data in zip(some, found, strict=True):
                row = rows.decode(data)
                if row is not None:
                    yield dict(zip(names, values, strict=True)), row

    def delete(self, view: View, keys: Sequence[Key]) -> int:
        layout = row_layout(view)
        self._views.fresh()
        rows = self._views.exactly(layout).rows
        return self._delete(rows, [rows.key(key) for key in keys])

    def drop(self, name: str) -> None:
        self.forget_writers(filling_prefix(name))
        kept = self._views.fresh().views.get(name)
        if kept is None:
            return
        rows = self._views.rows(kept.layout, kept)
        keys = [key for key, _ in found_keys(self._talk, rows)]
        for start in range(0, len(keys), SCAN_KEYS):
            self._delete(rows, keys[start : start + SCAN_KEYS])
        self._views.forget(name)

    def _delete(self, rows: Rows, keys: Sequence[bytes]) -> int:
        if not isinstance(rows, FeastRows):
            return sum(self._talk.ask([("DEL", key) for key in keys], together=True))
        first: list[Command] = [("HDEL", key, rows.time_field) for key in keys]
        rest: list[Command] = [("HDEL", key, *rows.fields[1:]) for key in keys]
        return sum(self._talk.ask([*first, *rest], together=True)[: len(keys)])

    def views(self) -> list[str]:
        return sorted(self._views.fresh().views)

    def migrate_view(self, view: View) -> list[str]:
        return self._views.migrate(definition(view))

    # Writers

    def take_over(self, writer: str, epoch: int) -> Reached | None:
        with self._lock:
            before = self._mine.get(writer)
            said = [epoch, self._owner, 0 if before is None else before.sequence]
            (answer,) = self._talk.ask([call(scripts.TAKE_OVER, [self._writer_key(writer)], said)])
            if len(answer) == 1:
                raise fenced(self._place, writer, int(answer[0]), epoch)
            _, sequence, position, clock = answer
            reached = Reached(int(position), int(clock)) if position else None
            clock_us = None if reached is None else reached.clock_us
            self._mine[writer] = _Mine(epoch, int(sequence), int(sequence), clock_us)
            return reached

    def reached(self, writer: str) -> Reached | None:
        ((position, clock),) = self._talk.ask_again([("HMGET", self._writer_key(writer), "position", "clock")])
        return Reached(int(position), int(clock)) if position else None

    def forget_writers(self, prefix: str) -> int:
        beginning = self._writer_key(prefix)
        keys = [key for key in self._talk.keys(self._writer_key("*")) if key.startswith(beginning)]
        return sum(self._talk.ask([("DEL", key) for key in keys]))

    def write_portions(self, portions: Sequence[Portion]) -> list[Written]:
        with self._lock:
            told: dict[int, Written] = {}
            for at, portion in enumerate(portions):
                mine = self._mine.get(portion.writer)
                if mine is None or mine.epoch < portion.epoch:
                    raise not_held(self._place, portion)
                if mine.epoch > portion.epoch:
                    told[at] = "fenced"

            def attempt() -> bool | None:
                waiting = [at for at in range(len(portions)) if at not in told]
                behind: set[str] = set()
                for at, answer in zip(waiting, self._send([portions[at] for at in waiting]), strict=True):
                    # What follows one that is sent again is sent again too: the last one's position stays.
                    if answer is None or portions[at].writer in behind:
                        behind.add(portions[at].writer)
                    else:
                        told[at] = answer
                return None if behind else True

            self._until_unchanged(attempt)
            return [told[at] for at in range(len(portions))]

    def _send(self, portions: Sequence[Portion]) -> list[Written | None]:
        """What became of each portion; None where the views had changed."""
        blocks: list[list[Command]] = []
        encoded = self._encoded(portions)
        for portion in portions:
            mine = self._mine[portion.writer]
            # The number tells a portion that was delayed on its way from the ones that came after it.
            mine.sequence += 1
            mine.clock_us = portion.clock_us if mine.clock_us is None else max(mine.clock_us, portion.clock_us)
            generation, rows = b"", []
            for _ in portion.rows:
                known, its = next(encoded)
                generation = known.kept.generation
                rows += self._writing(known, its, (portion.writer, mine))
            said = [
                generation,
                mine.epoch,
                self._owner,
                mine.sequence,
                mine.acknowledged,
                portion.position,
                mine.clock_us,
            ]
            gate = call(scripts.GATE, [self._views.key, self._writer_key(portion.writer)], said)
            blocks.append([gate, *rows])
        answers = self._gated(blocks) if self._talk.cluster else iter(self._talk.ask(list(chain(*blocks))))
        out: list[Written | None] = []
        for portion, block in zip(portions, blocks, strict=True):
            gate, *written = [next(answers) for _ in block]
            verdict = _verdict(gate.decode(), written)
            if verdict == "written":
                mine = self._mine[portion.writer]
                mine.acknowledged = mine.sequence
            out.append(verdict)
        return out

    def _encoded(self, portions: Sequence[Portion]) -> Iterator[tuple[KnownView, EncodedRows]]:
        """View and rows of every table of the portions, in order. Tables of one view are encoded at once: a small one
        costs nearly as much as a large one."""
        import pyarrow as pa

        tables = [(definition(view), table) for portion in portions for view, table in portion.rows]
        alike: dict[Any, list[int]] = {}
        for at, (view, table) in enumerate(tables):
            alike.setdefault((id(view), table.schema), []).append(at)
        if len(alike) > 1:  # a view that is not registered yet changes what is known of the others
            for view in {view.name: view for view, _ in tables}.values():
                self._views.registered(view)
        found: dict[int, tuple[KnownView, EncodedRows]] = {}
        for places in alike.values():
            known = self._views.registered(tables[places[0]][0])
            its = [tables[at][1] for at in places]
            whole = known.rows.encode(its[0] if len(its) == 1 else pa.concat_tables(its))
            start = 0
            for at, table in zip(places, its, strict=True):
                found[at] = known, whole.part(start, start + table.num_rows)
                start += table.num_rows
        return iter([found[at] for at in range(len(tables))])

    def _gated(self, blocks: Sequence[Sequence[Command]]) -> Iterator[Any]:
        """In a cluster: first every gate, then the rows of the writers that it let pass."""
        gates = self._talk.ask([gate for gate, *_ in blocks])
        passing = [gate == b"written" for gate in gates]
        rows = chain.from_iterable(block[1:] for block, open_ in zip(blocks, passing, strict=True) if open_)
        answers = iter(self._talk.ask(list(rows)))
        for gate, block, open_ in zip(gates, blocks, passing, strict=True):
            yield gate
            yield from ((next(answers) for _ in block[1:]) if open_ else (0 for _ in block[1:]))

    # Clock

    def set_clock(self, us: int, kind: ClockKind) -> None:
        if kind not in ("wall", "stream"):
            raise DataError(f"set_clock: kind is {kind!r}, expected 'wall' or 'stream'.")
        self._talk.ask([call(scripts.CLOCK, [self.clock_key], [us, kind])])

    def clock(self) -> Clock | None:
        ((us, kind),) = self._talk.ask_again([("HMGET", self.clock_key, "us", "kind")])
        return None if us is None else Clock(int(us), kind.decode())

    def close(self) -> None:
        self._talk.close()

    def __enter__(self) -> RedisStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RedisStore({self.address.shown!r}, project={self.project!r}, layout={self.layout!r})"

    # Commands

    def _writer_key(self, writer: str) -> bytes:
        return f"{{headrace:{self.project}}}:writer:{writer}".encode()

    def _writing(self, known: KnownView, rows: EncodedRows, by: tuple[str, _Mine] | None) -> list[Command]:
        """The commands that write rows, for a writer or for none."""
        expiry = known.expiry if self.expire else ""
        columns: list[Sequence[Any]] = list(rows.values)
        if expiry.isdecimal():
            columns.append((rows.newest_us // 1000).tolist())
        stride, flat = len(columns), list(chain.from_iterable(zip(*columns, strict=True)))
        writer = self._views.key if by is None else self._writer_key(by[0])
        who = ["", "", ""] if by is None else [by[1].epoch, self._owner, by[1].sequence]
        head, size = [self._views.key, writer], CHUNK_ROWS
        script = scripts.HASHES if self.layout == "feast" else scripts.STRINGS
        if self._talk.cluster:
            head, size = [], 1
            script = scripts.HASHES_OF_CLUSTER if self.layout == "feast" else scripts.STRINGS_OF_CLUSTER
        said = [known.kept.generation, *who, expiry, len(known.rows.fields), *known.rows.fields]
        return [
            call(
                script,
                head + rows.keys[start : start + size],
                [*said, *flat[start * stride : (start + size) * stride]],
            )
            for start in range(0, len(rows.keys), size)
        ]

    def _until_unchanged(self, attempt: Callable[[], T | None]) -> T:
        """What `attempt` gives, called again with fresh views while these change under it (then it gives None)."""
        for _ in range(TRIES):
            found = attempt()
            if found is not None:
                return found
            self._views.fresh()
        raise self._views.restless("one of them")


def _reading(rows: Rows, keys: Sequence[bytes]) -> list[Command]:
    if isinstance(rows, FeastRows):
        return [("HMGET", key, *rows.fields) for key in keys]
    return [("MGET", key) for key in keys]


def _verdict(gate: str, answers: Sequence[int]) -> Written | None:
    """What became of a portion, from the gate's answer and those to its rows; None: the views had changed."""
    if gate == "changed" or (gate == "written" and scripts.CHANGED in answers):
        return None
    if gate == "lost" or scripts.LOST in answers:
        return "lost"
    return "fenced" if gate == "fenced" or scripts.FENCED in answers else "written"
