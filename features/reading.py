"""From a stored row to what a reader gets at t: max age, decay, derived features, statuses.

This is the one place that applies them. The lookup client reads a row at a time (`read_at`), a training set reads
columns (`read_columns`); both give the same (contract C11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headrace.features import derivation
from headrace.features.decay import decay
from headrace.features.errors import DataError
from headrace.features.features import MISSING, AggregateFeature
from headrace.features.views import ViewDefinition

if TYPE_CHECKING:
    from headrace.features.evaluate import Array, Columns, Pair
    from headrace.features.naming import NamedFeature


class Status(StrEnum):
    """What a value is.

    PRESENT: computed from events. NULL: computed, and there is none. NOT_FOUND: the entity has never been seen.
    OUTSIDE_MAX_AGE: its newest event is older than the view's ttl. DEFAULT: the value is the feature's default.
    FAILED: the store could not be asked, and the caller wanted a partial answer; the value is null.
    With NOT_FOUND and OUTSIDE_MAX_AGE the value is that of an empty window: the default, 0 or null.
    """

    PRESENT = "PRESENT"
    NULL = "NULL"
    NOT_FOUND = "NOT_FOUND"
    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"
    DEFAULT = "DEFAULT"
    FAILED = "FAILED"


STATUSES = tuple(Status)
"""Statuses by the code that `read_columns` gives: 0 PRESENT, 1 NULL, 2 NOT_FOUND, 3 OUTSIDE_MAX_AGE, 4 DEFAULT.
5 FAILED occurs in lookups only."""

Values = dict[str, Any]
Statuses = dict[str, Status]


def read_at(
    view: ViewDefinition, values: Mapping[str, Any] | None, as_of_us: int | None, newest_us: int | None, t_us: int
) -> tuple[Values, Statuses]:
    """One entity's public features at t.

    Args:
        view: the definition under which the row was written.
        values: the stored row (`view.stored_names`), defaults applied; None when the entity has no row.
        as_of_us: the row's `event_timestamp`, microseconds.
        newest_us: the row's `newest_event`, microseconds.
        t_us: the instant asked. A row from after t is read as it is.

    Returns:
        values and statuses by name, in order of definition; instants as int microseconds. Both are the caller's own.

    Raises:
        DataError: the row lacks a feature of the view.
    """
    plan = _plan(view)
    if values is None or as_of_us is None or newest_us is None:
        return dict(plan.empty), dict.fromkeys(plan.names, Status.NOT_FOUND)
    if view.ttl_us is not None and newest_us <= t_us - view.ttl_us:
        return dict(plan.empty), dict.fromkeys(plan.names, Status.OUTSIDE_MAX_AGE)
    if view.decaying and t_us > as_of_us:
        values = _moved(view, plan, values, t_us - as_of_us)
    try:
        out = {name: values[name] for name in plan.names}
    except KeyError as error:
        raise _lacking(view, error.args[0]) from None
    statuses = dict.fromkeys(plan.names, Status.PRESENT)
    for name, value in out.items():
        if value is None:
            statuses[name] = Status.NULL
        elif name in plan.defaults and value == plan.defaults[name]:
            statuses[name] = Status.DEFAULT
    return out, statuses


Row = tuple[tuple[Any, ...], int, int]
"""Values, event_timestamp and newest_event of a stored row, microseconds."""


class RowReader:
    """Reads some public features of many rows of a view; `read_at` for lookups, made once per choice of features.

    Attributes:
        stored: features that the rows must hold, in the order of their values.
        names: the features that are read. defaults: by place in `names`, the default a value can have.
    """

    def __init__(self, view: ViewDefinition, names: tuple[str, ...]) -> None:
        plan = _plan(view)
        wanted = set(names)
        for each in reversed(view.rederived):
            if each.name in wanted:
                wanted.update(_inputs(each))
        self.view, self.names = view, names
        self.stored = (*names, *(name for name in view.stored_names if name in wanted and name not in names))
        self.empty: tuple[Any, ...] = tuple(plan.empty[name] for name in names)
        self.defaults = {at: plan.defaults[name] for at, name in enumerate(names) if name in plan.defaults}
        self._plan = plan
        self._decaying = [
            (at, view.decaying[name], plan.defaults.get(name, MISSING))
            for at, name in enumerate(self.stored)
            if name in view.decaying
        ]
        self._rederived = tuple(each for each in view.rederived if each.name in wanted)
        self._inputs = [(at, name) for at, name in enumerate(self.stored) if name in plan.inputs]

    def read(self, found: Sequence[Row | None], t_us: int) -> tuple[list[tuple[Any, ...]], list[Status | None] | None]:
        """The features of n entities at t.

        Args:
            found: rows with the values of `stored`, None where there is none.

        Returns:
            values in the order of `names`; and why they are those of an empty window, None for a value that was stored.
            None for the whole: all were.
        """
        ttl, empty = self.view.ttl_us, self.empty
        oldest = None if ttl is None else t_us - ttl
        if None in found or oldest is not None:
            why = [
                Status.NOT_FOUND
                if row is None
                else (Status.OUTSIDE_MAX_AGE if oldest is not None and row[2] <= oldest else None)
                for row in found
            ]
        else:
            why = None
        if self._decaying:
            found = self._carried(found, t_us)
        n = len(self.names)
        if len(self.stored) == n:
            rows = [empty if row is None else row[0] for row in found]
        else:
            rows = [empty if row is None else row[0][:n] for row in found]
        if why is None or why.count(None) == len(why):
            return rows, None
        return [row if each is None else empty for row, each in zip(rows, why, strict=True)], why

    def _carried(self, found: Sequence[Row | None], t_us: int) -> list[Row | None]:
        """The rows carried on to t, with what is derived from decaying sums computed anew."""
        out, moved = list(found), []
        for at, row in enumerate(found):
            if row is None or row[1] >= t_us:
                continue
            values, elapsed = list(row[0]), t_us - row[1]
            for place, half_life, default in self._decaying:
                # A default stands for "no inputs": it is no sum and does not decay.
                if values[place] is not None and values[place] != default:
                    values[place] *= decay(elapsed, half_life)
            moved.append((at, values))
        if self._rederived and moved:
            dtypes, places = self.view.dtypes, {name: place for place, name in enumerate(self.stored)}
            columns = {name: column_of([values[at] for _, values in moved], dtypes[name]) for at, name in self._inputs}
            made = derivation.derive(self._rederived, columns, dtypes, len(moved))
            for name, (new, valid) in made.items():
                if name in places:
                    for (_, values), value, ok in zip(moved, new.tolist(), valid.tolist(), strict=True):
                        values[places[name]] = value if ok else None
        for at, values in moved:
            before = found[at]
            assert before is not None
            out[at] = tuple(values), before[1], before[2]
        return out


@lru_cache(maxsize=4096)
def row_reader(view: ViewDefinition, names: tuple[str, ...]) -> RowReader:
    """The reader of some features of a view."""
    return RowReader(view, names)


def read_columns(
    view: ViewDefinition,
    columns: Columns,
    as_of: Array,
    newest: Array,
    t: Array,
    found: Array | None = None,
    names: tuple[str, ...] | None = None,
) -> tuple[dict[str, Pair], dict[str, Array]]:
    """The public features of n questions, each answered by its stored row; `read_at` on columns.

    Args:
        view: the definition under which the rows were written. columns: name -> (values, valid), each (n,), for
        `view.stored_names`. as_of, newest, t: (n,) int64 microseconds: the rows' `event_timestamp` and `newest_event`,
        and the instants asked. found: (n,) bool, False where the entity has no row (the other columns then mean
        nothing there); None: all have. names: only these features; `columns` are then those of
        `row_reader(view, names).stored`.

    Returns:
        name -> (values, valid) and name -> (n,) int8 codes of `STATUSES`, in order of definition or of `names`. They
        are the caller's own as far as something was changed; where nothing was, they are the arrays given.
    """
    import numpy as np

    plan = _plan(view)
    reader = row_reader(view, plan.names if names is None else names)
    n = len(t)
    known = dict(columns)
    for name in reader.names:
        if name not in known:
            raise _lacking(view, name)
    there = np.ones(n, dtype=np.bool_) if found is None else found.astype(np.bool_)
    old = np.zeros(n, dtype=np.bool_) if view.ttl_us is None else there & (newest <= t - view.ttl_us)
    if view.decaying and n:
        _move_columns(reader, plan, known, np.where(there, np.maximum(t - as_of, 0), 0), n)
    gone = old | ~there
    values: dict[str, Pair] = {}
    codes: dict[str, Array] = {}
    for name in reader.names:
        column = known[name]
        status = status_codes(column, plan.defaults.get(name, MISSING))
        if gone.any():
            column = _emptied(column, gone, plan.empty[name])
            status[~there] = STATUSES.index(Status.NOT_FOUND)
            status[old] = STATUSES.index(Status.OUTSIDE_MAX_AGE)
        values[name], codes[name] = column, status
    return values, codes


def status_codes(column: Pair, default: Any = MISSING) -> Array:
    """(n,) int8 codes of `STATUSES` of values that were computed: PRESENT, NULL, or DEFAULT where they equal it."""
    import numpy as np

    status = np.where(column[1], 0, 1).astype(np.int8)
    if default is not MISSING and default is not None:
        status[_equal(column, default)] = STATUSES.index(Status.DEFAULT)
    return status


def derive(view: ViewDefinition, columns: Columns, n: int) -> dict[str, Pair]:
    """All derived features of n rows from the aggregated ones (hidden included, defaults applied), defaults applied."""
    return derivation.derive(view.derivations, columns, view.dtypes, n)


def empty_row(view: ViewDefinition, *, hidden: bool = False) -> Values:
    """The features of an entity that was never seen: aggregations of nothing, defaults, and what is derived from them.

    Args:
        hidden: also the hidden ones.
    """
    plan = _plan(view)
    return dict(plan.empty_all if hidden else plan.empty)


@dataclass(frozen=True)
class _Plan:
    """What reading a view needs, worked out once."""

    names: tuple[str, ...]
    empty: Values
    empty_all: Values
    defaults: Values
    inputs: tuple[str, ...]
    """Features that the rederived ones read and that are stored."""


@lru_cache(maxsize=1024)
def _plan(view: ViewDefinition) -> _Plan:
    empty: Values = {}
    for each in view.aggregates:
        assert isinstance(each.feature, AggregateFeature)
        empty[each.name] = each.feature.empty
    columns = {name: column_of([value], view.dtypes[name]) for name, value in empty.items()}
    for name, (values, valid) in derive(view, columns, 1).items():
        empty[name] = values[:1].tolist()[0] if valid[0] else None
    names = view.feature_names()
    defaults = {each.name: each.feature.default for each in view.features if each.feature.default is not MISSING}
    made = {each.name for each in view.rederived}
    inputs = dict.fromkeys(name for each in view.rederived for name in _inputs(each) if name not in made)
    return _Plan(
        names=names,
        empty={name: empty[name] for name in names},
        empty_all={each.name: empty[each.name] for each in view.features},
        defaults={name: value for name, value in defaults.items() if value is not None},
        inputs=tuple(inputs),
    )


def _inputs(named: NamedFeature) -> tuple[str, ...]:
    return named.feature.inputs  # type: ignore[union-attr]


def _moved(view: ViewDefinition, plan: _Plan, values: Mapping[str, Any], elapsed_us: int) -> Values:
    """The row with its decaying sums carried on by `elapsed_us`, and what is derived from them computed anew."""
    out = dict(values)
    for name, half_life in view.decaying.items():
        value = out.get(name)
        # A default stands for "no inputs": it is no sum and does not decay.
        if value is not None and value != plan.defaults.get(name, MISSING):
            out[name] = value * decay(elapsed_us, half_life)
    if view.rederived:
        try:
            columns = {name: column_of([out[name]], view.dtypes[name]) for name in plan.inputs}
        except KeyError as error:
            raise _lacking(view, error.args[0]) from None
        for name, (made, valid) in derivation.derive(view.rederived, columns, view.dtypes, 1).items():
            out[name] = made[:1].tolist()[0] if valid[0] else None
    return out


def _move_columns(reader: RowReader, plan: _Plan, known: dict[str, Pair], elapsed: Array, n: int) -> None:
    """`_moved` on columns, in place of the entries of `known`."""
    import numpy as np

    view = reader.view
    still = elapsed == 0
    for name, half_life in view.decaying.items():
        if name in known:
            values, valid = known[name]
            # Power by power, as `decay` has it: NumPy's own takes other roads, and one in twenty ends a bit elsewhere.
            factors = np.fromiter(map((2.0).__pow__, (-(elapsed / half_life)).tolist()), np.float64, n)
            moved = np.where(valid, values, 0.0).astype(np.float64) * factors
            fixed = _equal((values, valid), plan.defaults[name]) if name in plan.defaults else still
            known[name] = np.where(fixed | still, values, moved).astype(np.float64), valid
    if reader._rederived:
        for _, name in reader._inputs:
            if name not in known:
                raise _lacking(view, name)
        for name, (made, ok) in derivation.derive(reader._rederived, known, view.dtypes, n).items():
            if name in known:  # as in `read_at`, a row read at its own instant is read as it is
                made, ok = _where(still, known[name], (made, ok))
            known[name] = made, ok


def column_of(values: list[Any], dtype: str) -> Pair:
    """A column of Python values, None where missing."""
    import numpy as np

    from headrace.features.evaluate import typed

    plain = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        plain[i] = value
    valid = np.array([value is not None for value in values], dtype=np.bool_)
    return typed(plain, valid, dtype), valid


def _equal(column: Pair, value: Any) -> Array:
    """(n,) bool: present and equal to `value`."""
    import numpy as np

    values, valid = column
    if values.dtype == object:
        return np.array([bool(ok) and each == value for each, ok in zip(values, valid, strict=True)], dtype=np.bool_)
    return np.asarray(valid & (values == value), dtype=np.bool_)


def _where(chosen: Array, a: Pair, b: Pair) -> Pair:
    import numpy as np

    if not chosen.any():
        return b
    if chosen.all():
        return a
    return np.where(chosen, a[0], b[0]), np.where(chosen, a[1], b[1])


def _emptied(column: Pair, gone: Array, empty: Any) -> Pair:
    values, valid = column[0].copy(), column[1].copy()
    valid[gone] = empty is not None
    if empty is not None:
        if values.dtype == object:
            for i in gone.nonzero()[0]:
                values[i] = empty
        else:
            values[gone] = empty
    elif values.dtype == object:
        values[gone] = None
    return values, valid


def _lacking(view: ViewDefinition, name: str) -> DataError:
    return DataError(
        f"View '{view.name}': the stored row lacks feature '{name}'. "
        "It was written under another definition of the view: "
        "run the flow again to write rows of this one."
    )
