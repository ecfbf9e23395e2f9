"""Redis hashes and streams of rows.

A hash holds beside the columns `_headrace`, which orders its row among all of its key: event time, position, number. An
older row, or the same once more, changes nothing, so that what a restart repeats never takes a key back in time.

A stream has beside it a sorted set of the ids that no checkpoint counts yet, by when they were added, written in the
same script. What a restart repeats is in the set, and left out; once a checkpoint counts its rows, their ids go.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa

from headrace.features.sinks import RedisSink
from headrace.flows.kafka.secrets import expand
from headrace.flows.sinks.delivery import RetryError
from headrace.flows.sinks.protocol import SinkPlace, SinkRows
from headrace.flows.sinks.records import records
from headrace.flows.sinks.staging import Staged, restored, saved
from headrace.stores.durable import make_folder, write_durably
from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.redis_urls import connect, redis_address, speaking_to

ORDER = "_headrace"
ID = "headrace-id"
"""The field of a stream's entry that holds its row's id."""
TIMEOUT_S = 5.0
SEEN_FOR_S = 7 * 86_400
"""Ids go after this long in any case: a crash may leave some that come no more, and a flow may never come back."""

_HASH = f"""
local old = redis.call('HGET', KEYS[1], '{ORDER}')
if old and old >= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '{ORDER}', ARGV[1], unpack(ARGV, 3))
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
"""
_STREAM = f"""
if redis.call('ZADD', KEYS[2], 'NX', ARGV[4], ARGV[1]) == 0 then return 0 end
redis.call('EXPIRE', KEYS[2], {SEEN_FOR_S})
if ARGV[3] ~= '0' then
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 5))
else
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, 5))
end
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
"""


_Call: TypeAlias = tuple[int, list[Any]]
"""Of a script: how many keys, then keys and arguments."""


class KeyedTarget:
    """Writes rows of a RedisSink, each in one step of its server."""

    batch = 1_000

    def __init__(self, sink: RedisSink, at: SinkPlace) -> None:
        self._sink, self._at = sink, at
        self._address = redis_address(str(expand(sink.url, "url")))
        self.shown = f"Redis at {self._address.shown}"
        if self._address.kind == "cluster":
            raise StoreError(
                f"Step '{at.name}': RedisSink writes to one server or to the master that Sentinel names, not to a "
                f"cluster ({self._address.shown})."
            )
        self._client: Any = None
        self._script = ""
        self._state = Staged.new()
        self._written: dict[str, list[str]] = {}
        self._done: dict[str, list[str]] = {}

    def open(self, state: bytes | None) -> None:
        self._state = restored(state, self._at) or Staged(self._token(), 0)
        self._client = connect(self._address, TIMEOUT_S, 1)
        with suppress(UnreachableError), speaking_to(self._address):  # a server that is away is waited for, by `send`
            self._client.ping()

    def send(self, rows: SinkRows) -> Mapping[int, str]:
        calls = self._hashes(rows) if self._sink.into == "hash" else self._entries(rows)
        try:
            with speaking_to(self._address):
                answers = self._asked([call for _, call in calls])
        except StoreError as error:
            raise RetryError(str(error)) from error
        return {
            row: self._refusal(answer)
            for (row, _), answer in zip(calls, answers, strict=True)
            if isinstance(answer, Exception)
        }

    def flushed(self) -> bytes:
        # Ids are of no more use once this checkpoint counts; until then a restart needs them.
        self._done, self._written = self._written, {}
        self._state = self._state.next([])
        return saved(self._state)

    def committed(self) -> None:
        done, self._done = self._done, {}
        old_s = int(time.time()) - SEEN_FOR_S
        with suppress(StoreError), speaking_to(self._address):  # what stays goes by its age
            line = self._client.pipeline(transaction=False)
            for key, ids in done.items():
                for start in range(0, len(ids), self.batch):
                    line.zrem(self._seen(key), *ids[start : start + self.batch])
                line.zremrangebyscore(self._seen(key), "-inf", old_s)
            line.execute()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _token(self) -> str:
        """Of a flow without a checkpoint: the same when it was killed before its first, so that ids are found again."""
        path = self._at.data / "sinks" / f"{self._at.slug}.token"
        try:
            if not path.exists():
                make_folder(path.parent)
                write_durably(path, self._state.token.encode())
            return path.read_text()
        except OSError as error:
            raise StoreError(
                f"Step '{self._at.name}': the data folder {self._at.data} cannot be written: {error}."
            ) from error

    def _asked(self, calls: Sequence[_Call]) -> list[Any]:
        for _ in range(2):
            if not self._script:
                self._script = str(self._client.script_load(_HASH if self._sink.into == "hash" else _STREAM))
            line = self._client.pipeline(transaction=False)
            for keys, arguments in calls:
                line.execute_command("EVALSHA", self._script, keys, *arguments)
            answers: list[Any] = line.execute(raise_on_error=False)
            if not any(type(each).__name__ == "NoScriptError" for each in answers):
                break
            self._script = ""  # the server was restarted
        return answers

    def _refusal(self, answer: Exception) -> str:
        """Why a row will never be taken. Raises RetryError where that is not so."""
        if "WRONGTYPE" in str(answer):
            return f"{self.shown} has something else under its key: {answer}"
        try:
            with speaking_to(self._address):
                raise answer
        except StoreError as error:
            raise RetryError(str(error)) from answer

    def _hashes(self, rows: SinkRows) -> list[tuple[int, _Call]]:
        """Of each key the newest row: its number and the call."""
        newest: dict[str, tuple[str, int]] = {}
        orders = zip(rows.time_us.tolist(), rows.position.tolist(), rows.index.tolist(), strict=True)
        for i, (key, order) in enumerate(zip(self._keys(rows), orders, strict=True)):
            text = f"{order[0] + (1 << 63):020d}.{order[1]:020d}.{order[2]:010d}"
            if key not in newest or newest[key][0] < text:
                newest[key] = (text, i)
        made = _texts(rows.table)
        expire = self._expire_ms
        return [(i, (1, [key, order, expire, *made[i]])) for key, (order, i) in newest.items()]

    def _entries(self, rows: SinkRows) -> list[tuple[int, _Call]]:
        made, now_s = _texts(rows.table), int(time.time())
        most = self._sink.max_length or 0
        calls: list[tuple[int, _Call]] = []
        for i, (key, row_id, texts) in enumerate(zip(self._keys(rows), self._at.ids(rows), made, strict=True)):
            self._written.setdefault(key, []).append(row_id)
            calls.append((i, (2, [key, self._seen(key), row_id, self._expire_ms, most, now_s, ID, row_id, *texts])))
        return calls

    @property
    def _expire_ms(self) -> int:
        return 0 if self._sink.expire_us is None else self._sink.expire_us // 1_000

    def _seen(self, key: str) -> str:
        return f"{key}:headrace:{self._at.slug}:{self._state.token}"

    def _keys(self, rows: SinkRows) -> list[str]:
        if not self._sink.columns:
            return [self._sink.key] * len(rows)
        pattern = self._sink.key
        columns = {name: _key_texts(rows.table.column(name)) for name in set(self._sink.columns)}
        pieces: list[str] = []
        for name in self._sink.columns:
            before, _, pattern = pattern.partition(f"{{{name}}}")
            pieces.append(before)
        made = []
        for i in range(len(rows)):
            parts = [before + columns[name][i] for before, name in zip(pieces, self._sink.columns, strict=True)]
            made.append("".join(parts) + pattern)
        return made


def _key_texts(column: pa.ChunkedArray) -> list[str]:
    """Of each row the text that stands for it in a key; "" where there is no value."""
    values = [each["v"] for each in records(pa.table({"v": column}))]
    return ["" if each is None else _text(each) for each in values]


def _texts(table: pa.Table) -> list[list[Any]]:
    """Fields and values of each row; nulls are left out, bytes are as they are."""
    names = table.column_names
    raw = {each: table.column(each).to_pylist() for each in names if pa.types.is_binary(table.schema.field(each).type)}
    made = []
    for i, row in enumerate(records(table)):
        pairs: list[Any] = []
        for name in names:
            value = raw[name][i] if name in raw else row[name]
            if value is not None:
                pairs += [name, value if isinstance(value, bytes) else _text(value)]
        made.append(pairs)
    return made


def _text(value: Any) -> str:
    """Text as it is, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
