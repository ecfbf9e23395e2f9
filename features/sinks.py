"""Sinks: where the rows of a stream go beside the feature stores. Definitions only, no I/O.

Each says how it delivers (docs/sources-and-sinks.md): Parquet and DuckDB exactly once, Redis as if once, Kafka, web
hooks, standard output and functions at least once, with an id by which a repetition is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike, fspath
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from headrace.features.code import code_key
from headrace.features.columns import Column
from headrace.features.errors import DefinitionError
from headrace.features.events import EventSchema
from headrace.features.kafka_source import is_secret
from headrace.features.sources import Duration, column_name, one_of, set_fields
from headrace.features.time import duration_us

FRAMES = ("rows", "arrow", "pandas", "polars")
"""What a CallableSink's function may be given."""

_NAMED = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_PLACE = re.compile(r"\{([^{}]*)\}")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|api-?key|password|signature", re.IGNORECASE)


@dataclass(frozen=True, init=False)
class Sink:
    """What every sink has.

    Attributes:
        name: what its step is called, unless the flow says otherwise.
    """

    name: str

    kind: ClassVar[str] = "sink"

    def check(self, schema: EventSchema) -> None:
        """Whether rows of `schema` can be written.

        Raises:
            DefinitionError: a column that the sink names is not among them.
        """

    def __repr__(self) -> str:
        parts = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.repr and value not in (None, (), {}):
                parts.append(f"{each.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def _shown(self) -> str:
        return f"{type(self).__name__} '{self.name}'"


@dataclass(frozen=True, init=False, repr=False)
class ParquetSink(Sink):
    """Parquet files in a folder. Exactly once: a file appears with the checkpoint that counts its rows, and whole.

    Attributes:
        folder: where; relative paths are of the working directory of the run. Nobody else may write into it.
        by: "date" for a folder per day of the event time (date=2026-05-01/), which DuckDB, Spark and Polars read as a
            column; None for no folders.
    """

    folder: str
    by: str | None

    kind: ClassVar[str] = "parquet"

    def __init__(self, folder: str | PathLike[str], *, by: str | None = "date", name: str | None = None) -> None:
        path = _path("ParquetSink", "folder", folder)
        if by not in ("date", None):
            raise DefinitionError(f"ParquetSink '{path}': by={by!r} is unknown. Choose by='date' or by=None.")
        set_fields(self, name=_name(name, _stem(path), "ParquetSink"), folder=path, by=by)

    def check(self, schema: EventSchema) -> None:
        if self.by in schema.names:
            raise DefinitionError(
                f"{self._shown}: its folders are named date=..., and the rows have a column 'date' themselves. Choose "
                "by=None, or rename the column."
            )


@dataclass(frozen=True, init=False, repr=False)
class DuckDBSink(Sink):
    """A table of a DuckDB file. Exactly once: rows and the number of their checkpoint in one transaction.

    The table is made where it is not there; a table that lacks a column of the rows is refused. The file is open only
    while rows are written, so that others can read it in between.

    Attributes:
        path: the database file; relative paths are of the working directory of the run.
        table: of the schema `main`.
    """

    path: str
    table: str

    kind: ClassVar[str] = "duckdb"

    def __init__(self, path: str | PathLike[str], table: str, *, name: str | None = None) -> None:
        file = _path("DuckDBSink", "path", path)
        if not isinstance(table, str) or not _TABLE.fullmatch(table) or table.startswith("_headrace"):
            raise DefinitionError(
                f"DuckDBSink '{file}': table={table!r} is no table name of letters, digits and '_' (and not "
                "'_headrace...', which is ours)."
            )
        set_fields(self, name=_name(name, table, "DuckDBSink"), path=file, table=table)


@dataclass(frozen=True, init=False, repr=False)
class RedisSink(Sink):
    """Redis hashes or streams.

    A hash has the newest row of its key, by event time: an older one, late or repeated after a restart, changes
    nothing. A stream gets every row once: what a restart repeats is known by its id and left out.

    Attributes:
        url: as of `headrace run --online`; a password is named, "redis://:${REDIS_PASSWORD}@host:6379/0".
        key: of the hash or stream, with columns in braces: "alert:{driver_id}".
        into: "hash" or "stream".
        expire_us: after how long of no new row a key goes, or None.
        max_length: a stream keeps about so many entries, or None for all.
    """

    url: str
    key: str
    into: str
    expire_us: int | None
    max_length: int | None

    kind: ClassVar[str] = "redis"

    def __init__(
        self,
        url: str,
        key: str,
        *,
        into: str = "hash",
        expire: Duration | None = None,
        max_length: int | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(key, str) or not key:
            raise DefinitionError(
                f"RedisSink: key={key!r} is no pattern. Write the columns in braces, such as 'alert:{{driver_id}}'."
            )
        shown = f"RedisSink '{key}'"
        one_of("into", into, ("hash", "stream"), shown)
        if "{" in _PLACE.sub("", key) or "}" in _PLACE.sub("", key):
            raise DefinitionError(f"{shown}: a brace of the pattern is open. Columns are written '{{driver_id}}'.")
        if into == "hash" and not _PLACE.search(key):
            raise DefinitionError(
                f"{shown}: every row would go to one hash. Name the columns that tell them apart, such as "
                "'alert:{driver_id}', or choose into='stream'."
            )
        if max_length is not None and (into != "stream" or not _positive(max_length)):
            raise DefinitionError(f"{shown}: max_length={max_length!r}: a whole number of entries, of a stream.")
        expire_us = None if expire is None else duration_us(expire, f"{shown}: expire")
        if expire_us is not None and expire_us < 1_000:
            raise DefinitionError(f"{shown}: expire must be a millisecond or more, such as '7d'.")
        set_fields(
            self,
            name=_name(name, _PLACE.sub("", key).strip(":-_./") or "redis", "RedisSink"),
            url=_no_password(url, "url", shown, "redis://:${REDIS_PASSWORD}@host:6379/0"),
            key=key,
            into=into,
            expire_us=expire_us,
            max_length=max_length,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns in the pattern of the key, in their order."""
        return tuple(_PLACE.findall(self.key))

    def check(self, schema: EventSchema) -> None:
        for each in self.columns:
            column_name(schema, each, "key", self._shown)


@dataclass(frozen=True, init=False, repr=False)
class KafkaSink(Sink):
    """A Kafka topic, as JSON. At least once: after a crash some messages may come again, with the same id.

    The id is in the header `headrace-id`; the message's timestamp is the event time.

    Attributes:
        topic: its name; it must be there, unless the broker makes topics by itself.
        key: the columns that the message's key is made of, None for no key. One column is written as text, several as
            a JSON list of them. Java's partitioner is taken unless `partitioner=` says otherwise.
        options: settings of librdkafka, as of a KafkaSource: `bootstrap_servers="kafka:9092"`, `sasl_password=
            "${KAFKA_PASSWORD}"`.
    """

    topic: str
    key: tuple[str, ...] | None
    options: Mapping[str, Any] = field(hash=False)

    kind: ClassVar[str] = "kafka"

    def __init__(
        self,
        topic: str,
        *,
        key: str | Column[Any] | Sequence[str | Column[Any]] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(topic, str) or not _TOPIC.fullmatch(topic) or topic in (".", ".."):
            raise DefinitionError(
                f"KafkaSink: {topic!r} is no topic name. Those have letters, digits, '.', '_' and '-', at most 249."
            )
        shown = f"KafkaSink '{topic}'"
        for option, value in options.items():
            if is_secret(option) and not (isinstance(value, str) and _NAMED.search(value)):
                raise DefinitionError(
                    f"{shown}: {option} is a secret, which no definition holds. Name it: "
                    f"{option}='${{KAFKA_PASSWORD}}', and set that variable where the flow runs."
                )
        keys = None if key is None else tuple(_columns(key, "key", shown))
        set_fields(self, name=_name(name, topic, "KafkaSink"), topic=topic, key=keys, options=dict(options))

    def check(self, schema: EventSchema) -> None:
        for each in self.key or ():
            column_name(schema, each, "key", self._shown)


@dataclass(frozen=True, init=False, repr=False)
class WebhookSink(Sink):
    """HTTP POST of rows as JSON. At least once, with an id in the header `Idempotency-Key`.

    An answer of 2xx takes the rows. 408, 425, 429, 5xx and no answer are tried again, for as long as it takes. Any
    other answer refuses them: of several rows each is then sent alone, and one refused alone becomes a dead letter.

    Attributes:
        url: http:// or https://.
        batch: 1 sends each row as a JSON object; more sends a JSON list of up to so many rows.
        headers: of the request; `${NAME}` is read from the environment at run time, where secrets belong.
        timeout_us: how long an answer may take.
        ids: name of a field that is added to each row and holds its id, or None.
    """

    url: str
    batch: int
    headers: Mapping[str, str] = field(hash=False)
    timeout_us: int
    ids: str | None

    kind: ClassVar[str] = "webhook"

    def __init__(
        self,
        url: str,
        *,
        batch: int = 1,
        headers: Mapping[str, str] | None = None,
        timeout: Duration = "10s",
        ids: str | None = None,
        name: str | None = None,
    ) -> None:
        shown = f"WebhookSink '{_without_query(url)}'"
        checked = _no_password(url, "url", shown, "https://host/path, and put secrets into headers=")
        parts = urlsplit(_NAMED.sub("x", checked))
        if not _NAMED.fullmatch(checked) and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise DefinitionError(f"{shown}: url= is no http:// or https:// address.")
        if not _positive(batch):
            raise DefinitionError(f"{shown}: batch={batch!r}: a whole number of rows, 1 or more.")
        for parameter, value in parse_qsl(parts.query):
            if _SECRET_HEADER.search(parameter) and value != "x":
                raise DefinitionError(
                    f"{shown}: '{parameter}' of url= is a secret, which no definition holds. Name it: "
                    f"{parameter}=${{TOKEN}}, and set that variable where the flow runs."
                )
        for header, value in (headers or {}).items():
            if not isinstance(header, str) or not _HEADER.fullmatch(header) or not isinstance(value, str):
                raise DefinitionError(f"{shown}: headers= takes names and texts, got {header!r}.")
            if "\n" in value or "\r" in value:
                raise DefinitionError(f"{shown}: header {header} holds a line break.")
            if _SECRET_HEADER.search(header) and not _NAMED.search(value):
                raise DefinitionError(
                    f"{shown}: header {header} is a secret, which no definition holds. Name it: "
                    f"headers={{{header!r}: '${{TOKEN}}'}}, and set that variable where the flow runs."
                )
        timeout_us = duration_us(timeout, f"{shown}: timeout")
        if timeout_us < 1_000:
            raise DefinitionError(f"{shown}: timeout must be a millisecond or more, such as '10s'.")
        set_fields(
            self,
            name=_name(name, parts.path.strip("/").rpartition("/")[2] or parts.hostname or "webhook", "WebhookSink"),
            url=checked,
            batch=batch,
            headers=dict(headers or {}),
            timeout_us=timeout_us,
            ids=ids,
        )

    def check(self, schema: EventSchema) -> None:
        if self.ids is not None and self.ids in schema:
            raise DefinitionError(f"{self._shown}: ids='{self.ids}' is a column of the rows. Choose another name.")


@dataclass(frozen=True, init=False, repr=False)
class StdoutSink(Sink):
    """Standard output, one JSON object a line. At least once. For looking, and for pipes."""

    kind: ClassVar[str] = "stdout"

    def __init__(self, *, name: str | None = None) -> None:
        set_fields(self, name=_name(name, "stdout", "StdoutSink"))


@dataclass(frozen=True, init=False, repr=False)
class CallableSink(Sink):
    """Any function of yours. At least once; `ids=True` gives it the rows' ids, by which a repetition is known.

    It is called from a thread of its own, never twice at a time. When it raises, it is called again with the same rows,
    after a pause; `PoisonError` of headrace.features.errors says that rows will never do: of several each is then tried
    alone, and those refused alone become dead letters.

    Attributes:
        function: of rows, and of their ids where `ids`.
        as_: what rows are: "rows" (a list of dicts), "arrow" (a Table), "pandas" or "polars" (a DataFrame).
        batch: up to so many rows a call.
        ids: whether the function takes a list of ids as its second argument.
    """

    function: Callable[..., Any] = field(repr=False)
    as_: str
    batch: int
    ids: bool

    kind: ClassVar[str] = "callable"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        as_: str = "rows",
        batch: int = 1_000,
        ids: bool = False,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise DefinitionError(f"CallableSink: expected a function of rows, got a {type(function).__name__}.")
        called = str(getattr(function, "__name__", type(function).__name__))
        shown = f"CallableSink '{called}'"
        one_of("as_", as_, FRAMES, shown)
        if not _positive(batch):
            raise DefinitionError(f"{shown}: batch={batch!r}: a whole number of rows, 1 or more.")
        plain = "rows" if called == "<lambda>" else called
        set_fields(self, name=_name(name, plain, "CallableSink"), function=function, as_=as_, batch=batch, ids=ids)

    def __repr__(self) -> str:
        return super().__repr__()[: -len(")")] + f", function={code_key(self.function)})"


def _columns(given: Any, argument: str, shown: str) -> list[str]:
    names = [each.name if isinstance(each, Column) else each for each in _several(given)]
    if not names or not all(isinstance(each, str) and each for each in names):
        raise DefinitionError(f"{shown}: {argument}= takes columns or their names, got {given!r}.")
    return names


def _several(given: Any) -> Sequence[Any]:
    return given if isinstance(given, (tuple, list)) else (given,)


def _name(given: str | None, otherwise: str, sink: str) -> str:
    if given is None:
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", otherwise).strip("-.") or sink.lower()
    if not isinstance(given, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", given):
        raise DefinitionError(f"{sink}: name={given!r}: expected letters, digits, '_', '-' and '.'.")
    return given


def _positive(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number > 0


def _path(sink: str, argument: str, given: Any) -> str:
    if not isinstance(given, (str, PathLike)) or not fspath(given):
        raise DefinitionError(f"{sink}: {argument}= must be text or a Path, got {given!r}.")
    path = str(fspath(given))
    if "://" in path:
        raise DefinitionError(f"{sink}: {argument}='{path}' is an address; only places of the local disk are written.")
    return path


def _stem(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _no_password(url: Any, argument: str, shown: str, instead: str) -> str:
    if not isinstance(url, str) or not url:
        raise DefinitionError(f"{shown}: {argument}= must be an address, got a {type(url).__name__}.")
    user = _NAMED.sub("", url).partition("://")[2].rpartition("@")[0].partition("/")[0]
    if user.partition(":")[2]:
        raise DefinitionError(f"{shown}: {argument}= has a password in it, which no definition holds. Write {instead}.")
    return url


def _without_query(url: Any) -> str:
    return str(url).partition("?")[0].rpartition("@")[2] if isinstance(url, str) else type(url).__name__
