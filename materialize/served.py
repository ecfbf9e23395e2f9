"""Whether what a model was given is what the log says (contract C12): answers of a feature log beside the offline log.

The log is settled: it knows all events, also those that came after an answer was given. So an answer may differ from it
and yet have been right when it was given. Each is looked at so, and the first that fits counts:

    equal        to the log's values at the instant of the answer
    behind       to its values at an instant a moment before: an event, or an expiry, was still on its way
    maybe later  the entity has events of that moment, and some may have come after the answer: nobody can tell
    different    none of these; also missing (the log knew the entity, the answer did not) and extra (the other way)

The moment is the source's lateness and a minute. Where no event can come after a newer one of its entity (lateness 0,
all of an entity by one partition), what differs is never "maybe later".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.features.kafka_source import KafkaSource
from headrace.features.reading import Status, read_at
from headrace.features.services import ServedFeature
from headrace.features.time import MINUTE, format_instant
from headrace.features.views import ViewDefinition
from headrace.materialize.asof import newest_rows
from headrace.materialize.comparing import Check, Entity, FeatureCheck, agree, compare, shown_key
from headrace.materialize.verifying import MEMORY, as_read, changed_us, in_sample
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, row_layout
from headrace.stores.rows import plain_column, plain_value
from headrace.stores.sql import fetch, name

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from headrace.stores.offline import OfflineLog

MOMENT_US = MINUTE
"""How long, beside the lateness, an event may be on its way to the online row."""
AT_ONCE = 20_000
"""Answers that are compared together."""


@dataclass(frozen=True)
class _Answer:
    """What was served of one entity of a view. at: the instant that it is as of, microseconds; found: whether there was
    a row; values: by the feature's name in the view."""

    key: Entity
    at: int
    found: bool
    values: dict[str, Any]


@dataclass(frozen=True)
class _Logged:
    """A row of the log; microseconds."""

    as_of: int
    newest: int
    values: dict[str, Any]


def check_served(
    features: Sequence[ServedFeature],
    answers: Iterable[pa.Table],
    log: OfflineLog,
    *,
    share: float = 1.0,
    place: str = "served",
) -> list[Check]:
    """Compare the answers about a sample of entities with the log, as far as it has settled.

    Args:
        features: what was asked, with the names of the answers.
        answers: rows of a feature log (docs/feature-logging.md), in pieces; one is held at a time.
        log: of the views of these features.
        share: of the entities, 0 to 1. place: how to call the answers.

    Returns:
        A check per view that has a log; of views with a thinned one (`log_every`), which does not say what they were in
        between, and of features on demand there is none.

    Raises:
        MissingStoreError: the log has nothing of a view. SchemaMismatchError: it holds another definition.
    """
    views = {each.view.name: each.view for each in features if each.view.log and each.view.log_every_us is None}
    checks = {}
    for view in views.values():
        mine = {each.feature: FeatureCheck() for each in features if each.view.name == view.name}
        checks[view.name] = Check(
            view.name, (place, "log"), features=mine, from_us=changed_us(log.manifest(), view.name)
        )
    entities: dict[str, set[Entity]] = {view: set() for view in views}
    for table in answers:
        for start in range(0, table.num_rows, AT_ONCE):
            piece = table.slice(start, AT_ONCE)
            for view in views.values():
                asked = [each for each in features if each.view.name == view.name]
                some = list(_answers(view, asked, piece, share))
                entities[view.name].update(each.key for each in some)
                _check(checks[view.name], view, log, some)
    for name_of, check in checks.items():
        check.entities = len(entities[name_of])
    return list(checks.values())


def _answers(view: ViewDefinition, asked: Sequence[ServedFeature], table: pa.Table, share: float) -> Iterator[_Answer]:
    """The answers of a piece that are about sampled entities and did not fail."""
    layout = row_layout(view)
    columns = {each: _flat(table, each) for each in ("keys", "features", "statuses", "event_times")}
    table = table.filter(in_sample([columns["keys"][key] for key in layout.key_names], share)) if share < 1 else table
    columns = {each: _flat(table, each) for each in columns}
    keys = zip(*(plain_column(columns["keys"][each], dtype) for each, dtype in layout.keys), strict=True)
    at = plain_column(table.column("at"), "timestamp")
    as_of = plain_column(columns["event_times"][view.name], "timestamp")
    values = {each.feature: plain_column(columns["features"][each.name], each.dtype) for each in asked}
    statuses = [columns["statuses"][each.name].cast("string").to_pylist() for each in asked]
    dtypes = {each.feature: each.dtype for each in asked}
    for row, key in enumerate(keys):
        if any(column[row] == Status.FAILED for column in statuses):
            continue
        its = {each: plain_value(column[row], dtypes[each]) for each, column in values.items()}
        found = as_of[row] is not None
        yield _Answer(key, max(at[row], as_of[row]) if found else at[row], found, its)


def _flat(table: pa.Table, column: str) -> dict[str, pa.ChunkedArray]:
    """The fields of a struct column."""
    import pyarrow.compute as pc

    array = table.column(column)
    return {field.name: pc.struct_field(array, field.name) for field in array.type}


