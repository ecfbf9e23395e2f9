"""From a call such as `Ride.fare.mean(last=["1h", "1d"], where=...)` to features, with every option checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headrace.features import dtypes
from headrace.features.aggregations import Aggregation, Count
from headrace.features.buckets import BUCKETS, ByBucket
from headrace.features.columns import Column, Expression, Literal, Logic, Row, expr_key, leaves, replace_leaves
from headrace.features.decay import DecayedMean, DecayedSum
from headrace.features.errors import DefinitionError, did_you_mean
from headrace.features.features import MISSING, AggregateFeature, FeatureGroup
from headrace.features.rules import as_condition
from headrace.features.time import duration_us
from headrace.features.windows import WINDOWS, Lifetime, Session, Sliding, Window

if TYPE_CHECKING:
    from headrace.features.stateful import Stateful

_OPTIONS = ("last", "hop", "exact", "over", "ending", "where", "by", "top", "default")
_CHOICES = (
    "last='1h' (sliding), over=Tumbling('1d'), over=Hopping('1h', hop='5m'), over=Session('30m'), over=LastN(10) "
    "or over=Lifetime()"
)

Choice = tuple[str, Aggregation]


def aggregate_rows(
    event: str, condition: Expression | None, options: Mapping[str, Any]
) -> AggregateFeature | FeatureGroup:
    """count(): the rows of an event, those of `condition` when it is given."""
    return _build(event, None, condition, [("", Count())], options, f"{event}.count")


def aggregate_column(
    value: Expression, aggregation: Aggregation | list[Choice], options: Mapping[str, Any]
) -> AggregateFeature | FeatureGroup:
    """An aggregation (or several, with labels) of a column or an expression over columns."""
    choices = aggregation if isinstance(aggregation, list) else [("", aggregation)]
    if not choices:
        raise DefinitionError(f"{value}.quantile: the list of q is empty. Name at least one, such as [0.5, 0.95].")
    call = f"{value}.{choices[0][1].kind if choices[0][1].kind != 'custom' else 'aggregate'}"
    event, condition, column = _source_of(value, call)
    for _, each in choices:
        if not each.accepts(column.dtype):
            raise DefinitionError(_wrong_type(call, each, column))
    return _build(event, column, condition, choices, options, call)


def learn_row(
    row: Row, aggregation: Stateful, options: Mapping[str, Any], call: str
) -> AggregateFeature | FeatureGroup:
    """A stateful feature: an object that learns from rows of columns."""
    for name in ("last", "hop", "exact", "ending", "by", "top"):
        if options.get(name) is not None:
            raise DefinitionError(
                f"{call}: it has no option '{name}'. An object learns from every event of its entity in order, and "
                "nothing can be taken from it again: over=Lifetime() (the default), or over=Session('7d') for a new "
                "object after 7 days of silence; where= and default= as everywhere."
            )
    over = options.get("over", Lifetime())
    if not isinstance(over, (Lifetime, Session)) or over.ending_us:
        raise DefinitionError(
            f"{call}: over={over!r}: an object that learns has over=Lifetime(), or over=Session('7d') for a new one "
            "after 7 days of silence."
        )
    event, condition, column = _source_of(row, call)
    return _build(event, column, condition, [("", aggregation)], {**options, "over": over}, call)


def _build(
    event: str,
    column: Expression | None,
    condition: Expression | None,
    choices: list[Choice],
    options: Mapping[str, Any],
    call: str,
) -> AggregateFeature | FeatureGroup:
    for name in options:
        if name not in _OPTIONS:
            raise DefinitionError(
                f"{call}: it has no option '{name}'{did_you_mean(name, _OPTIONS)} The options are: "
                f"{', '.join(_OPTIONS)}."
            )
    several, windows = _windows(options, choices[0][1], call)
    where = _where(event, condition, options.get("where"), call)
    by = _by(event, options, call)
    members: dict[str, AggregateFeature] = {}
    for label, aggregation in choices:
        if by is not None and aggregation.kind == "decayed_sum":
            raise DefinitionError(
                f"{call}: by= does not go with decayed_sum, because a stored map cannot decay between events. Use "
                "decayed_mean, or one decayed_sum per bucket with where=."
            )
        agg = aggregation if by is None else ByBucket(aggregation, options.get("top", 20), by.dtype)
        result = agg.out_dtype(column.dtype if column is not None else None)
        default = options.get("default", MISSING)
        if default is not MISSING:
            default = dtypes.coerce(default, result, f"{call}: default")
        for window in windows:
            name = "_".join(filter(None, (label, window.label if several else "")))
            if name in members:
                raise DefinitionError(
                    f"{call}: '{name}' is listed twice. Two of one length need separate lines and names."
                )
            members[name] = AggregateFeature(agg, column, where, window, by, default, event)
    if "" in members:
        return members[""]
    return FeatureGroup(members)


def _windows(options: Mapping[str, Any], aggregation: Aggregation, call: str) -> tuple[bool, list[Window]]:
    """Whether a list was given, and the windows."""
    last, ending = options.get("last"), options.get("ending")
    over: Any = options.get("over")
    if last is not None and over is not None:
        raise DefinitionError(
            f"{call}: got both last= and over=. Give one of them; last='1h' is short for over=Sliding('1h')."
        )
    for name in ("hop", "exact"):
        if options.get(name) and last is None:
            raise DefinitionError(
                f"{call}: {name}= goes with last=. Write last='1h', {name}=..., or over=Hopping('1h', hop='5m')."
            )
    if last is not None:
        several = _is_list(last)
        widths = list(last) if several else [last]
        if not widths:
            raise DefinitionError(
                f"{call}: last= is an empty list. Name at least one width, such as last=['1h', '1d']."
            )
        try:
            return several, [Sliding(width, options.get("hop"), bool(options.get("exact")), ending) for width in widths]
        except DefinitionError as error:
            raise DefinitionError(f"{call}: {error}") from None
    if over is None:
        if isinstance(aggregation, (DecayedSum, DecayedMean)):
            over = Lifetime()
        else:
            raise DefinitionError(f"{call}: it names no window. Say which events it covers: {_CHOICES}.")
    several = _is_list(over)
    windows: list[Any] = [*over] if several else [over]
    if not windows:
        raise DefinitionError(f"{call}: over= is an empty list. Name at least one window.")
    for window in windows:
        if not isinstance(window, WINDOWS):
            shown = f"the class {window.__name__}" if isinstance(window, type) else repr(window)
            raise DefinitionError(f"{call}: over= takes a window, got {shown}. Say which events it covers: {_CHOICES}.")
    return several, [_moved(window, ending, call) for window in windows]


def _moved(window: Window, ending: str | timedelta | None, call: str) -> Window:
    if ending is None:
        return window
    if window.ending_us:
        raise DefinitionError(
            f"{call}: {window!r} has its own ending, and ending={ending!r} is given too. Give one of them."
        )
    from copy import copy

    moved = copy(window)
    object.__setattr__(moved, "ending_us", duration_us(ending, f"{call}: ending"))
    return moved


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _source_of(value: Expression, call: str) -> tuple[str, Expression | None, Expression]:
    """Event, rows and plain expression of what is aggregated; the rows are those of `Ride.where(...)`, if any."""
    columns = [leaf for leaf in leaves(value) if isinstance(leaf, Column)]
    if not columns or any(not isinstance(leaf, (Column, Literal)) for leaf in leaves(value)):
        raise DefinitionError(
            f"{call}: only columns of an event can be aggregated. To combine features use derived(...)."
        )
    events = {column.event for column in columns}
    if len(events) > 1:
        raise DefinitionError(
            f"{call}: it mixes columns of the events {' and '.join(sorted(events))}. Use those of one event."
        )
    filters = {expr_key(column.filter): column.filter for column in columns}
    if len(filters) > 1:
        raise DefinitionError(
            f"{call}: its columns come from differently filtered events. "
            "Take them all from one, and filter with where=."
        )
    return columns[0].event, columns[0].filter, _unfiltered(value)


def _unfiltered(value: Expression) -> Expression:
    def plain(leaf: Expression) -> Expression:
        if isinstance(leaf, Column) and leaf.filter is not None:
            return Column(leaf.event, leaf.name, leaf.dtype, leaf.nullable)
        return leaf

    return replace_leaves(value, plain)


def _where(event: str, bound: Expression | None, given: Any, call: str) -> Expression | None:
    if given is None:
        return bound
    condition = condition_on(event, given, f"{call}: where=")
    return condition if bound is None else Logic("&", bound, condition)


def condition_on(event: str, given: Any, name: str) -> Expression:
    """A condition over the columns of one event, without the filters its columns may carry."""
    condition = as_condition(given, name)
    for leaf in leaves(condition):
        if not isinstance(leaf, (Column, Literal)):
            raise DefinitionError(f"{name} {condition}: a condition on rows reads columns of the event, not features.")
        if isinstance(leaf, Column) and leaf.event != event:
            raise DefinitionError(
                f"{name} {condition}: {leaf} is a column of {leaf.event}, but the rows are of {event}."
            )
    return _unfiltered(condition)


def _by(event: str, options: Mapping[str, Any], call: str) -> Expression | None:
    by = options.get("by")
    if by is None:
        if "top" in options:
            raise DefinitionError(f"{call}: top= goes with by=, the column whose values are the buckets.")
        return None
    if not isinstance(by, Expression):
        raise DefinitionError(f"{call}: by= takes a column such as {event}.city, got {by!r}.")
    for leaf in leaves(by):
        if isinstance(leaf, Column) and leaf.event != event:
            raise DefinitionError(f"{call}: by={by} is a column of {leaf.event}, but the rows are of {event}.")
        if not isinstance(leaf, (Column, Literal)):
            raise DefinitionError(f"{call}: by={by} must be a column of the event.")
    if by.dtype not in BUCKETS:
        raise DefinitionError(f"{call}: by={by} is {by.dtype}; buckets are made of {', '.join(BUCKETS)}.")
    return _unfiltered(by)


def _wrong_type(call: str, aggregation: Aggregation, column: Expression) -> str:
    if aggregation.kind == "custom":
        return (
            f"{call}: {aggregation} does not take {column}, which is {column.dtype}. "
            "Its `takes` lists the types it takes."
        )
    accepted = ", ".join(aggregation.takes)
    text = f"{call}: {column} is {column.dtype}, and {aggregation.kind} takes {accepted}."
    if column.dtype == dtypes.STRING:
        return text + (
            " Of text use distinct, top_k, first, last or count(by=...); "
            "declare the column as float if it holds numbers."
        )
    if column.dtype == dtypes.BOOL:
        return text + " Of a condition use mean (its share) or sum (how often it is true)."
    if column.dtype == dtypes.TIMESTAMP:
        return text + " Of instants use min, max, first or last; the difference of two instants is a number of seconds."
    return text
