"""Whether the places where a view's values lie say the same (contract C12): online, in the log, computed anew.

    online    beside the log     each entity's online row, read at one instant, and its newest log row by then
    log       beside another     every settled row of a range, instant by instant; the other log was computed anew

Entities are sampled by `key_number`, so every place gives the same ones without asking the others. Values agree when
they are equal, floats when they are within 1e-9 of each other, as the order of additions may differ (C3).

Memory is bounded: DuckDB filters by the sample, sorts out of core and streams; of each sampled entity 8 bytes are kept,
and only where rows that the log does not have are looked for.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.reading import read_at
from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition, definition
from headrace.materialize.comparing import Check, Entity, FeatureCheck, agree, compare, shown_key
from headrace.stores.keys import KEY_NUMBERS, encode_key, key_number, key_numbers
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, arrow_schema, row_layout
from headrace.stores.manifest import Manifest
from headrace.stores.rows import plain_column
from headrace.stores.sql import instant, name, sql_type

if TYPE_CHECKING:
    import duckdb

    from headrace.stores.offline import OfflineLog
    from headrace.stores.online import OnlineStore

AT_ONCE = 5_000
"""Entities, or rows, that are read together."""
MEMORY = "512MB"
"""That DuckDB may use before it spills to the disk."""


def sampled(keys: Iterable[Entity], share: float) -> list[Entity]:
    """The entities of a sample: those whose `key_number` lies in the first `share` of all numbers."""
    limit = share * KEY_NUMBERS
    return [key for key in keys if key_number(key) < limit]


def check_online(view: Any, store: OnlineStore, log: OfflineLog, *, share: float = 1.0, extra: bool = False) -> Check:
    """Compare the online rows of a sample of entities with the log, both read as of where the log's flow stood.

    A flow may write meanwhile: an entity that got events after the log's newest commit is counted as undecided, and
    with a thinned log (`log_every`) one that changed in the interval that is not over. An entity whose row has expired
    online is as one that the log says to be beyond its max age.

    Args:
        view: a feature view or its definition. share: of the entities, 0 to 1.
        extra: also look for entities that only the store has; goes through all of its keys.

    Raises:
        MissingStoreError: the log has nothing of the view. SchemaMismatchError: a place holds another definition of it.
    """
    found = definition(view)
    clock = log.manifest().clock
    every = found.log_every_us
    clock_us = None if clock is None else clock.us
    upto = clock_us if clock_us is None or every is None else clock_us // every * every

    def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> Check:
        rows = _Rows(connection, found, sources[found.name], share)
        check = Check(found.name, ("online", "log"), features={each: FeatureCheck() for each in found.feature_names()})
        moving: set[Entity] = set()  # a thinned log has not said yet what they are
        if every is not None and upto is not None:
            moving = set(rows.keys(from_us=upto, to_us=upto + every))
        check.undecided = check.entities = len(moving)
        met = _Met() if extra else None
        for some in _portions(rows.newest(upto)):
            if met is not None:
                met.add(row.key for row in some)
            some = [row for row in some if row.key not in moving]
            check.entities += len(some)
            _check_portion(check, found, store, some, clock_us)
        if met is not None:
            met.add(moving)
            _look_for_more(check, found, store, met, share)
        return check

    return log.query([found], work)


@dataclass(frozen=True)
class _Row:
    """A row of the log as plain values; microseconds."""

    key: Entity
    as_of: int
    newest: int
    values: dict[str, Any]


def _check_portion(
    check: Check, view: ViewDefinition, store: OnlineStore, some: Sequence[_Row], clock_us: int | None
) -> None:
    """The online rows of some entities beside their newest rows of the log."""
    names = row_layout(view).key_names
    got = store.read(view, [dict(zip(names, row.key, strict=True)) for row in some])
    for mine, row in zip(some, got, strict=True):
        clock = mine.as_of if clock_us is None else clock_us
        at = max(mine.as_of, clock, mine.as_of if row is None else row.event_timestamp_us)
        right, statuses = read_at(view, mine.values, mine.as_of, mine.newest, at)
        if row is None:
            if "OUTSIDE_MAX_AGE" not in statuses.values():
                check.missing += 1
                check.example = check.example or f"{shown_key(view, mine.key)} is not online"
            continue
        if row.newest_event_us > mine.newest or (clock_us is not None and row.event_timestamp_us > clock_us):
            check.undecided += 1
            continue
        check.rows += 1
        there, _ = read_at(view, row.values, row.event_timestamp_us, row.newest_event_us, at)
        compare(check, view, mine.key, at, there, right)


def _look_for_more(check: Check, view: ViewDefinition, store: OnlineStore, met: _Met, share: float) -> None:
    """Entities of the sample that only the store has."""
    names = row_layout(view).key_names
    for columns, _ in store.scan(view):
        key = tuple(columns[each] for each in names)
        if sampled([key], share) and key not in met:
            check.extra += 1
            check.entities += 1
            check.example = check.example or f"{shown_key(view, key)} is online and not in the log"


class _Met:
    """Which entities were met: 8 bytes of each, so that two of 10 million are taken for one with a chance of 1e-5."""

    def __init__(self) -> None:
        self._marks = array("Q")
        self._sorted: Any = None

    def add(self, keys: Iterable[Entity]) -> None:
        self._marks.extend(map(_mark, keys))

    def __contains__(self, key: Entity) -> bool:
        import numpy as np

        if self._sorted is None:
            self._sorted = np.sort(np.frombuffer(self._marks, dtype=np.uint64))
        mark = np.uint64(_mark(key))
        at = int(np.searchsorted(self._sorted, mark))
        return at < len(self._sorted) and bool(self._sorted[at] == mark)


def _mark(key: Entity) -> int:
    return int.from_bytes(hashlib.blake2b(encode_key(key), digest_size=8).digest(), "little")


def check_log(
    view: Any,
    log: OfflineLog,
    other: OfflineLog,
    *,
    share: float = 1.0,
    from_us: int | None = None,
    places: tuple[str, str] = ("log", "computed anew"),
) -> Check:
    """Compare the settled rows of a sample of entities in two logs, as far as both have settled.

    Where the view has changed since the log began, only rows of its newest definition are compared: behind the instant
    at which every entity stated its values anew.

    Args:
        log: the one to judge. other: the one that is right; it has the sampled entities at least.
        from_us: only rows as of later instants.
    """
    found = definition(view)
    settled = [each for each in (log.settled_us(found), other.settled_us(found)) if each is not None]
    to_us = min(settled) - 1 if settled else None
    begins = [each for each in (from_us, changed_us(log.manifest(), found.name)) if each is not None]
    after = max(begins, default=None)

    def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> Check:
        mine = _Rows(connection, found, sources[found.name], share)

        def beside(another: duckdb.DuckDBPyConnection, theirs: dict[str, str]) -> Check:
            check = Check(found.name, places, from_us=after)
            check.features = {each: FeatureCheck() for each in _stored_features(found)}
            right = _Rows(another, found, theirs[found.name], share)
            _merge(check, found, mine.ordered(after, to_us), right.ordered(after, to_us))
            return check

        return other.query([found], beside, from_us=after, to_us=to_us, tail=False)

    return log.query([found], work, from_us=after, to_us=to_us, tail=False)


def _stored_features(view: ViewDefinition) -> list[str]:
    """Features whose values rows have, without those that readers compute."""
    stored = row_layout(view).feature_names
    return [each for each in view.feature_names() if each in stored]


def _merge(check: Check, view: ViewDefinition, mine: Iterator[_Row], right: Iterator[_Row]) -> None:
    """Compare rows that come from both sides in the order of key and instant."""
    ours, theirs = next(mine, None), next(right, None)
    last: Entity | None = None
    while ours is not None or theirs is not None:
        first = min(each for each in (_place(ours), _place(theirs)) if each is not None)
        if first[0] != last:
            last = first[0]
            check.entities += 1
        if _place(ours) != first:
            assert theirs is not None
            check.missing += 1
            shown = f"{shown_key(view, theirs.key)} at {format_instant(theirs.as_of)}"
            check.example = check.example or f"{shown}: no row in the {check.places[0]}"
            theirs = next(right, None)
        elif _place(theirs) != first:
            assert ours is not None
            check.extra += 1
            shown = f"{shown_key(view, ours.key)} at {format_instant(ours.as_of)}"
            check.example = check.example or f"{shown}: a row too many"
            ours = next(mine, None)
        else:
            assert ours is not None
            assert theirs is not None
            check.rows += 1
            compare(check, view, ours.key, ours.as_of, ours.values, theirs.values)
            ours, theirs = next(mine, None), next(right, None)


def _place(row: _Row | None) -> tuple[Entity, int] | None:
    return None if row is None else (row.key, row.as_of)


def changed_us(manifest: Manifest, view: str) -> int | None:
    """The instant at which the last part went over to the view's newest definition; None where it never changed."""
    changed = []
    for commit in manifest.parts.values():
        log = commit.views.get(view)
        if log is None or len(log.layouts) == 1:
            continue
        newest = [file.first_us for file in log.files if file.version == len(log.layouts) - 1]
        at = min(newest, default=log.newest_us)
        changed += [] if at is None else [at]
    return max(changed, default=None)


