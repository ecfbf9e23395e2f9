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
from headrace.features.views import ViewDefinition, definition
from headrace.stores import redis_scripts as scripts
from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.feast_rows import EncodedRows, FeastRows, feast_rows
from headrace.stores.keys import encode_key
from headrace.stores.layout import RowLayout, row_layout
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
    not_held,
)
from headrace.stores.packed_rows import PackedRows, packed_rows
from headrace.stores.redis_urls import connect, redis_address, speaking_to
from headrace.stores.redis_views import KeptViews, encode_kept, kept_views, new_generation

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
Rows = FeastRows | PackedRows
Command = tuple[Any, ...]

CHUNK_ROWS = 256
"""Rows of one script: Redis does nothing else for the millisecond or two that it takes."""
SCAN_ROWS = 1000
_TRIES = 5
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
            server wants them (redis_urls.py has the forms). They are never shown.
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
        url: str,
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
        self.address = redis_address(url)
        self.project, self.layout, self.expire = project, layout, expire
        self._client = connect(self.address, timeout_s, connections)
        self._cluster = self.address.kind == "cluster"
        self._place = f"The Redis store at {self.address.shown} (project '{project}')"
        self._views_key = f"{{headrace:{project}}}:views".encode()
        self._clock_key = f"{{headrace:{project}}}:clock".encode()
        self._kept: KeptViews | None = None
        self._lock = threading.RLock()
        self._mine: dict[str, _Mine] = {}
        self._said: set[str] = set()
        self._owner = os.urandom(8).hex()
        self._closed = False

    # Rows

    def write(self, view: View, rows: pa.Table) -> int:
        found = definition(view)
        layout = row_layout(found)

        def attempt() -> int | None:
            kept = self._registered(found, layout)
            encoded = self._rows(layout, kept).encode(rows)
            commands = self._writing(kept, layout, encoded, None)
            answers = self._pipeline(commands, together=True)
            return None if scripts.CHANGED in answers else sum(answers)

        return self._until_unchanged(attempt)

    def read(self, view: View, keys: Sequence[Key]) -> list[StoredRow | None]:
        layout = row_layout(view)

        def attempt() -> list[StoredRow | None] | None:
            kept = self._known()
            kept.check(layout, self.layout, self._place)
            rows = self._rows(layout, kept)
            wanted = [rows.key(key) for key in keys]
            if not wanted:
                return []
            commands = [("HGET", self._views_key, ""), *self._reading(rows, wanted)]
            generation, *found = self._again(lambda: self._pipeline(commands, together=len(wanted) > 1))
            if (generation or b"") != kept.generation:
                return None
            return [rows.decode(each) for each in found]

        return self._until_unchanged(attempt)

    def scan(self, view: View) -> Iterator[tuple[dict[str, Any], StoredRow]]:
        """Every entity's key and row, ordered by the key's bytes. Rows written meanwhile may be seen or not.

        It goes through all keys of the database.
        """
        layout = row_layout(view)
        kept = self._fresh()
        kept.check(layout, self.layout, self._place)
        rows = self._rows(layout, kept)
        return self._scanned(rows, layout)

    def _scanned(self, rows: Rows, layout: RowLayout) -> Iterator[tuple[dict[str, Any], StoredRow]]:
        keys = sorted(self._keys(rows), key=lambda each: encode_key(each[1]))
        for start in range(0, len(keys), SCAN_ROWS):
            some = keys[start : start + SCAN_ROWS]
            found = self._pipeline(self._reading(rows, [key for key, _ in some]))
            for (_, values), data in zip(some, found, strict=True):
                row = rows.decode(data)
                if row is not None:
                    yield dict(zip(layout.key_names, values, strict=True)), row

    def delete(self, view: View, keys: Sequence[Key]) -> int:
        layout = row_layout(view)
        kept = self._fresh()
        kept.check(layout, self.layout, self._place)
        rows = self._rows(layout, kept)
        return self._delete(rows, [rows.key(key) for key in keys])

    def drop(self, name: str) -> None:
        kept = self._fresh().views.get(name)
        if kept is None:
            return
        rows: Rows = (
            feast_rows(kept.layout, self.project) if kept.form == "feast" else packed_rows(kept.layout, self.project)
        )
        keys = [key for key, _ in self._keys(rows)]
        for start in range(0, len(keys), SCAN_ROWS):
            self._delete(rows, keys[start : start + SCAN_ROWS])
        self._pipeline(
            [
                ("HDEL", self._views_key, name),
                ("HSET", self._views_key, "", new_generation()),
            ],
            together=True,
        )
        self._kept = None

    def views(self) -> list[str]:
        return sorted(self._fresh().views)

    # Writers

    def take_over(self, writer: str, epoch: int) -> Reached | None:
        with self._lock:
            before = self._mine.get(writer)
            least = 0 if before is None else before.sequence
            (answer,) = self._pipeline(
                [self._call(scripts.TAKE_OVER, [self._writer_key(writer)], [epoch, self._owner, least])]
            )
            found = int(answer[0])
            if len(answer) == 1:
                raise fenced(self._place, writer, found, epoch)
            _, sequence, position, clock = answer
            reached = Reached(int(position), int(clock)) if position else None
            clock_us = None if reached is None else reached.clock_us
            self._mine[writer] = _Mine(epoch, int(sequence), int(sequence), clock_us)
            return reached

    def write_portions(self, portions: Sequence[Portion]) -> list[Written]:
        with self._lock:
            told: dict[int, Written] = {}
            for at, portion in enumerate(portions):
                if self._held(portion).epoch > portion.epoch:
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
        commands: list[Command] = []
        counts: list[int] = []
        for portion in portions:
            mine = self._mine[portion.writer]
            # The number tells a portion that was delayed on its way from the ones that came after it.
            mine.sequence += 1
            work = []
            for view, table in portion.rows:
                found = definition(view)
                layout = row_layout(found)
                kept = self._registered(found, layout)
                work += self._writing(kept, layout, self._rows(layout, kept).encode(table), (portion.writer, mine))
            clock = portion.clock_us if mine.clock_us is None else max(mine.clock_us, portion.clock_us)
            mine.clock_us = clock
            generation = self._known().generation if portion.rows else b""
            said = [generation, mine.epoch, self._owner, mine.sequence, mine.acknowledged, portion.position, clock]
            commands.append(self._call(scripts.GATE, [self._views_key, self._writer_key(portion.writer)], said))
            commands += work
            counts.append(len(work))
        answers = self._gated(commands, counts) if self._cluster else self._pipeline(commands)
        out: list[Written | None] = []
        at = 0
        for portion, count in zip(portions, counts, strict=True):
            verdict = _verdict(answers[at].decode(), answers[at + 1 : at + 1 + count])
            if verdict == "written":
                self._mine[portion.writer].acknowledged = self._mine[portion.writer].sequence
            out.append(verdict)
            at += 1 + count
        return out

    def _gated(self, commands: list[Command], counts: Sequence[int]) -> list[Any]:
        """In a cluster: first every gate, then the rows of the writers that it let pass."""
        starts = [sum(counts[:at]) + at for at in range(len(counts))]
        gates = self._pipeline([commands[start] for start in starts])
        answers: list[Any] = [0] * len(commands)
        passing: list[int] = []
        for start, count, gate in zip(starts, counts, gates, strict=True):
            answers[start] = gate
            if gate == b"written":
                passing += range(start + 1, start + 1 + count)
        for at, answer in zip(passing, self._pipeline([commands[at] for at in passing]), strict=True):
            answers[at] = answer
        return answers

    def _held(self, portion: Portion) -> _Mine:
        mine = self._mine.get(portion.writer)
        if mine is None or mine.epoch < portion.epoch:
            raise not_held(self._place, portion)
        return mine

    # Clock

    def set_clock(self, us: int, kind: ClockKind) -> None:
        if kind not in ("wall", "stream"):
            raise DataError(f"set_clock: kind is {kind!r}, expected 'wall' or 'stream'.")
        self._pipeline([self._call(scripts.CLOCK, [self._clock_key], [us, kind])])

    def clock(self) -> Clock | None:
        ((us, kind),) = self._again(lambda: self._pipeline([("HMGET", self._clock_key, "us", "kind")]))
        return None if us is None else Clock(int(us), kind.decode())

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def __enter__(self) -> RedisStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RedisStore({self.address.shown!r}, project={self.project!r}, layout={self.layout!r})"

    # Views

    def _fresh(self) -> KeptViews:
        (data,) = self._again(lambda: self._pipeline([("HGETALL", self._views_key)]))
        found = self._kept = kept_views(data)
        return found

    def _known(self) -> KeptViews:
        return self._kept or self._fresh()

    def _registered(self, view: ViewDefinition, layout: RowLayout) -> KeptViews:
        """The views of the project with this one among them, under its ttl."""
        for _ in range(_TRIES):
            known = self._known()
            kept = known.check(layout, self.layout, self._place)
            # Two programs with two ttls of one view: whoever began last has its way.
            if kept is not None and (kept.ttl_us == view.ttl_us or view.name in self._said):
                return known
            made, generation = known.with_view(view, layout, self.layout), new_generation()
            said = [known.generation, generation, layout.view, encode_kept(made)]
            if self._pipeline([self._call(scripts.REGISTER, [self._views_key], said)]) != [0]:
                self._said.add(view.name)
            self._fresh()
        raise StoreError(
            f"{self._place} is given other views all the time. Do two programs drop and write '{view.name}'?"
        )

    def _rows(self, layout: RowLayout, kept: KeptViews) -> Rows:
        if self.layout == "feast":
            return feast_rows(layout, self.project)
        stored = kept.views.get(layout.view)
        return packed_rows(layout, self.project, stored and stored.layout)

    # Commands

    def _writer_key(self, writer: str) -> bytes:
        return f"{{headrace:{self.project}}}:writer:{writer}".encode()

    def _reading(self, rows: Rows, keys: Sequence[bytes]) -> list[Command]:
        if isinstance(rows, FeastRows):
            return [("HMGET", key, *rows.fields) for key in keys]
        return [("MGET", key) for key in keys]

    def _writing(
        self, kept: KeptViews, layout: RowLayout, rows: EncodedRows, by: tuple[str, _Mine] | None
    ) -> list[Command]:
        """The commands that write rows, for a writer or for none."""
        if not rows.keys:
            return []
        expiry = kept.expiry(layout, self.layout) if self.expire else ""
        columns: list[Sequence[Any]] = list(rows.values)
        if expiry.isdecimal():
            columns.append((rows.newest_us // 1000).tolist())
        stride, fields = len(columns), feast_rows(layout, self.project).fields if self.layout == "feast" else (b"",)
        flat = list(chain.from_iterable(zip(*columns, strict=True)))
        writer = self._views_key if by is None else self._writer_key(by[0])
        who = ["", "", ""] if by is None else [by[1].epoch, self._owner, by[1].sequence]
        said = [kept.generation, *who, expiry, len(fields), *fields]
        if self._cluster:
            script = scripts.HASHES_OF_CLUSTER if self.layout == "feast" else scripts.STRINGS_OF_CLUSTER
            return [
                self._call(script, [key], [*said, *flat[at * stride : (at + 1) * stride]])
                for at, key in enumerate(rows.keys)
            ]
        script = scripts.HASHES if self.layout == "feast" else scripts.STRINGS
        head = [self._views_key, writer]
        return [
            self._call(
                script,
                head + rows.keys[start : start + CHUNK_ROWS],
                [*said, *flat[start * stride : (start + CHUNK_ROWS) * stride]],
            )
            for start in range(0, len(rows.keys), CHUNK_ROWS)
        ]

    def _call(self, script: scripts.Script, keys: Sequence[bytes], arguments: Sequence[Any]) -> Command:
        return ("EVALSHA", script.sha, len(keys), *keys, *arguments)

    def _keys(self, rows: Rows) -> list[tuple[bytes, tuple[Any, ...]]]:
        """Every key that may hold a row of the view, with its values."""
        with speaking_to(self.address):
            found = set(self._client.scan_iter(match=rows.pattern(), count=SCAN_ROWS))
        return [(key, values) for key in found if (values := rows.key_of(key)) is not None]

    def _delete(self, rows: Rows, keys: Sequence[bytes]) -> int:
        if isinstance(rows, FeastRows):
            first = [("HDEL", key, rows.time_field) for key in keys]
            rest = [("HDEL", key, *rows.fields[1:]) for key in keys]
            return sum(self._pipeline([*first, *rest], together=True)[: len(keys)]) if keys else 0
        return sum(self._pipeline([("DEL", key) for key in keys], together=True)) if keys else 0

    # Speaking

    def _pipeline(self, commands: Sequence[Command], together: bool = False) -> list[Any]:
        """The answers to commands sent in one round trip; `together`: nothing comes between them (not in a cluster)."""
        if self._closed:
            raise StoreError(f"{self!r} is closed. Open another one.")
        if not commands:
            return []
        with speaking_to(self.address):
            answers = self._ask(commands, together)
            if any(type(each).__name__ == "NoScriptError" for each in answers):
                self._load()
                answers = self._ask(commands, together)
            for each in answers:
                if isinstance(each, Exception):
                    raise each
            return answers

    def _ask(self, commands: Sequence[Command], together: bool) -> list[Any]:
        with self._client.pipeline(transaction=together and not self._cluster and len(commands) > 1) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = pipe.execute(raise_on_error=False)
            return answers

    def _load(self) -> None:
        """Give the scripts to the server: it forgets them when it restarts."""
        for script in scripts.ALL:
            self._client.script_load(script.text)

    def _again(self, call: Callable[[], T]) -> T:
        """A call that only reads, made again when the connection turned out to be dead."""
        try:
            return call()
        except UnreachableError as error:
            if isinstance(error.__cause__, TimeoutError) or type(error.__cause__).__name__ == "TimeoutError":
                raise
            return call()

    def _until_unchanged(self, attempt: Callable[[], T | None]) -> T:
        """What `attempt` gives, called again with fresh views while these change under it (then it gives None)."""
        for _ in range(_TRIES):
            found = attempt()
            if found is not None:
                return found
            self._fresh()
        raise StoreError(
            f"{self._place} is given other views all the time. Do two programs drop and write one of them?"
        )


def _verdict(gate: str, answers: Sequence[int]) -> Written | None:
    """What became of a portion, from the gate's answer and those to its rows; None: the views had changed."""
    if gate == "changed" or (gate == "written" and scripts.CHANGED in answers):
        return None
    if gate == "lost" or scripts.LOST in answers:
        return "lost"
    return "fenced" if gate == "fenced" or scripts.FENCED in answers else "written"
