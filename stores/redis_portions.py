"""Portions of rows to Redis over several connections: compared and written in one step, without a script.

    WATCH keys   EXISTS keys                      none is there: all are written
    WATCH keys   HGET key _ts:view, ...           those are written that are not older than what is there
    MULTI   HSET key ..., ...   EXEC              nothing, if one of the keys was written since WATCH

A portion that was disturbed is looked at again, and at the second time written by the script that does both inside
Redis, which nobody disturbs. What a connection looks at next goes out together with what it writes, so that Redis
always has work; it does nothing else for less than a millisecond at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.stores import redis_scripts as scripts
from headrace.stores.errors import StoreError
from headrace.stores.feast_commands import Commands, read_timestamps, spelled
from headrace.stores.redis_direct import DirectConnection
from headrace.stores.redis_talk import Command, Talk, call
from headrace.stores.redis_urls import speaking_to

PORTION_ROWS = 64
"""At most so many keys are watched at once: Redis compares each with every other."""
CONNECTIONS = 8
"""So many portions are on their way, that Redis has work while this process waits for a processor."""
_PORTION_FIELDS = 4000
_PORTION_BYTES = 1 << 18
_WAITING = 2
"""Chunks that may wait for the one that is being written."""
_ALL_NEW = 8
"""After so many portions in a row without any row there, it is asked whether there are any before which."""
_SCRIPT_ROWS = 256


class ViewsChanged(StoreError):
    """The project's views are no longer those by which the rows were made."""


@dataclass(frozen=True)
class Target:
    """What all rows of a sender have in common.

    Attributes:
        time_field: of the event timestamp. fields: how many fields a row has. span_ms: keys end so long after the
        newest event, None where they do not. guard: key and generation of the views that must not change meanwhile.
    """

    time_field: bytes
    fields: int
    span_ms: int | None = None
    guard: tuple[bytes, bytes] | None = None


@dataclass(eq=False)
class _Chunk:
    commands: Commands
    size: int
    at: int = 0
    left: int = 0


@dataclass(eq=False)
class _Portion:
    chunk: _Chunk
    start: int
    stop: int
    look: bool
    tries: int = 0
    write: bytes = b""
    answers: int = 0
    rows: int = 0


@dataclass(eq=False)
class _Turn:
    """A connection: what it holds to be written, what it looks at, the answers that are due, and how many of them come
    before those to the look; whether it watches keys for nothing."""

    link: DirectConnection | None = None
    held: _Portion | None = None
    looked: _Portion | None = None
    first: int = 0
    count: int = 0
    unwatch: bool = False


