"""Windows at one instant: what every entity's aggregations are when asked at t, from its events, in DuckDB.

events (a table, by SQL)
  -> those that some window covers                          one pass over (oldest lower bound, t]
  -> per entity one row: each aggregation over its own bound, FILTER (WHERE time > bound)
  -> sums and variances in which terms cancelled, again from their values      see reckon.py
  -> record batches

A window is the contract's sliding one, (floor((t - W) / h) * h, t], or the range that was asked for, (start, t]. An
entity has a row if it had an event in a window asked at `start` or since, so one whose windows have emptied meanwhile
is told so (C5), with the values of an empty window (C6). Missing inputs are null and NaN. Rows whose key is null belong
to no entity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.features.errors import DefinitionError, did_you_mean
from headrace.materialize.reckon import Doubt, doubts, reckoned
from headrace.stores.sql import instant, name

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ALIASES = {
    "avg": "mean",
    "average": "mean",
    "nunique": "count_distinct",
    "stddev": "std",
    "stddev_samp": "std",
    "variance": "var",
    "var_samp": "var",
    "minimum": "min",
    "maximum": "max",
}
FUNCTIONS = ("count", "sum", "mean", "min", "max", "std", "var", "count_distinct", "first", "last")
"""What can be asked, beside the other names of ALIASES."""

BATCH = 50_000
"""Rows per record batch."""

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "BOOLEAN")
_WHOLE_NUMBERS = (*_WHOLE, *(f"U{each}" for each in _WHOLE[:5]))
_FLOATS = ("FLOAT", "DOUBLE")
_FINEST = (2**63 - 1) // 1000 - 1
"""Microseconds that nanoseconds can say: from 1677 to 2262."""

_INSTANTS = ("TIMESTAMP", "DATE")
_OF_NUMBERS = ("sum", "mean", "var", "std")


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregation of one column.

    Attributes:
        name: of the result's column.
        function: one of FUNCTIONS.
        column: its input; None: rows are counted.
        width_us: W of the sliding window, microseconds; None: the range (start, t].
        hop_us: h.
    """

    name: str
    function: str
    column: str | None
    width_us: int | None = None
    hop_us: int = 1

    def lower_us(self, at_us: int, start_us: int) -> int:
        """After which instant the window begins that is asked at `at_us`.

        >>> Aggregation("n", "count", None, 3_600_000_000, 60_000_000).lower_us(7_230_000_000, 0) // 60_000_000
        60
        """
        return start_us if self.width_us is None else (at_us - self.width_us) // self.hop_us * self.hop_us


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        of: what the answers are for, in words of errors: "View 'spend' (source 'events')".
        rows: the SQL of a table of events; it is read up to twice. keys, time: its columns; time is a timestamp, one
            without zone is UTC.
        aggregations: at least one. at_us: t, microseconds.
        start_us: where the range begins; entities whose windows emptied since then are told so.
        order: columns that break ties of `first` and `last` at one instant, such as when the row was created; then the
            value itself does, so that the answer depends on the events alone.
    """

    of: str
    rows: str
    keys: tuple[str, ...]
    time: str
    aggregations: tuple[Aggregation, ...]
    at_us: int
    start_us: int
    order: tuple[str, ...] = ()

    @property
    def lower_us(self) -> int:
        """Events at this instant or before are in no window that was asked at `start_us` or since."""
        return min(each.lower_us(min(self.start_us, self.at_us), self.start_us) for each in self.aggregations)


@dataclass(frozen=True)
class Answers:
    """One row per entity: keys, the instant (called `time`, timestamp of microseconds in UTC), values.

    Attributes:
        rows: how many. batches: the rows, once.
    """

    rows: int
    batches: Iterator[pa.RecordBatch]


def answer(connection: duckdb.DuckDBPyConnection, question: Question, *, batch_rows: int = BATCH) -> Answers:
    """Answer a question. What memory cannot hold goes to the folder for temporary files, as `connection` is set.

    Counts and sums of whole numbers are int64 (a sum beyond is null), other sums, means, variances and deviations
    float64 (decimal sums are decimals); min, max, first and last have the type of their column. Variances are of the
    sample.

    Raises:
        DefinitionError: a column that the rows lack or that the function cannot take, an unknown function.
        duckdb.Error: the rows cannot be read.
    """
    connection.execute("SET TimeZone = 'UTC'")
    types = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE SELECT * FROM {question.rows}").fetchall()}
    _check(question, types)
    columns = {each: f"c{at}" for at, each in enumerate(_inputs(question))}
    keys = [f"k{at}" for at in range(len(question.keys))]
    asked = [_expression(question, each, types, columns) for each in question.aggregations]
    doubtful = doubts([(f"a{at}", input_, how) for at, (_, input_, how) in enumerate(asked) if how is not None])
    wanted = [f"{sql} AS a{at}" for at, (sql, _, _) in enumerate(asked)] + [
        f"coalesce({each.condition}, false) AS d{at}" for at, each in enumerate(doubtful)
    ]
    covered = _covered(question, types, columns)
    grouped = f"GROUP BY {', '.join(keys)}" if keys else "HAVING count(*) > 0"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE answers AS SELECT {', '.join([*keys, *wanted])} FROM {covered} {grouped}"
    )
    again = _again(connection, question, covered, keys, doubtful)
    ((counted,),) = connection.execute("SELECT count(*) FROM answers").fetchall()
    return Answers(counted, _batches(connection, question, keys, again, batch_rows))


def _again(
    connection: duckdb.DuckDBPyConnection, question: Question, covered: str, keys: list[str], doubtful: list[Doubt]
) -> set[str]:
    """Compute anew what is in doubt, into the table `anew`; which columns it has."""
    import pyarrow as pa

    flags = " OR ".join(f"d{at}" for at in range(len(doubtful)))
    if not flags or not connection.execute(f"SELECT 1 FROM answers WHERE {flags} LIMIT 1").fetchall():
        return set()
    lists = [
        f"list(CAST({each.input} AS DOUBLE)) FILTER (WHERE {each.taken}) AS l{at}" for at, each in enumerate(doubtful)
    ]
    only = f"SEMI JOIN (SELECT {', '.join(keys)} FROM answers WHERE {flags}) USING ({', '.join(keys)})" if keys else ""
    grouped = f"GROUP BY {', '.join(keys)}" if keys else ""
    found = connection.sql(f"SELECT {', '.join([*keys, *lists])} FROM {covered} {only} {grouped}")
    tables = []
    for batch in found.to_arrow_reader(1000):
        exact = [
            pa.array([reckoned(each.how, values) for values in batch.column(f"l{at}").to_pylist()], pa.float64())
            for at, each in enumerate(doubtful)
        ]
        arrays = [*(batch.column(each) for each in keys), *exact]
        tables.append(pa.table(arrays, names=[*keys, *(each.column for each in doubtful)]))
    connection.register("anew", pa.concat_tables(tables))
    return {each.column for each in doubtful}


def _batches(
    connection: duckdb.DuckDBPyConnection, question: Question, keys: list[str], again: set[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    selects = [f"answers.{key} AS {name(shown)}" for key, shown in zip(keys, question.keys, strict=True)]
    selects.append(f"{instant(question.at_us)} AS {name(question.time)}")
    for at, each in enumerate(question.aggregations):
        column = f"a{at}"
        value = (
            f"CASE WHEN there THEN anew.{column} ELSE answers.{column} END" if column in again else f"answers.{column}"
        )
        selects.append(f"{value} AS {name(each.name)}")
    joined = ""
    if again:
        on = " AND ".join(f"answers.{key} = anew.{key}" for key in keys) or "true"
        joined = f" LEFT JOIN (SELECT *, true AS there FROM anew) AS anew ON {on}"
    yield from connection.sql(f"SELECT {', '.join(selects)} FROM answers{joined}").to_arrow_reader(batch_rows)


def _covered(question: Question, types: dict[str, str], columns: dict[str, str]) -> str:
    """The SQL of the events that some window covers: k0.., t, o0.., c0..; NaN is null."""
    selects = [f"{name(key)} AS k{at}" for at, key in enumerate(question.keys)]
    selects.append(f"{name(question.time)} AS t")
    selects += [f"{name(each)} AS o{at}" for at, each in enumerate(question.order)]
    for column, short in columns.items():
        plain = name(column)
        value = f"CASE WHEN isnan({plain}) THEN NULL ELSE {plain} END" if types[column] in _FLOATS else plain
        selects.append(f"{value} AS {short}")
    time, kind = name(question.time), types[question.time]
    where = [_after(time, kind, question.lower_us), _until(time, kind, question.at_us)]
    where += [f"{name(key)} IS NOT NULL" for key in question.keys]
    return f"(SELECT {', '.join(selects)} FROM {question.rows} WHERE {' AND '.join(where)})"


def _expression(
    question: Question, asked: Aggregation, types: dict[str, str], columns: dict[str, str]
) -> tuple[str, tuple[str, str], str | None]:
    """The SQL of one aggregation; its input and which rows it takes; how to do it again when in doubt, or None."""
    inside = _after("t", types[question.time], asked.lower_us(question.at_us, question.start_us))
    if asked.column is None:
        return f"count(*) FILTER (WHERE {inside})", ("t", inside), None
    column = columns[asked.column]
    kind = types[asked.column]
    taken = f"{inside} AND {column} IS NOT NULL"
    only = f"FILTER (WHERE {taken})"
    number = f"CAST({column} AS DOUBLE)"
    whole = kind in _WHOLE_NUMBERS
    order = ", ".join(["t", *(f"o{at}" for at in range(len(question.order))), column])
    sql = {
        "count": f"count({column}) {only}",
        "count_distinct": f"count(DISTINCT {column}) {only}",
        "min": f"min({column}) {only}",
        "max": f"max({column}) {only}",
        "first": f"arg_min({column}, ({order})) {only}",
        "last": f"arg_max({column}, ({order})) {only}",
        "var": f"var_samp({number}) {only}",
        "std": f"stddev_samp({number}) {only}",
    }
    if asked.function in ("var", "std"):
        return sql[asked.function], (column, taken), asked.function
    if asked.function not in ("sum", "mean"):
        return sql[asked.function], (column, taken), None
    if whole:
        total = f"sum(CAST({column} AS HUGEINT)) {only}"
        if asked.function == "sum":
            return (
                f"CASE WHEN count({column}) {only} = 0 THEN 0 ELSE TRY_CAST({total} AS BIGINT) END",
                (column, taken),
                None,
            )
        return f"CAST({total} AS DOUBLE) / nullif(count({column}) {only}, 0)", (column, taken), None
    if asked.function == "sum" and kind.startswith("DECIMAL"):
        return f"coalesce(sum({column}) {only}, 0)", (column, taken), None
    total = f"fsum({number}) {only}"
    if asked.function == "sum":
        return f"coalesce({total}, 0.0)", (column, taken), "sum"
    return f"{total} / nullif(count({column}) {only}, 0)", (column, taken), "mean"


def _after(column: str, kind: str, us: int) -> str:
    """Events later than `us`; what is finer than microseconds is cut off, as everywhere (C1)."""
    return f"{column} >= {_literal(us + 1, kind)}" if "_NS" in kind else f"{column} > {_literal(us, kind)}"


def _until(column: str, kind: str, us: int) -> str:
    return f"{column} < {_literal(us + 1, kind)}" if "_NS" in kind else f"{column} <= {_literal(us, kind)}"


def _literal(us: int, kind: str) -> str:
    """An instant to compare a column of timestamps with; without zone it is UTC, as the connection is."""
    if "_NS" in kind:
        return f"CAST(make_timestamp_ns({min(max(us, -_FINEST), _FINEST) * 1000}) AS {kind})"
    return instant(us) if "TIME ZONE" in kind else f"CAST({instant(us)} AS TIMESTAMP)"


def _inputs(question: Question) -> list[str]:
    return list(dict.fromkeys(each.column for each in question.aggregations if each.column is not None))


def _check(question: Question, types: dict[str, str]) -> None:
    for column in (*question.keys, question.time, *question.order, *_inputs(question)):
        if column not in types:
            raise DefinitionError(
                f"{question.of}: no column '{column}'{did_you_mean(column, types)} It has: {', '.join(types)}."
            )
    if not types[question.time].startswith(_INSTANTS):
        raise DefinitionError(
            f"{question.of}: column '{question.time}' says when things happened and is {types[question.time]}; "
            "expected a timestamp. Write the source with one."
        )
    for each in question.aggregations:
        _check_aggregation(f"{question.of}: '{each.name}' asks for", each, types)


def _check_aggregation(asks: str, asked: Aggregation, types: dict[str, str]) -> None:
    function, column = asked.function, asked.column
    if function not in FUNCTIONS:
        raise DefinitionError(
            f"{asks} function '{function}'{did_you_mean(function, FUNCTIONS)} There are: {', '.join(FUNCTIONS)}."
        )
    if column is None:
        if function != "count":
            raise DefinitionError(f"{asks} {function} of no column; only count needs none. Name a column.")
        return
    kind = types[column]
    if function in _OF_NUMBERS and not (kind in (*_WHOLE_NUMBERS, *_FLOATS) or kind.startswith("DECIMAL")):
        raise DefinitionError(
            f"{asks} {function} of column '{column}', which is {kind}; expected numbers. Count it, or take its first, "
            "last, min or max."
        )


def canonical(function: str) -> str:
    """The name of a function among FUNCTIONS, from any of its names; what is unknown stays.

    >>> canonical("AVG"), canonical("stddev"), canonical("mode")
    ('mean', 'std', 'mode')
    """
    lower = function.strip().lower()
    return ALIASES.get(lower, lower)
