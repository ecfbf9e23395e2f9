"""Plain descriptions as Headrace definitions, through the public API."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from headrace.features import (
    CustomAggregation,
    Entity,
    Event,
    EventTime,
    Hopping,
    IterableSource,
    LastN,
    Lifetime,
    Session,
    Sliding,
    Tumbling,
    ViewDefinition,
    define,
    derived,
)
from headrace.features.sources import Source
from tests.oracle.described import EXPRESSIONS, MISSING, Derived, Feature, Stream, View, Where, Window


class Happening(Event):
    """The columns of `described.COLUMNS`."""

    who: str
    where_from: int
    id: str | None
    amount: float | None
    units: int | None
    city: str | None
    paid: bool | None
    at: EventTime


@dataclass(frozen=True)
class Spread(CustomAggregation):
    """[least, greatest, how many]: what `exact.spread` gives."""

    output = "list<float64>"

    def init(self) -> list[Any]:
        return []

    def update(self, state: list[Any], value: Any) -> list[Any]:
        return self.merge(state, [value, value, 1])

    def merge(self, a: list[Any], b: list[Any]) -> list[Any]:
        return [min(a[0], b[0]), max(a[1], b[1]), a[2] + b[2]] if a and b else a or list(b)

    def finish(self, state: list[Any]) -> list[float]:
        return [float(x) for x in state]


class Halving:
    """An object that learns: what `exact.learned` gives. Its state is deep, shared and circular."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.told = {"now": 0.0}
        self.again = (self.told, {"self": self})

    def learn(self, x: Any) -> None:
        self.inputs.append(x)
        at = len(self.inputs) - 1
        self.again[0]["now"] = self.told["now"] / 2 + x + (self.inputs[at - 1] if at % 3 == 2 else 0.0)

    def value(self) -> float:
        told: Halving = self.again[1]["self"]  # type: ignore[assignment]
        return told.told["now"]


def us(value: int) -> timedelta:
    return timedelta(microseconds=value)


def window_of(window: Window) -> Any:
    ending = us(window.ending) if window.ending else None
    if window.kind == "sliding":
        if window.hop == 1:
            return Sliding(us(window.width), exact=True, ending=ending)
        return Sliding(us(window.width), hop=us(window.hop), ending=ending)
    if window.kind == "hopping":
        return Hopping(us(window.width), hop=us(window.hop), ending=ending)
    if window.kind in ("tumbling", "current"):
        return Tumbling(us(window.width), current=window.kind == "current", ending=ending)
    if window.kind == "session":
        return Session(us(window.width), ending=ending)
    if window.kind == "last":
        return LastN(window.n, ending=ending)
    return Lifetime(ending=ending)


COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def condition_of(where: Where) -> Any:
    if where.op == "not":
        return ~condition_of(where.args[0])
    if where.op in ("and", "or"):
        left, right = map(condition_of, where.args)
        return left & right if where.op == "and" else left | right
    column = getattr(Happening, where.args[0])
    if where.op == "null":
        return column.is_null()
    if where.op == "in":
        return column.is_in(list(where.args[1]))
    return COMPARISONS[where.op](column, where.args[1])


def column_of(name: str) -> Any:
    if name not in EXPRESSIONS:
        return getattr(Happening, name)
    _, op, *operands = EXPRESSIONS[name]
    left, right = (getattr(Happening, each) if isinstance(each, str) else each for each in operands)
    return (ARITHMETIC | COMPARISONS)[op](left, right)


def feature_of(feature: Feature) -> Any:
    options: dict[str, Any] = {"over": window_of(feature.window)}
    if feature.where is not None:
        options["where"] = condition_of(feature.where)
    if feature.by is not None:
        options |= {"by": getattr(Happening, feature.by), "top": feature.top}
    if feature.default is not MISSING:
        options["default"] = feature.default
    if feature.kind == "count":
        return Happening.count(**options)
    column = column_of(feature.column or "")
    if feature.kind == "custom":
        return column.aggregate(Spread(), **options)
    if feature.kind == "stateful":
        return column.stateful(Halving(), **options)
    params = {name: us(v) if name == "half_life" else v for name, v in feature.params.items()}
    return getattr(column, feature.kind)(**params, **options)


ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def judging(stream: Stream) -> dict[str, Any]:
    """The options of any source that judge its events."""
    return {
        "lateness": us(stream.lateness),
        "max_ahead": None if stream.max_ahead is None else us(stream.max_ahead),
        "dedup": stream.dedup,
        "late": stream.late,
    }


def features_of(view: View) -> dict[str, Any]:
    """Name -> feature, as in the body of a view's class."""
    made: dict[str, Any] = {}
    for f in view.features:
        if isinstance(f, Derived):
            expression = ARITHMETIC[f.op](made[f.left], made[f.right])
            made[f.name] = derived(expression) if f.default is MISSING else derived(expression, default=f.default)
        else:
            made[f.name] = feature_of(f)
    return made


def definition_of(view: View, name: str = "judged", source: Source | None = None) -> ViewDefinition:
    """The view, named `name`, over a source of its own, or over none but an empty iterable."""
    return define(
        name,
        source=source or IterableSource([], Happening, **judging(view.stream)),
        entity=Entity("someone", keys=list(view.keys)),
        features=features_of(view),
        ttl=None if view.ttl is None else us(view.ttl),
        log_every=None if view.log_every is None else us(view.log_every),
    )
