"""When a value of the engine counts as equal to the oracle's.

Counts, extremes, first and last, lists of values, integer sums, distinct counts and top-k are equal exactly, type
included. Floats that come of arithmetic are equal to 1e-9 relative. Only where terms cancel does relative mean nothing,
and there the slack is stated against the largest magnitude M among the n inputs of the window:

    sum, mean          n * M * 2**-100      double-double keeps 106 bits
    var, std           (n * M * 2**-90)**2 and its root: the error of the double-double mean, squared
    decayed sum, mean  1e-12 times the sum of the weighted magnitudes, as weights are rounded one by one
    derived            1e-9 of the magnitudes of the operands of + and -

A quantile may differ from the true order statistic by its stated error, relative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tests.oracle.described import Derived, Feature, Sent
from tests.oracle.exact import cell, missing, weights

RELATIVE = 1e-9


def close(got: Any, expected: Any, slack: float = 0.0, relative: float = RELATIVE) -> bool:
    """Whether two results are equal to a relative error and an absolute slack. Null equals null only."""
    if got is None or expected is None:
        return got is expected
    if isinstance(expected, float):
        if not isinstance(got, float) or math.isnan(got):
            return False
        if math.isinf(expected) or math.isinf(got):
            return got == expected
        return abs(got - expected) <= relative * abs(expected) + slack
    return type(got) is type(expected) and bool(got == expected)


def agrees(feature: Feature, got: Any, expected: Any, rows: Sequence[Sent], asked: int) -> bool:
    """Whether `got` is `expected` for a feature over `rows`, asked at instant `asked`."""
    if isinstance(expected, dict):
        if not isinstance(got, dict) or list(got) != list(expected):
            return False
        if feature.kind == "top_k" and feature.by is None:
            return got == expected
        return all(agrees(feature, got[key], expected[key], rows, asked) for key in expected)
    if isinstance(expected, list):
        same = isinstance(got, list) and len(got) == len(expected)
        return same and all(close(g, e, relative=0.0) for g, e in zip(got, expected, strict=True))
    if feature.kind == "quantile":
        return close(got, expected, relative=feature.params.get("error", 0.01) + RELATIVE)
    return close(got, expected, slack_of(feature, rows, asked), 0.0 if feature.kind in EXACT else RELATIVE)


EXACT = {"min", "max", "first", "last", "first_n", "last_n", "custom"}


def slack_of(feature: Feature, rows: Sequence[Sent], asked: int) -> float:
    """The absolute slack of a feature's value over `rows`, as the module's table says."""
    if feature.kind not in ("sum", "mean", "var", "std", "decayed_sum", "decayed_mean") or feature.column is None:
        return 0.0
    inputs = [(row.time, cell(row, feature.column)) for row in rows]
    finite = [(t, abs(float(v))) for t, v in inputs if not missing(v) and not math.isinf(v)]
    if not finite:
        return 0.0
    reach = len(finite) * max(v for _, v in finite)
    if feature.kind in ("sum", "mean"):
        return reach * 2.0**-100
    if feature.kind in ("var", "std"):
        slack = reach * 2.0**-90
        return slack if feature.kind == "std" else slack**2
    at = asked if feature.kind == "decayed_sum" else max(t for t, _ in finite)
    fading = weights([t for t, _ in finite], at, feature.params["half_life"])
    return 1e-12 * sum(w * v for w, (_, v) in zip(fading, finite, strict=True)) + 1e-300


def derived_agrees(derived: Derived, got: Any, expected: Any, operands: Sequence[tuple[Any, float]]) -> bool:
    """Whether `got` is `expected` for a derived feature of two operands, each given with its own slack."""
    slack = 0.0
    if isinstance(expected, float) and all(isinstance(x, (int, float)) and math.isfinite(x) for x, _ in operands):
        (left, a), (right, b) = operands
        if derived.op in "+-":
            slack = RELATIVE * (abs(left) + abs(right)) + a + b
        elif derived.op == "*":
            slack = abs(left) * b + abs(right) * a
        elif right:
            slack = a / abs(right) + abs(left) * b / (right * right)
    return close(got, expected, slack, 4 * RELATIVE)
