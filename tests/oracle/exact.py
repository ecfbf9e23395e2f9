"""Every aggregation in plain Python over the whole content of a window, in exact arithmetic where the result allows.

`aggregate(feature, rows, asked)` takes the window's rows in order of (event time, partition, offset) and returns what
contract C6 and the definition of the aggregation say; None is null. Sums and moments are computed with fractions, so
they carry one rounding only: the last.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from tests.oracle.described import COLUMNS, EXPRESSIONS, MISSING, Feature, Sent

INT64 = range(-(2**63), 2**63)
ZERO_WHEN_EMPTY = {"count", "sum", "distinct", "approx_distinct"}


def missing(value: Any) -> bool:
    """Null and NaN inputs are missing (C6)."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def to_float(value: Fraction) -> float:
    """The nearest float; beyond the largest one, infinity."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def exact_sum(values: Sequence[float]) -> Fraction | float:
    """The sum without rounding; infinity or NaN where an infinite value settles it."""
    infinite = {v for v in values if isinstance(v, float) and math.isinf(v)}
    if infinite:
        return math.nan if len(infinite) == 2 else infinite.pop()
    return sum((Fraction(v) for v in values), Fraction(0))


def _sum(values: Sequence[Any]) -> Any:
    total = exact_sum(values)
    if isinstance(total, float):
        return total
    if all(isinstance(v, int) for v in values):
        return int(total) if int(total) in INT64 else None
    return to_float(total)


def _mean(values: Sequence[Any]) -> float:
    total = exact_sum(values)
    return total if isinstance(total, float) else to_float(total / len(values))


def _variance(values: Sequence[Any]) -> float | None:
    """Of the sample. The inputs are read as float64, as the result is one."""
    if len(values) < 2:
        return None
    floats = [float(v) for v in values]
    if any(math.isinf(v) for v in floats):
        return math.nan
    mean = Fraction(sum(map(Fraction, floats)), len(floats))
    return to_float(sum((Fraction(v) - mean) ** 2 for v in floats) / (len(floats) - 1))


def _deviation(values: Sequence[Any]) -> float | None:
    variance = _variance(values)
    return variance if variance is None else math.sqrt(variance)


def _quantile(values: Sequence[Any], q: float) -> float:
    """The nearest rank: the least value that at least the share q of all does not exceed; q means its decimal."""
    return float(sorted(values)[max(math.ceil(Fraction(repr(q)) * len(values)) - 1, 0)])


def _top(counts: dict[Any, int], k: int) -> list[Any]:
    """The k keys with the highest counts; equal counts in ascending order of the key."""
    return sorted(counts, key=lambda key: (-counts[key], key))[:k]


def _count(values: Sequence[Any]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def weights(times: Sequence[int], asked: int, half_life: int) -> list[float]:
    """2 ** (-(asked - t) / half_life) for each time."""
    return [2.0 ** (-float(Fraction(asked - t, half_life))) for t in times]


def _decayed_sum(values: Sequence[Any], times: Sequence[int], asked: int, half_life: int) -> float:
    products = [w * v for w, v in zip(weights(times, asked, half_life), values, strict=True)]
    total = exact_sum(products) if not any(math.isnan(p) for p in products) else math.nan
    return total if isinstance(total, float) else to_float(total)


def _decayed_mean(values: Sequence[Any], times: Sequence[int], half_life: int) -> float:
    """Time alone does not move it, so the weights may be taken at the newest input."""
    newest = max(times)
    weight = exact_sum(weights(times, newest, half_life))
    total = exact_sum([w * v for w, v in zip(weights(times, newest, half_life), values, strict=True)])
    return total / float(weight) if isinstance(total, float) else to_float(total / Fraction(weight))


def spread(values: Sequence[Any]) -> list[float]:
    """What the custom aggregation of `definitions.py` computes: [least, greatest, number of inputs]."""
    return [float(min(values)), float(max(values)), float(len(values))]


def learned(values: Sequence[Any]) -> float:
    """What the object of `definitions.py` tells of a feature "stateful": each input weighs half of the one after it,
    and every third is added to that of the input before it."""
    told = 0.0
    for at, value in enumerate(values):
        told = told / 2 + value + (values[at - 1] if at % 3 == 2 else 0.0)
    return told


PLAIN: dict[str, Callable[[Sequence[Any]], Any]] = {
    "count": len,
    "sum": _sum,
    "mean": _mean,
    "min": min,
    "max": max,
    "var": _variance,
    "std": _deviation,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "approx_distinct": lambda values: len(set(values)),
    "custom": spread,
    "stateful": learned,
}


def _inner(feature: Feature, values: Sequence[Any], times: Sequence[int], asked: int) -> Any:
    """The aggregation of at least one input, none of them missing; NaN becomes null."""
    params = feature.params
    if feature.kind in PLAIN:
        result = PLAIN[feature.kind](values)
    elif feature.kind == "first_n":
        result = list(values[: params["n"]])
    elif feature.kind == "last_n":
        result = list(values[-params["n"] :])
    elif feature.kind == "distinct":
        result = min(len(set(values)), params.get("limit", 1000))
    elif feature.kind == "quantile":
        result = _quantile(values, params["q"])
    elif feature.kind == "top_k":
        counts = _count(values)
        result = {key: counts[key] for key in _top(counts, params["k"])}
    elif feature.kind == "decayed_sum":
        result = _decayed_sum(values, times, asked, params["half_life"])
    elif feature.kind == "decayed_mean":
        result = _decayed_mean(values, times, params["half_life"])
    else:
        raise AssertionError(f"the oracle knows no aggregation {feature.kind!r}")
    return None if missing(result) else result


def empty(feature: Feature) -> Any:
    """The value over no inputs (C6)."""
    if feature.default is not MISSING:
        return feature.default
    if feature.by is not None or feature.kind not in ZERO_WHEN_EMPTY:
        return None
    return 0.0 if feature.kind == "sum" and dtype_of(feature.column) == "float64" else 0


def dtype_of(column: str | None) -> str | None:
    """Type of a column or an expression."""
    return EXPRESSIONS[column][0] if column in EXPRESSIONS else COLUMNS.get(column or "")


def cell(row: Sent, column: str) -> Any:
    """A column of an event, or an expression over its columns; None where missing, also for a result that is none."""
    if column not in EXPRESSIONS:
        value = row.columns[column]
        return None if missing(value) else value
    dtype, op, *operands = EXPRESSIONS[column]
    left, right = (cell(row, each) if isinstance(each, str) else each for each in operands)
    if left is None or right is None or (op == "/" and right == 0):
        return None
    result = COMPUTE[op](left, right)
    return None if missing(result) or (dtype == "int64" and result not in INT64) else result


COMPUTE: dict[str, Callable[[Any, Any], Any]] = {
    "*": operator.mul,
    "/": operator.truediv,
    "+": operator.add,
    "<": operator.lt,
}


def aggregate(feature: Feature, rows: Sequence[Sent], asked: int) -> Any:
    """The value of `feature` over the rows of its window, asked at instant `asked` (its `ending` already taken off)."""
    inputs = [row for row in rows if feature.column is None or cell(row, feature.column) is not None]
    if feature.by is not None:
        inputs = [row for row in inputs if not missing(row.columns[feature.by])]
    if not inputs:
        return empty(feature)
    if feature.by is None:
        result = _over(feature, inputs, asked)
    else:
        counts = _count([row.columns[feature.by] for row in inputs])
        result = {
            bucket: _over(feature, [row for row in inputs if row.columns[feature.by] == bucket], asked)
            for bucket in _top(counts, feature.top)
        }
    return feature.default if result is None and feature.default is not MISSING else result


def _over(feature: Feature, rows: Sequence[Sent], asked: int) -> Any:
    values = [True if feature.column is None else cell(row, feature.column) for row in rows]
    return _inner(feature, values, [row.time for row in rows], asked)
