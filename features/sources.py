"""Sources: where events come from, how late they may be, how to tell one from its repetition. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from os import PathLike, fspath
from typing import Any, ClassVar, TypeAlias

from headrace.features.columns import Column
from headrace.features.errors import DefinitionError
from headrace.features.events import EventMeta, EventSchema, schema_of
from headrace.features.time import DAY, duration_us, format_duration

Duration: TypeAlias = "str | timedelta"

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".duckdb": "duckdb"}
EPOCH_UNITS = ("s", "ms", "us", "ns")
LATE = ("dead_letter", "count")


@dataclass(frozen=True, init=False)
class Source:
    """What every source has.

    Attributes:
        event: the event class of its rows. name: for messages, checkpoints and the log of a flow. lateness_us: how
        long after the newest event of its partition an event may still arrive (contract C7). max_ahead_us: how far
        ahead of the clock an event may be (C8); None: one hour of the wall clock. dedup: name of the column that
        identifies an event (C9), or None. idle_after_us: after how long of silence a partition no longer holds the
        watermark back (C10), or None for never. late: "dead_letter", or "count" to let a late event count from its
        arrival on.
    """

    event: EventMeta
    name: str
    lateness_us: int
    max_ahead_us: int | None
    dedup: str | None
    idle_after_us: int | None
    late: str

    kind: ClassVar[str] = "source"

    @property
    def schema(self) -> EventSchema:
        return schema_of(self.event)

    @property
    def roots(self) -> tuple[Source, ...]:
        """The sources that are read for it: itself, or those that a stream comes from."""
        return (self,)

    def _common(
        self,
        name: str,
        event: Any,
        lateness: Duration,
        max_ahead: Duration | None,
        dedup: str | Column[Any] | None,
        idle_after: Duration | None,
        late: str,
    ) -> None:
        shown = f"{type(self).__name__} '{name}'"
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):  # it becomes part of names of files
            raise DefinitionError(f"{shown}: name={name!r} is no name; use letters, digits, '.', '-' and '_'.")
        try:
            schema = schema_of(event)
        except DefinitionError as error:
            raise DefinitionError(f"{shown}: event: {error}") from None
        lateness_us = duration_us(lateness, f"{shown}: lateness")
        if lateness_us > 365 * DAY:
            raise DefinitionError(
                f"{shown}: lateness is {format_duration(lateness_us)}, more than a year. The log settles that late."
            )
        ahead_us = None if max_ahead is None else duration_us(max_ahead, f"{shown}: max_ahead")
        idle_us = None if idle_after is None else duration_us(idle_after, f"{shown}: idle_after")
        if idle_us == 0:
            raise DefinitionError(f"{shown}: idle_after must be longer than zero, such as '30s'.")
        if late not in LATE:
            raise DefinitionError(f"{shown}: late={late!r} is unknown. Choose late='dead_letter' or late='count'.")
        set_fields(
            self,
            event=event,
            name=name,
            lateness_us=lateness_us,
            max_ahead_us=ahead_us,
            dedup=None if dedup is None else column_name(schema, dedup, "dedup", shown),
            idle_after_us=idle_us,
            late=late,
        )

    def __repr__(self) -> str:
        parts = [repr(getattr(self, "path", self.name)), self.event.__name__]
        table = getattr(self, "table", None)
        if table is not None:
            parts.append(f"table={table!r}")
        if self.lateness_us:
            parts.append(f"lateness={format_duration(self.lateness_us)!r}")
        if self.max_ahead_us is not None:
            parts.append(f"max_ahead={format_duration(self.max_ahead_us)!r}")
        if self.dedup is not None:
            parts.append(f"dedup={self.dedup!r}")
        if self.idle_after_us is not None:
            parts.append(f"idle_after={format_duration(self.idle_after_us)!r}")
        if self.late != "dead_letter":
            parts.append(f"late={self.late!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


@dataclass(frozen=True, init=False, repr=False)
class FileSource(Source):
    """A file, a folder of files or a pattern of them: Parquet, CSV, JSON lines or a table of DuckDB.

    Attributes:
        name: the file's or folder's name without a suffix, unless given; of a pattern, what is fixed of it.
        path: where; relative paths are of the working directory when the source is read.
        format: "parquet", "csv", "jsonl" or "duckdb"; by the suffix unless given.
        table: of a DuckDB file, "rides" or "schema.rides", whose rows are only ever added to; where the file has one
            table only, it need not be named.
        columns: for columns that have another name in the file, event column -> file column.
        zone: IANA zone of instants that are written without one; without it such rows are refused (contract C1).
        ambiguous: a time of `zone` that occurs twice, when its clock is turned back: "refuse" the row, or read it
        as the
            "earlier" or the "later" instant.
        nonexistent: a time that the clock skips when it is turned forward: "refuse" the row, or "shift" it by the gap.
        unit: "s", "ms", "us" or "ns" for instants written as numbers since 1970; without it such rows are refused.
    """

    path: str
    format: str
    table: str | None
    columns: Mapping[str, str] = field(hash=False)
    zone: str | None
    ambiguous: str
    nonexistent: str
    unit: str | None

    kind: ClassVar[str] = "file"

    def __init__(
        self,
        path: str | PathLike[str],
        event: Any,
        *,
        name: str | None = None,
        format: str | None = None,
        table: str | None = None,
        columns: Mapping[str, str] | None = None,
        zone: str | None = None,
        ambiguous: str = "refuse",
        nonexistent: str = "refuse",
        unit: str | None = None,
        lateness: Duration = "0s",
        max_ahead: Duration | None = None,
        dedup: str | Column[Any] | None = None,
        idle_after: Duration | None = None,
        late: str = "dead_letter",
    ) -> None:
        if not isinstance(path, (str, PathLike)) or not fspath(path):
            raise DefinitionError(f"FileSource: the path must be text or a Path, got {path!r}.")
        text = str(fspath(path))
        self._common(name or _name_of(text, event), event, lateness, max_ahead, dedup, idle_after, late)
        shown = f"FileSource '{text}'"
        read_as = _format(text, format, shown)
        if table is not None and (read_as != "duckdb" or not isinstance(table, str) or not table):
            raise DefinitionError(f"{shown}: table={table!r} names a table of a DuckDB file, and this is {read_as}.")
        set_fields(
            self,
            path=text,
            format=read_as,
            table=table,
            columns=_renames(self.schema, columns, shown),
            **instant_rules(zone, ambiguous, nonexistent, unit, shown),
        )


@dataclass(frozen=True, init=False, repr=False)
class FrameSource(Source):
    """A table in memory: a pandas or Polars frame, a pyarrow Table, or anything with the Arrow C stream interface.

    Attributes:
        data: the table itself; it is not copied, so leave it as it is.
        columns: for columns that have another name in the table, event column -> table column.
        zone: IANA zone of naive instants; without it they are refused (contract C1).
        ambiguous, nonexistent: as of a FileSource.
        unit: unit of instants that are integers; without it they are refused.
    """

    data: Any = field(hash=False, compare=False)
    columns: Mapping[str, str] = field(hash=False)
    zone: str | None
    ambiguous: str
    nonexistent: str
    unit: str | None

    kind: ClassVar[str] = "frame"

    def __init__(
        self,
        data: Any,
        event: Any,
        *,
        name: str | None = None,
        columns: Mapping[str, str] | None = None,
        zone: str | None = None,
        ambiguous: str = "refuse",
        nonexistent: str = "refuse",
        unit: str | None = None,
        lateness: Duration = "0s",
        max_ahead: Duration | None = None,
        dedup: str | Column[Any] | None = None,
        idle_after: Duration | None = None,
        late: str = "dead_letter",
    ) -> None:
        self._common(
            name or getattr(event, "__name__", "frame").lower(), event, lateness, max_ahead, dedup, idle_after, late
        )
        shown = f"FrameSource '{self.name}'"
        if isinstance(data, type) or not (hasattr(data, "__arrow_c_stream__") or hasattr(data, "__dataframe__")):
            raise DefinitionError(
                f"{shown}: got a {type(data).__name__}, expected a pandas or Polars frame or a pyarrow Table. "
                "For a list or generator of rows use IterableSource."
            )
        set_fields(
            self,
            data=data,
            columns=_renames(self.schema, columns, shown),
            **instant_rules(zone, ambiguous, nonexistent, unit, shown),
        )


@dataclass(frozen=True, init=False, repr=False)
class IterableSource(Source):
    """Any Python iterable of events: dicts or objects of the event class. A generator is read once.

    Attributes:
        iterable: the rows.
        zone: IANA zone of naive instants; without it they are refused (contract C1).
        ambiguous, nonexistent: as of a FileSource.
        unit: unit of instants that are integers; without it they are refused.
    """

    iterable: Iterable[Any] = field(hash=False, compare=False)
    zone: str | None
    ambiguous: str
    nonexistent: str
    unit: str | None

    kind: ClassVar[str] = "iterable"

    def __init__(
        self,
        iterable: Iterable[Any],
        event: Any,
        *,
        name: str | None = None,
        zone: str | None = None,
        ambiguous: str = "refuse",
        nonexistent: str = "refuse",
        unit: str | None = None,
        lateness: Duration = "0s",
        max_ahead: Duration | None = None,
        dedup: str | Column[Any] | None = None,
        idle_after: Duration | None = None,
        late: str = "dead_letter",
    ) -> None:
        self._common(
            name or getattr(event, "__name__", "rows").lower(), event, lateness, max_ahead, dedup, idle_after, late
        )
        shown = f"IterableSource '{self.name}'"
        if isinstance(iterable, (str, bytes, Mapping)) or not isinstance(iterable, Iterable):
            raise DefinitionError(
                f"{shown}: got a {type(iterable).__name__}, expected an iterable of dicts or of {event.__name__}."
            )
        set_fields(
            self,
            iterable=iterable,
            **instant_rules(zone, ambiguous, nonexistent, unit, shown),
        )


def set_fields(source: object, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(source, name, value)


def _name_of(path: str, event: Any) -> str:
    """A name for a source of files: the last part of the path that gives one.

    >>> class Ride: ...
    >>> [_name_of(path, Ride) for path in ("old/rides.csv.gz", "rides/*.csv", "rides-2026-??.parquet", "*.csv")]
    ['rides', 'rides', 'rides-2026', 'ride']
    """
    for part in reversed(path.replace("\\", "/").split("/")):
        name = re.sub(r"[^\w-]+", "-", part.partition(".")[0] or part).strip("-")
        if name:
            return name
    return str(getattr(event, "__name__", "files")).lower()


def column_name(schema: EventSchema, column: str | Column[Any] | Any, argument: str, shown: str) -> str:
    """The name of a column of the event, given as it or by its name."""
    name = column.name if isinstance(column, Column) else column
    if isinstance(column, Column) and column.event != schema.name:
        raise DefinitionError(
            f"{shown}: {argument}={column} is a column of {column.event}, but the source holds {schema.name}."
        )
    if not isinstance(name, str):
        raise DefinitionError(f"{shown}: {argument}= takes a column of {schema.name} or its name, got {column!r}.")
    try:
        schema.field(name)
    except DefinitionError as error:
        raise DefinitionError(f"{shown}: {argument}: {error}") from None
    return name


def _format(path: str, given: str | None, shown: str) -> str:
    known = sorted(set(FORMATS.values()))
    if given is not None:
        if given not in known:
            raise DefinitionError(f"{shown}: format={given!r} is unknown. Choose one of {', '.join(known)}.")
        return given
    lowered = path.lower().removesuffix(".gz").removesuffix(".zst")
    for suffix, name in FORMATS.items():
        if lowered.endswith(suffix):
            return name
    raise DefinitionError(
        f"{shown}: its suffix does not tell the format. Add format='parquet', 'csv', 'jsonl' or 'duckdb'."
    )


def _renames(schema: EventSchema, columns: Mapping[str, str] | None, shown: str) -> dict[str, str]:
    for name in columns or {}:
        if name not in schema:
            try:
                schema.field(name)
            except DefinitionError as error:
                raise DefinitionError(f"{shown}: columns= maps event columns to file columns: {error}") from None
    return dict(columns or {})


def instant_rules(
    zone: str | None, ambiguous: str, nonexistent: str, unit: str | None, shown: str
) -> dict[str, str | None]:
    """How a source reads instants that are written without a zone or as numbers; see `FileSource`."""
    if zone is not None:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            raise DefinitionError(
                f"{shown}: zone={zone!r} is no known time zone. Use an IANA name such as 'America/New_York'."
            ) from None
    if unit is not None and unit not in EPOCH_UNITS:
        raise DefinitionError(f"{shown}: unit={unit!r} is unknown. Choose one of {', '.join(EPOCH_UNITS)}.")
    return {
        "zone": zone,
        "ambiguous": one_of("ambiguous", ambiguous, ("refuse", "earlier", "later"), shown),
        "nonexistent": one_of("nonexistent", nonexistent, ("refuse", "shift"), shown),
        "unit": unit,
    }


def one_of(option: str, given: str, choices: tuple[str, ...], shown: str) -> str:
    if given not in choices:
        raise DefinitionError(f"{shown}: {option}={given!r} is unknown. Choose one of {', '.join(map(repr, choices))}.")
    return given