class _Rows:
    """The rows of the sampled entities of a view, from DuckDB, some thousand at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, view: ViewDefinition, source: str, share: float) -> None:
        self._connection, self._view, self._source = connection, view, source
        self._layout = row_layout(view)
        self._schema = arrow_schema(self._layout)
        self._keys = ", ".join(name(each) for each in self._layout.key_names)
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        self._sample = "true"
        if share < 1:
            self._sample = f"headrace_number({self._keys}) < {share * KEY_NUMBERS!r}"
            types: Any = [sql_type(dtype) for _, dtype in self._layout.keys]
            arrow: Any = "arrow"
            connection.create_function("headrace_number", _numbers, types, "BIGINT", type=arrow)

    def newest(self, to_us: int | None) -> Iterator[_Row]:
        """The newest row of each entity."""
        at = EVENT_TIMESTAMP
        newest = (
            f"SELECT {self._keys}, max({at}) AS {at} FROM {self._source} WHERE {self._where(None, to_us)} "
            f"GROUP BY {self._keys}"
        )
        return self._stream(f"{self._source} SEMI JOIN ({newest}) USING ({self._keys}, {at})")

    def ordered(self, from_us: int | None, to_us: int | None) -> Iterator[_Row]:
        """Every row, in the order of key and instant."""
        where = self._where(from_us, to_us)
        return self._stream(f"{self._source} WHERE {where} ORDER BY {self._keys}, {EVENT_TIMESTAMP}")

    def keys(self, from_us: int, to_us: int) -> Iterator[Entity]:
        """The entities that have rows in (from_us, to_us]."""
        sql = f"SELECT DISTINCT {self._keys} FROM {self._source} WHERE {self._where(from_us, to_us)}"
        for batch in self._connection.sql(sql).to_arrow_reader(AT_ONCE):
            yield from zip(
                *(plain_column(batch.column(at), dtype) for at, (_, dtype) in enumerate(self._layout.keys)),
                strict=True,
            )

    def _where(self, from_us: int | None, to_us: int | None) -> str:
        bounds = [] if from_us is None else [f"{EVENT_TIMESTAMP} > {instant(from_us)}"]
        bounds += [] if to_us is None else [f"{EVENT_TIMESTAMP} <= {instant(to_us)}"]
        return " AND ".join([*bounds, self._sample])

    def _stream(self, rows: str) -> Iterator[_Row]:
        import pyarrow as pa

        columns = ", ".join(name(each) for each in self._schema.names)
        for batch in self._connection.sql(f"SELECT {columns} FROM {rows}").to_arrow_reader(AT_ONCE):
            table = pa.Table.from_batches([batch]).cast(self._schema)
            keys = zip(*(plain_column(table.column(each), dtype) for each, dtype in self._layout.keys), strict=True)
            times = [plain_column(table.column(each), "timestamp") for each in (EVENT_TIMESTAMP, NEWEST_EVENT)]
            values = {each: plain_column(table.column(each), dtype) for each, dtype in self._layout.features}
            for at, key in enumerate(keys):
                its = {each: as_read(column[at], self._view.dtypes[each]) for each, column in values.items()}
                yield _Row(key, times[0][at], times[1][at], its)


def in_sample(columns: Sequence[Any], share: float) -> Any:
    """(n,) bool: whether each row's entity is of the sample, from its key columns."""
    import pyarrow as pa

    arrays = [each.combine_chunks() if isinstance(each, pa.ChunkedArray) else each for each in columns]
    return pa.array(key_numbers(arrays) < share * KEY_NUMBERS)


def _numbers(*columns: Any) -> Any:
    """`key_number` of each row, for DuckDB."""
    import pyarrow as pa

    arrays = [each.combine_chunks() if isinstance(each, pa.ChunkedArray) else each for each in columns]
    return pa.array(key_numbers(arrays).astype("int64"))


def as_read(value: Any, dtype: str) -> Any:
    """A stored value as a reader of an online row has it."""
    return dict(value) if value is not None and dtype.startswith("map<") else value


def _portions(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    some: list[_Row] = []
    for row in rows:
        some.append(row)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some


__all__ = ["Check", "FeatureCheck", "agree", "check_log", "check_online", "sampled"]