class PortionSender:
    """Writes chunks of rows, one after another; the keys of a chunk are all different.

    Args:
        talk: to Redis. target: what the rows have in common. connections: how many.
    """

    def __init__(self, talk: Talk, target: Target, connections: int = CONNECTIONS) -> None:
        self._talk, self._target = talk, target
        self._change = threading.Condition()
        self._chunks: deque[_Chunk] = deque()
        self._again: deque[_Portion] = deque()
        self._chunk: _Chunk | None = None
        self._error: BaseException | None = None
        self._ended = self._dropped = False
        self._look, self._all_new = False, 0
        self.written = 0
        self._guarded = b"" if target.guard is None else _packed(b"HGET", target.guard[0], b"")
        self._connections = connections
        self._thread = threading.Thread(target=self._run, name="headrace-bulk", daemon=True)
        self._thread.start()

    def send(self, commands: Commands) -> None:
        """Write rows; waits while too many others wait.

        Raises:
            StoreError: rows sent before could not be written.
        """
        n = len(commands)
        if not n:
            return
        size = min(PORTION_ROWS, _PORTION_FIELDS // self._target.fields, _PORTION_BYTES * n // len(commands.rows.data))
        with self._change:
            while len(self._chunks) >= _WAITING and self._error is None:
                self._change.wait()
            self._raise()
            self._chunks.append(_Chunk(commands, max(size, 1), left=n))
            self._change.notify_all()

    def drain(self) -> int:
        """Wait until all that was sent is written; how many rows were so far. Raises as `send`."""
        with self._change:
            while self._error is None and (self._chunks or (self._chunk is not None and self._chunk.left)):
                self._change.wait()
            self._raise()
            return self.written

    def finish(self) -> int:
        """Wait until all is written, and end; how many rows were. Raises as `send`."""
        with self._change:
            self._ended = True
            self._change.notify_all()
        self._thread.join()
        with self._change:
            self._raise()
            return self.written

    def close(self) -> None:
        """Let go of what was not written yet."""
        with self._change:
            self._dropped = True
            self._change.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # In a thread

    def _run(self) -> None:
        try:
            with speaking_to(self._talk.address):
                if self._talk.direct:
                    self._by_turns()
                else:
                    while (portion := self._take(wait=True)) is not None:
                        self._by_script(portion)
        except BaseException as error:
            with self._change:
                self._error = self._error or error
                self._change.notify_all()

    def _by_turns(self) -> None:
        """Each connection in turn: take its answers, send it what follows from them and what is next.

        Redis answers connections in the order in which they asked, so whoever is waited for is answered first.
        """
        turns = [_Turn() for _ in range(self._connections)]
        try:
            self._go_round(turns)
        except BaseException:
            for turn in turns:
                if turn.link is not None:
                    turn.link.close()  # answers that are still to come belong to nobody
            raise
        for turn in turns:
            if turn.link is not None:
                self._talk.give_back(turn.link)

    def _go_round(self, turns: Sequence[_Turn]) -> None:
        while True:
            for turn in turns:
                if turn.count:
                    self._take_answers(turn)
                idle = all(not each.count and each.held is None for each in turns)
                portion = self._take(wait=idle)
                if portion is None and turn.held is None and not turn.unwatch:
                    if idle:
                        return
                    continue
                if turn.link is None:
                    turn.link = self._talk.link()
                self._send(turn, portion)

    def _take(self, wait: bool) -> _Portion | None:
        """The next portion; None when there is none now, or with `wait` none any more."""
        with self._change:
            while self._error is None and not self._dropped:
                if self._again:
                    return self._again.popleft()
                chunk = self._chunk
                if chunk is None or not chunk.left:
                    if self._chunks:
                        self._chunk = self._chunks.popleft()
                        self._change.notify_all()
                        continue
                    if self._ended:
                        return None
                elif chunk.at < len(chunk.commands):
                    start = chunk.at
                    chunk.at = min(start + chunk.size, len(chunk.commands))
                    return _Portion(chunk, start, chunk.at, self._look)
                if not wait:
                    return None
                self._change.wait()
        return None

    def _send(self, turn: _Turn, portion: _Portion | None) -> None:
        """Send what writes the portion that was looked at, and what looks at the next."""
        parts: list[bytes | memoryview] = []
        turn.first, turn.looked = 0, portion
        if turn.unwatch:
            parts.append(b"*1\r\n$7\r\nUNWATCH\r\n")
            turn.first, turn.unwatch = 1, False
        if turn.held is not None:
            parts.append(turn.held.write)
            turn.first += turn.held.answers
        turn.count = turn.first
        if portion is not None:
            turn.count += self._looking(portion, parts)
        assert turn.link is not None
        turn.link.send(b"".join(parts))

    def _take_answers(self, turn: _Turn) -> None:
        """Note what was written, and decide what is to be written of the portion that was looked at."""
        assert turn.link is not None
        answers = turn.link.receive(turn.count)
        turn.count = 0
        written, turn.held = turn.held, None
        if written is not None:
            self._wrote(written, answers[turn.first - 1])
        portion = turn.looked
        if portion is not None:
            if self._decided(portion, answers[turn.first :]):
                turn.held = portion
            else:
                turn.unwatch = True

    def _looking(self, portion: _Portion, parts: list[bytes | memoryview]) -> int:
        """Add the commands that look at a portion's keys; how many."""
        commands, start, stop = portion.chunk.commands, portion.start, portion.stop
        keys, n, guard = commands.keys.of(start, stop), stop - start, self._target.guard
        count = 2
        if guard is None:
            parts.append(b"*%d\r\n$5\r\nWATCH\r\n" % (n + 1))
        else:
            parts += (b"*%d\r\n$5\r\nWATCH\r\n" % (n + 2), b"$%d\r\n%b\r\n" % (len(guard[0]), guard[0]))
        parts.append(keys)
        if not portion.look:
            parts += (b"*%d\r\n$6\r\nEXISTS\r\n" % (n + 1), keys)
        else:
            field = b"$%d\r\n%b\r\n" % (len(self._target.time_field), self._target.time_field)
            each = [commands.keys.of(at, at + 1) for at in range(start, stop)]
            for key in each:
                parts += (b"*3\r\n$4\r\nHGET\r\n", key, field)
            count += n - 1
            if commands.ends_ms is not None:
                parts.append(b"*1\r\n$4\r\nTIME\r\n")
                for key in each:
                    parts += (b"*2\r\n$4\r\nPTTL\r\n", key)
                count += n + 1
        if guard is not None:
            parts.append(self._guarded)
            count += 1
        return count

    def _decided(self, portion: _Portion, answers: list[Any]) -> bool:
        """Prepare what is to be written of a portion; False when there is nothing to do for it at this place."""
        guard = self._target.guard
        if guard is not None and (answers[-1] or b"") != guard[1]:
            raise ViewsChanged("The project's views were changed while rows were written. Write them again.")
        commands, start, stop = portion.chunk.commands, portion.start, portion.stop
        ends: list[bytes | memoryview] = []
        if not portion.look:
            if answers[1]:
                self._look, self._all_new = True, 0
                portion.look = True
                self._put_back(portion)
                return False
            if commands.ends is not None:
                ends.append(commands.ends.of(start, stop))
            self._prepare(portion, [(start, stop)], ends, stop - start if ends else 0)
            return True
        n = stop - start
        old = answers[1 : 1 + n]
        written = _not_older(old, commands, start)
        if len(written) == n and not any(old):
            self._all_new += 1
            self._look = self._all_new < _ALL_NEW
        else:
            self._all_new = 0
        if not written:
            self._done(portion, 0)
            return False
        if commands.ends_ms is not None:
            seconds, micros = answers[1 + n]
            now = int(seconds) * 1000 + int(micros) // 1000
            ends = self._later_ends(commands, written, answers[2 + n : 2 + 2 * n], start, now)
        elif commands.ends is not None:
            ends = [commands.ends.of(at, at + 1) for at in written]
        self._prepare(portion, _runs(written), ends, len(ends))
        return True

    def _later_ends(
        self, commands: Commands, written: Sequence[int], left: Sequence[int], start: int, now: int
    ) -> list[bytes | memoryview]:
        """The commands that put ends of keys off; what ends later already stays."""
        assert commands.ends is not None
        assert commands.ends_ms is not None
        assert self._target.span_ms is not None
        out: list[bytes | memoryview] = []
        for at in written:
            lasts, end = left[at - start], commands.ends_ms[at]
            if lasts == -1 and end < now + self._target.span_ms:
                key = spelled(commands.ends.of(at, at + 1))[1]
                out.append(_packed(b"PEXPIREAT", key, b"%d" % (now + self._target.span_ms)))
            elif lasts < 0 or now + lasts < end:
                out.append(commands.ends.of(at, at + 1))
        return out

    def _prepare(
        self, portion: _Portion, runs: Sequence[tuple[int, int]], ends: Sequence[bytes | memoryview], more: int
    ) -> None:
        rows = portion.chunk.commands.rows
        parts: list[bytes | memoryview] = [b"*1\r\n$5\r\nMULTI\r\n"]
        parts += [rows.of(start, stop) for start, stop in runs]
        parts += ends
        parts.append(b"*1\r\n$4\r\nEXEC\r\n")
        portion.write = b"".join(parts)
        portion.rows = sum(stop - start for start, stop in runs)
        portion.answers = portion.rows + more + 2

    def _wrote(self, portion: _Portion, answer: Any) -> None:
        if answer is not None:
            self._done(portion, portion.rows)
            return
        portion.tries += 1
        if portion.tries == 2:
            self._by_script(portion)
            return
        portion.look, portion.write = True, b""
        self._put_back(portion)

    def _put_back(self, portion: _Portion) -> None:
        with self._change:
            self._again.append(portion)
            self._change.notify_all()

    def _done(self, portion: _Portion, written: int) -> None:
        with self._change:
            self.written += written
            portion.chunk.left -= portion.stop - portion.start
            if not portion.chunk.left:
                self._change.notify_all()

    def _by_script(self, portion: _Portion) -> None:
        """Write a portion by scripts, which compare and write inside Redis."""
        commands, target = portion.chunk.commands, self._target
        lasting = commands.ends is not None and commands.ends_ms is None
        said = spelled(commands.ends.of(portion.start, portion.start + 1)) if lasting and commands.ends else []
        expiry = str(target.span_ms) if commands.ends_ms is not None else "keep" if said[:1] == [b"PERSIST"] else ""
        one = self._talk.cluster or bool(said[2:])
        head: list[bytes] = []
        script, first = scripts.HASHES_OF_CLUSTER, ["", "", "", ""]
        if target.guard is not None and not self._talk.cluster:
            script, head, first[0] = scripts.HASHES, [target.guard[0], target.guard[0]], target.guard[1].decode()
        asked: list[Command] = []
        keys: list[bytes] = []
        size = 1 if one else _SCRIPT_ROWS
        for at in range(portion.start, portion.stop, size):
            stop = min(at + size, portion.stop)
            rows = [spelled(commands.rows.of(each, each + 1)) for each in range(at, stop)]
            values: list[Any] = []
            for each, row in zip(range(at, stop), rows, strict=True):
                values += row[3::2]
                if commands.ends_ms is not None:
                    assert target.span_ms is not None
                    values.append(commands.ends_ms[each] - target.span_ms)
            fields = rows[0][2::2]
            keys += [row[1] for row in rows]
            asked.append(call(script, head + [row[1] for row in rows], [*first, expiry, len(fields), *fields, *values]))
        answers = self._talk.ask(asked)
        if scripts.CHANGED in answers:
            raise ViewsChanged("The project's views were changed while rows were written. Write them again.")
        if said[2:]:
            self._talk.ask(
                [(said[0].decode(), key, *said[2:]) for key, done in zip(keys, answers, strict=True) if done]
            )
        self._done(portion, sum(answers))


def _not_older(old: Sequence[bytes | None], commands: Commands, start: int) -> list[int]:
    """The places of the rows that are not older than what is there."""
    there = [at for at, each in enumerate(old) if each is not None]
    stop = start + len(old)
    if not there:
        return list(range(start, stop))
    keep = np.ones(len(old), dtype=bool)
    known = [each for each in old if each is not None]
    keep[there] = read_timestamps(known) <= commands.times_us[start:stop][there]
    return (np.flatnonzero(keep) + start).tolist()


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Places in order as ranges."""
    out: list[tuple[int, int]] = []
    for at in places:
        if out and out[-1][1] == at:
            out[-1] = (out[-1][0], at + 1)
        else:
            out.append((at, at + 1))
    return out


def _packed(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments)
