"""Functions for expressions over columns and over features, beside Python's operators and `abs(x)`.

from headrace.features.functions import coalesce, log, where

log_fare = Ride.where(Ride.fare > 0).fare ...            log(Ride.fare).mean(last="1h")
busy     = derived(where(rides_1h > 100, 1, 0))
"""

from __future__ import annotations

from typing import Any

from headrace.features.columns import Expression
from headrace.features.errors import DefinitionError
from headrace.features.rules import call


def log(value: Any) -> Expression:
    """The natural logarithm, float64; null unless the value is positive."""
    return call("log", value)


def sqrt(value: Any) -> Expression:
    """The square root, float64; null where the value is negative."""
    return call("sqrt", value)


def where(condition: Any, then: Any, otherwise: Any) -> Expression:
    """`then` where the condition is true, else `otherwise` (also where the condition is null, as in a filter).

    Raises:
        DefinitionError: the condition is none, or the two values differ in type.
    """
    return call("where", condition, then, otherwise)


def coalesce(*values: Any) -> Expression:
    """The first value that is not null.

    Raises:
        DefinitionError: fewer than two values, or values of different types.
    """
    return call("coalesce", *_several("coalesce", values))


def greatest(*values: Any) -> Expression:
    """The greatest of several numbers of one row; null where one of them is null."""
    return call("greatest", *_several("greatest", values))


def least(*values: Any) -> Expression:
    """The least of several numbers of one row; null where one of them is null."""
    return call("least", *_several("least", values))


def _several(function: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) < 2:
        raise DefinitionError(f"{function}: give at least two values, got {len(values)}.")
    return values
