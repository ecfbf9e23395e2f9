"""Expressions on NumPy columns: filters and inputs on batches of events, derived features on rows, many or one.

A column is a pair `(values, valid)`: values of its type (int64, float64, bool, int64 microseconds for instants, object
for text, bytes, lists and maps), and bool of the same length, False where the value is missing. What stands in
`values` at a missing place means nothing.

Missing spreads: an operation on a missing value is missing, and so are a division by zero, the log of a number that is
not positive, the root of a negative one, a result of NaN, and an int64 result beyond 64 bits. & and | follow Kleene. A
NaN in a float column counts as missing (contract C6).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from headrace.features.columns import (
    Arithmetic,
    Call,
    Column,
    Compare,
    Expression,
    FeatureRef,
    IsIn,
    IsNull,
    Literal,
    Logic,
    Not,
    Row,
)
from headrace.features.dtypes import BOOL, FLOAT, INT, TIMESTAMP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
    Pair: TypeAlias = tuple[Array, Array]
    Columns: TypeAlias = Mapping[str, Pair]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_SUSPICIOUS = 9.2e18
"""A product of int64 whose float estimate is below this fits 64 bits for certain."""


def evaluate(expr: Expression, columns: Columns, n: int) -> Pair:
    """The value of an expression for each of n rows.

    Args:
        expr: an expression over columns of events or over features.
        columns: name -> (values, valid), each of length n; only those that the expression names are asked for. They are
            not changed.
        n: number of rows.

    Returns:
        (values, valid), each of length n: int64, float64, bool or object values by `expr.dtype`, and bool. They may be
        arrays of `columns` itself: do not write to them.

    >>> import numpy as np
    >>> fare = Column("Ride", "fare", "float64")
    >>> values, valid = evaluate(10 / fare > 4, {"fare": (np.array([2.0, 5.0, 0.0]), np.array([True, True, True]))}, 3)
    >>> values[valid].tolist(), valid.tolist()
    ([True, False], [True, True, False])
    """
    import numpy as np

    if isinstance(expr, Row):
        return _rows(expr, columns, n)
    with np.errstate(all="ignore"):
        values, valid = _value(expr, columns)
    if np.ndim(values) == 0:
        values = _full(n, values, expr.dtype)
    if np.ndim(valid) == 0:
        valid = np.full(n, bool(valid))
    return values, valid


def _rows(row: Row, columns: Columns, n: int) -> Pair:
    """Tuples of Python values, None for a missing label; other missing values make the whole row missing."""
    import numpy as np

    pairs = [evaluate(each, columns, n) for each in row.operands]
    valid = np.ones(n, dtype=np.bool_)
    for _, present in pairs[:-1] if row.labelled else pairs:
        valid = valid & present
    held = [values.tolist() for values, _ in pairs]
    if row.labelled:
        held[-1] = [each if ok else None for each, ok in zip(held[-1], pairs[-1][1].tolist(), strict=True)]
    rows = np.empty(n, dtype=object)
    rows[:] = list(zip(*held, strict=True))
    return rows, valid


def typed(values: Array, valid: Array, dtype: str) -> Array:
    """Values of a scalar type as an array of that type, where they come as an object array with None for missing."""
    import numpy as np

    kind = {INT: np.int64, FLOAT: np.float64, BOOL: np.bool_, TIMESTAMP: np.int64}.get(dtype)
    if kind is None or values.dtype == kind:
        return values
    if values.dtype == object:
        return np.array([value if ok else 0 for value, ok in zip(values, valid, strict=True)], dtype=kind)
    return values.astype(kind)


def _full(n: int, value: Any, dtype: str) -> Array:
    import numpy as np

    kind: Any = {INT: np.int64, FLOAT: np.float64, BOOL: np.bool_, TIMESTAMP: np.int64}.get(dtype, object)
    out: Array = np.empty(n, dtype=kind)
    out[:] = value
    return out


def _value(expr: Expression, columns: Columns) -> tuple[Any, Any]:
    """(values, valid); a constant comes as a 0-d array or scalar with valid True."""
    import numpy as np

    match expr:
        case Column(name=name) | FeatureRef(name=name):
            return _leaf(*columns[name], expr.dtype)
        case Literal(value=value, dtype=dtype):
            return _constant(value, dtype), np.True_
        case Compare(op=op, left=left, right=right):
            return _compare(op, _value(left, columns), _value(right, columns))
        case Logic(op=op, left=left, right=right):
            return _logic(op, _value(left, columns), _value(right, columns))
        case Not(operand=operand):
            values, valid = _value(operand, columns)
            return ~values, valid
        case Arithmetic(op=op, left=left, right=right, dtype=dtype):
            a, b = _value(left, columns), _value(right, columns)
            if left.dtype == TIMESTAMP:
                return (a[0] - b[0]) / 1e6, a[1] & b[1]
            return _integer(op, a, b) if dtype == INT else _floating(op, a, b)
        case Call(function=function, operands=operands, dtype=dtype):
            return _call(function, [_value(each, columns) for each in operands], dtype)
        case IsNull(operand=operand):
            values, valid = _value(operand, columns)
            return ~valid, np.ones_like(valid)
        case IsIn(operand=operand, values=members):
            return _is_in(_value(operand, columns), members)
    raise TypeError(f"{type(expr).__name__} cannot be evaluated")


def _leaf(values: Array, valid: Array, dtype: str) -> Pair:
    import numpy as np

    values = typed(values, valid, dtype)
    if dtype == FLOAT:
        missing = np.isnan(values)
        if missing.any():
            valid = valid & ~missing
    return values, valid


def _constant(value: Any, dtype: str) -> Any:
    import numpy as np

    kind = {INT: np.int64, FLOAT: np.float64, BOOL: np.bool_, TIMESTAMP: np.int64}.get(dtype)
    return value if kind is None else kind(value)


def _compare(op: str, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    import numpy as np

    valid = a[1] & b[1]
    if not (_is_object(a[0]) or _is_object(b[0])):
        return _COMPARE[op](a[0], b[0]), valid
    # None has no order, so only present values are compared.
    n = next((len(side) for side in (a[0], b[0]) if isinstance(side, np.ndarray)), 1)
    valid = np.broadcast_to(valid, (n,))
    left, right = (side if not isinstance(side, np.ndarray) else side[valid] for side in (a[0], b[0]))
    out = np.zeros(n, dtype=np.bool_)
    out[valid] = _COMPARE[op](left, right)
    return out, valid


def _is_object(values: Any) -> bool:
    return getattr(getattr(values, "dtype", None), "kind", "") == "O"


def _logic(op: str, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    true_a, true_b = a[0] & a[1], b[0] & b[1]
    false_a, false_b = ~a[0] & a[1], ~b[0] & b[1]
    if op == "&":
        true, false = true_a & true_b, false_a | false_b
    else:
        true, false = true_a | true_b, false_a & false_b
    return true, true | false


def _integer(op: str, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    """int64 + - *, with results beyond 64 bits missing."""
    import numpy as np

    x, y, valid = a[0], b[0], a[1] & b[1]
    if op == "+":
        out: Any = x + y
        over = ((x ^ out) & (y ^ out)) < 0
    elif op == "-":
        out = x - y
        over = ((x ^ y) & (x ^ out)) < 0
    else:
        out = x * y
        over = np.abs(np.float64(x) * np.float64(y)) >= _SUSPICIOUS
        if over.any():
            exact = [int(p) * int(q) for p, q in zip(*(side[over] for side in np.broadcast_arrays(x, y)), strict=True)]
            over = np.array(over)
            over[over] = [not -(2**63) <= product < 2**63 for product in exact]
    return out, valid & ~over


def _floating(op: str, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    import numpy as np

    x, y, valid = np.float64(a[0]), np.float64(b[0]), a[1] & b[1]
    if op == "/":
        out, valid = x / y, valid & (y != 0)
    elif op == "*":
        out = x * y
    else:
        out = x + y if op == "+" else x - y
    return out, valid & ~np.isnan(out)


def _call(function: str, operands: list[tuple[Any, Any]], dtype: str) -> tuple[Any, Any]:
    import numpy as np

    (x, valid), *others = operands
    if function == "where":
        (a, a_valid), (b, b_valid) = others
        chosen = x & valid
        return _choose(chosen, a, b, dtype), np.where(chosen, a_valid, b_valid)
    if function == "coalesce":
        for y, y_valid in others:
            x, valid = _choose(valid, x, y, dtype), valid | y_valid
        return x, valid
    if function == "abs":
        return np.abs(x), valid & (x != np.iinfo(np.int64).min if dtype == INT else True)
    if function == "log":
        return np.log(np.float64(x)), valid & (x > 0)
    if function == "sqrt":
        return np.sqrt(np.float64(x)), valid & (x >= 0)
    for y, y_valid in others:
        x = np.maximum(x, y) if function == "greatest" else np.minimum(x, y)
        valid = valid & y_valid
    return (np.float64(x) if dtype == FLOAT else x), valid


def _choose(chosen: Any, a: Any, b: Any, dtype: str) -> Any:
    """a where chosen, else b, in the given type."""
    import numpy as np

    if dtype in (INT, FLOAT, BOOL, TIMESTAMP):
        out = np.where(chosen, a, b)
        return np.float64(out) if dtype == FLOAT else out
    shape = np.broadcast_shapes(*(np.shape(each) for each in (chosen, a, b) if isinstance(each, np.ndarray)))
    if not shape:
        return a if chosen else b
    out = np.empty(shape, dtype=object)
    out[:] = b
    mask = np.broadcast_to(chosen, shape)
    out[mask] = a[mask] if isinstance(a, np.ndarray) else a
    return out


def _is_in(operand: tuple[Any, Any], members: tuple[Any, ...]) -> tuple[Any, Any]:
    import numpy as np

    values, valid = operand
    if not _is_object(values):
        return np.isin(values, np.array(members)), valid
    known = set(members)
    return np.array([ok and value in known for value, ok in zip(values, valid, strict=True)], dtype=np.bool_), valid