def _check(check: Check, view: ViewDefinition, log: OfflineLog, some: Sequence[_Answer]) -> None:
    settled = log.settled_us(view)
    decided = [
        each
        for each in some
        if settled is not None and each.at < settled and (check.from_us is None or each.at > check.from_us)
    ]
    check.undecided += len(some) - len(decided)
    if not decided:
        return
    moment = view.source.lateness_us + MOMENT_US
    for answer, rows in zip(decided, _logged(view, log, decided, moment), strict=True):
        _judge(check, view, answer, rows, moment)


def _judge(check: Check, view: ViewDefinition, answer: _Answer, rows: Sequence[_Logged], moment: int) -> None:
    """rows: of the entity up to the answer, ascending, from the one that was newest a moment before."""
    at = answer.at
    expected = [_read(view, row, at) for row in rows]
    known = [each for each in expected if each is not None]
    fresh = [row for row in rows if row.as_of > at - moment]
    if not answer.found:
        if not expected or expected[-1] is None:
            check.rows += 1
        elif len(fresh) == len(rows):
            check.behind += 1
        else:
            check.missing += 1
            check.example = check.example or f"{shown_key(view, answer.key)} at {format_instant(at)}: was not found"
        return
    empty, _ = read_at(view, None, None, None, at)
    right = empty if not expected or expected[-1] is None else expected[-1]
    if not rows:
        check.extra += 1
        shown = f"{shown_key(view, answer.key)} at {format_instant(at)}"
        check.example = check.example or f"{shown}: was found, and the log has nothing of it"
        return
    if _same(answer.values, right):
        check.rows += 1
        for each in check.features.values():
            each.compared += 1
    elif any(_same(answer.values, each) for each in known):
        check.behind += 1
    elif _may_come_later(view) and any(view.source.late == "count" or row.newest == row.as_of for row in fresh):
        check.maybe_later += 1
    else:
        check.rows += 1
        compare(check, view, answer.key, at, answer.values, right)


def _read(view: ViewDefinition, row: _Logged, at: int) -> dict[str, Any] | None:
    """What a reader gets from a row at an instant; None: the entity is beyond its max age."""
    values, statuses = read_at(view, row.values, row.as_of, row.newest, at)
    return None if Status.OUTSIDE_MAX_AGE in statuses.values() else values


def _same(got: dict[str, Any], right: dict[str, Any]) -> bool:
    return all(agree(value, right[each]) for each, value in got.items())


def _may_come_later(view: ViewDefinition) -> bool:
    """Whether an event may arrive after a newer one of its entity."""
    several = any(
        isinstance(root, KafkaSource)
        and (root.keyed_by is None or len(root.topics) > 1 or not set(root.keyed_by) <= set(view.entity.keys))
        for root in view.source.roots
    )
    return several or len(view.source.roots) > 1 or view.source.lateness_us > 0


def _logged(view: ViewDefinition, log: OfflineLog, some: Sequence[_Answer], moment: int) -> list[list[_Logged]]:
    """For each answer the log's rows of its entity up to it: those of the last moment, and the newest before."""
    import pyarrow as pa

    from headrace.stores.layout import arrow_type

    layout = row_layout(view)
    keys = [
        pa.chunked_array([pa.array([each.key[at] for each in some], arrow_type(dtype))])
        for at, (_, dtype) in enumerate(layout.keys)
    ]
    ends = np.array([each.at for each in some], dtype=np.int64)
    columns = [EVENT_TIMESTAMP, NEWEST_EVENT, *layout.feature_names]

    def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> tuple[pa.Table, pa.Table]:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        source = sources[view.name]
        before = newest_rows(connection, source, layout, columns, keys, ends - moment)
        ours = [f"k{at}" for at in range(len(keys))]
        instants = {each: pa.array(times).cast(arrow_type("timestamp")) for each, times in
                    (("until", ends), ("since", ends - moment))}  # fmt: skip
        asked = {"row": pa.array(np.arange(len(some))), **instants, **dict(zip(ours, keys, strict=True))}
        connection.register("answers", pa.table(asked))
        same = " AND ".join(f"a.{mine} = r.{name(key)}" for mine, key in zip(ours, layout.key_names, strict=True))
        sql = (
            f"SELECT a.row, {', '.join('r.' + name(each) for each in columns)} FROM answers a JOIN {source} r"
            f" ON {same} AND r.{EVENT_TIMESTAMP} > a.since AND r.{EVENT_TIMESTAMP} <= a.until"
            f" ORDER BY a.row, r.{EVENT_TIMESTAMP}"
        )
        return before, fetch(connection, sql)

    before, within = log.query([view], work, to_us=int(ends.max()), tail=False)
    found: list[list[_Logged]] = [[] if row is None else [row] for row in _rows(view, before)]
    for place, row in zip(within.column("row").to_pylist(), _rows(view, within), strict=True):
        if row is not None:
            found[place].append(row)
    return found


def _rows(view: ViewDefinition, table: pa.Table) -> Iterator[_Logged | None]:
    layout = row_layout(view)
    times = [plain_column(table.column(each), "timestamp") for each in (EVENT_TIMESTAMP, NEWEST_EVENT)]
    columns = {each: plain_column(table.column(each), dtype) for each, dtype in layout.features}
    for at, as_of in enumerate(times[0]):
        if as_of is None:
            yield None
            continue
        values = {each: as_read(column[at], view.dtypes[each]) for each, column in columns.items()}
        yield _Logged(as_of, times[1][at], values)
