"""The rules of types by which expressions are put together; what breaks them fails while the definition is read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from headrace.features import dtypes
from headrace.features.columns import (
    Arithmetic,
    Call,
    Compare,
    Expression,
    IsIn,
    IsNull,
    Literal,
    Logic,
    Not,
)
from headrace.features.dtypes import BOOL, FLOAT, INT, NUMBERS, STRING, TIMESTAMP
from headrace.features.errors import DefinitionError
from headrace.features.operators import Operand


def compare(op: str, left: Any, right: Any) -> Expression:
    a, b = _pair(left, right, op)
    _comparable(a, b, op)
    if op not in ("==", "!=") and BOOL in (a.dtype, b.dtype):
        raise DefinitionError(f"{a} {op} {b}: true and false have no order. Use == or !=, or the column by itself.")
    return Compare(op, a, b)


def logic(op: str, left: Any, right: Any) -> Expression:
    a, b = _pair(left, right, op)
    for side in (a, b):
        if side.dtype != BOOL:
            raise DefinitionError(
                f"({a}) {op} ({b}): {side} is {side.dtype}, but {op} joins conditions. & and | bind tighter than "
                "comparisons in Python: put each comparison in brackets, (a > 1) & (b < 2)."
            )
    return Logic(op, a, b)


def invert(value: Any) -> Expression:
    operand = as_expression(value, "~")
    if operand.dtype != BOOL:
        raise DefinitionError(f"~{operand}: it is {operand.dtype}, but ~ negates a condition. Compare it first.")
    return Not(operand)


def is_null(value: Operand) -> Expression:
    return IsNull(value._operand())


def is_in(value: Operand, values: Iterable[Any]) -> Expression:
    operand = value._operand()
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DefinitionError(f"{operand}.is_in: give a list of values, got {values!r}.")
    plain = []
    for each in values:
        literal = _literal(each, f"{operand}.is_in")
        _comparable(operand, literal, "is_in")
        plain.append(literal.value)
    if not plain:
        raise DefinitionError(f"{operand}.is_in: the list is empty, so no row could pass. Name at least one value.")
    return IsIn(operand, tuple(dict.fromkeys(plain)))


def arithmetic(op: str, left: Any, right: Any) -> Expression:
    a, b = _pair(left, right, op)
    if op == "-" and a.dtype == b.dtype == TIMESTAMP:
        return Arithmetic(op, a, b, FLOAT)
    for side in (a, b):
        if side.dtype not in NUMBERS:
            raise DefinitionError(f"{a} {op} {b}: {side} is {side.dtype}, expected a number.{_number_hint(side)}")
    whole = a.dtype == b.dtype == INT and op != "/"
    return Arithmetic(op, a, b, INT if whole else FLOAT)


def call(function: str, *values: Any) -> Expression:
    """A `Call` node, its types checked; functions.py gives these their names."""
    operands = tuple(as_expression(value, function) for value in values)
    if function == "where":
        condition, *branches = operands
        if condition.dtype != BOOL:
            raise DefinitionError(
                f"where({condition}, ...): the condition is {condition.dtype}, expected bool. Compare it."
            )
        return Call(function, operands, _common_dtype(branches, function))
    if function == "coalesce":
        return Call(function, operands, _common_dtype(operands, function))
    for operand in operands:
        if operand.dtype not in NUMBERS:
            raise DefinitionError(
                f"{function}({operand}): it is {operand.dtype}, expected a number.{_number_hint(operand)}"
            )
    if function in ("log", "sqrt"):
        return Call(function, operands, FLOAT)
    return Call(function, operands, _common_dtype(operands, function))


def as_expression(value: Any, name: str) -> Expression:
    """An expression for a column, a feature or a constant."""
    return value._operand() if isinstance(value, Operand) else _literal(value, name)


def as_condition(value: Any, name: str) -> Expression:
    """An expression of type bool.

    Raises:
        DefinitionError: a Python bool (the sign of `and`, `or` or a comparison of two constants) or another type.
    """
    if not isinstance(value, Operand):
        raise DefinitionError(
            f"{name}: got {value!r}, expected a condition on columns. Write it with the event's columns, such as "
            "Ride.status == 'completed', and combine with & | ~ (not and, or, not)."
        )
    condition = value._operand()
    if condition.dtype != BOOL:
        raise DefinitionError(
            f"{name}: {condition} is {condition.dtype}, expected a condition. Compare it with a value."
        )
    return condition


def _literal(value: Any, name: str) -> Literal:
    dtype, plain = dtypes.of_value(value, name)
    if dtype == FLOAT and math.isnan(plain):
        raise DefinitionError(
            f"{name}: NaN means missing here (contract C6). Use .is_null() to ask for missing values."
        )
    return Literal(plain, dtype)


def _pair(left: Any, right: Any, op: str) -> tuple[Expression, Expression]:
    """Both sides; ISO text beside an instant becomes an instant."""
    shown = f"{_shown(left)} {op} {_shown(right)}"
    if isinstance(left, Operand) and isinstance(right, str) and left._operand().dtype == TIMESTAMP:
        return left._operand(), Literal(dtypes.coerce(right, TIMESTAMP, shown), TIMESTAMP)
    if isinstance(right, Operand) and isinstance(left, str) and right._operand().dtype == TIMESTAMP:
        return Literal(dtypes.coerce(left, TIMESTAMP, shown), TIMESTAMP), right._operand()
    return as_expression(left, shown), as_expression(right, shown)


def _comparable(a: Expression, b: Expression, op: str) -> None:
    if a.dtype == b.dtype and a.dtype in dtypes.SCALARS:
        return
    if a.dtype in NUMBERS and b.dtype in NUMBERS:
        return
    raise DefinitionError(
        f"{a} {op} {b}: cannot compare {a.dtype} with {b.dtype}. Compare it with a value of its own type."
    )


def _common_dtype(operands: Iterable[Expression], function: str) -> str:
    found = {operand.dtype for operand in operands}
    if len(found) == 1:
        return found.pop()
    if found == {INT, FLOAT}:
        return FLOAT
    raise DefinitionError(f"{function}: its values have different types ({', '.join(sorted(found))}). Use one type.")


def _number_hint(side: Expression) -> str:
    if side.dtype == BOOL:
        return " Turn a condition into a number with where(condition, 1, 0)."
    if side.dtype == STRING:
        return " Declare the column as int or float in its event if it holds numbers."
    return ""


def _shown(value: Any) -> str:
    return str(value._operand()) if isinstance(value, Operand) else repr(value)
