"""Sums and variances in which terms cancelled, once more from the values themselves.

DuckDB adds floats with Kahan's compensation and takes variances by Welford and Chan: errors of a few 2**-53 of the sum
of magnitudes, and of the variance times mean / deviation. Where that leaves fewer than ten digits (or a value is
infinite, or something overflowed) the answer is in doubt, which is rare, and is computed again, rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

CANCELLED = 1e-5
"""A sum below this share of its magnitudes is in doubt, a deviation below this share of the mean."""

TINY = 1e-280
"""Variances below are made of squares that lose digits."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """An answer that may be in doubt.

    Attributes:
        column: where it is. input, taken: SQL of its values, and of which rows they are taken.
        how: "sum", "mean", "var" or "std". condition: the SQL aggregate that is true when it is in doubt.
    """

    column: str
    input: str
    taken: str
    how: str
    condition: str


def doubts(answers: Sequence[tuple[str, tuple[str, str], str]]) -> list[Doubt]:
    """For answers given as column, (input, rows taken) and how."""
    found = []
    for column, (input_, taken), how in answers:
        number = f"CAST({input_} AS DOUBLE)"
        only = f"FILTER (WHERE {taken})"
        if how in ("sum", "mean"):
            total = f"fsum({number}) {only}"
            condition = f"NOT isfinite({total}) OR abs({total}) < {CANCELLED} * sum(abs({number})) {only}"
        else:
            spread = f"var_samp({number}) {only}"
            level = f"avg({number}) {only}"
            condition = (
                f"NOT isfinite({spread}) OR NOT isfinite({level}) OR (min({number}) {only} < max({number}) {only} "
                f"AND ({spread} < {TINY} OR sqrt({spread}) < {CANCELLED} * abs({level})))"
            )
        found.append(Doubt(column, input_, taken, how, condition))
    return found


def reckoned(how: str, values: Sequence[float] | None) -> float | None:
    """The sum, mean, sample variance or deviation of values without NaN, rounded once; None for what is not a number.

    >>> reckoned("sum", [1e16, 1.0, -1e16]), reckoned("var", [1e16, 1e16 + 2]), reckoned("mean", [math.inf, -math.inf])
    (1.0, 2.0, None)
    """
    if not values:
        return 0.0 if how == "sum" else None
    if how in ("var", "std"):
        spread = _variance(values)
        return math.sqrt(spread) if spread is not None and how == "std" else spread
    infinite = {each for each in values if math.isinf(each)}
    if infinite:
        return infinite.pop() if len(infinite) == 1 else None
    total = sum(map(Fraction, values), Fraction(0))
    return _rounded(total if how == "sum" else total / len(values))


def _variance(values: Sequence[float]) -> float | None:
    if len(values) < 2 or any(math.isinf(each) for each in values):
        return None
    exact = [Fraction(each) for each in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    squares = sum(((each - mean) * (each - mean) for each in exact), Fraction(0))
    return _rounded(squares / (len(exact) - 1))


def _rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
