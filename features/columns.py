"""Expressions over columns: a small tree that is built with Python's operators, checked at once and evaluated later.

    Ride.fare * 2 > 10           Compare(">", Arithmetic("*", Column("fare"), Literal(2)), Literal(10))

The same tree serves two kinds of leaves: `Column` (one value per event: filters, computed inputs) and `FeatureRef` (one
value per entity: derived features). Every node knows its `dtype` and whether it can be null; `evaluate` (evaluate.py) runs it
on NumPy columns. A wrong type fails while the expression is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from headrace.features import dtypes
from headrace.features.dtypes import BOOL, FLOAT, INT, NUMBERS, STRING, TIMESTAMP
from headrace.features.errors import DefinitionError
from headrace.features.methods import AggregationMethods
from headrace.features.time import format_instant


class Operand:
    """Python's operators on whatever can stand in an expression: an expression itself, or a feature in `derived`."""

    def _operand(self) -> Expression:
        raise TypeError(f"{type(self).__name__} cannot stand in an expression")

    def __lt__(self, other: Any) -> Expression:
        return compare("<", self, other)

    def __le__(self, other: Any) -> Expression:
        return compare("<=", self, other)

    def __gt__(self, other: Any) -> Expression:
        return compare(">", self, other)

    def __ge__(self, other: Any) -> Expression:
        return compare(">=", self, other)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return compare("==", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return compare("!=", self, other)

    def __and__(self, other: Any) -> Expression:
        return logic("&", self, other)

    def __rand__(self, other: Any) -> Expression:
        return logic("&", other, self)

    def __or__(self, other: Any) -> Expression:
        return logic("|", self, other)

    def __ror__(self, other: Any) -> Expression:
        return logic("|", other, self)

    def __invert__(self) -> Expression:
        return invert(self)

    def __add__(self, other: Any) -> Expression:
        return arithmetic("+", self, other)

    def __radd__(self, other: Any) -> Expression:
        return arithmetic("+", other, self)

    def __sub__(self, other: Any) -> Expression:
        return arithmetic("-", self, other)

    def __rsub__(self, other: Any) -> Expression:
        return arithmetic("-", other, self)

    def __mul__(self, other: Any) -> Expression:
        return arithmetic("*", self, other)

    def __rmul__(self, other: Any) -> Expression:
        return arithmetic("*", other, self)

    def __truediv__(self, other: Any) -> Expression:
        return arithmetic("/", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return arithmetic("/", other, self)

    def __neg__(self) -> Expression:
        return arithmetic("-", 0, self)

    def __abs__(self) -> Expression:
        return call("abs", self)

    def is_null(self) -> Expression:
        """True where the value is missing (null or NaN); never null itself."""
        return IsNull(self._operand())

    def is_not_null(self) -> Expression:
        return Not(IsNull(self._operand()))

    def is_in(self, values: Iterable[Any]) -> Expression:
        """True where the value is one of `values`; null where it is missing.

        Raises:
            DefinitionError: no values, or one that is not of this column's type.
        """
        operand = self._operand()
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise DefinitionError(f"{operand}.is_in: give a list of values, got {values!r}.")
        plain = []
        for value in values:
            literal = _literal(value, f"{operand}.is_in")
            _comparable(operand, literal, "is_in")
            plain.append(literal.value)
        if not plain:
            raise DefinitionError(f"{operand}.is_in: the list is empty, so no row could pass. Name at least one value.")
        return IsIn(operand, tuple(dict.fromkeys(plain)))

    def __bool__(self) -> bool:
        raise DefinitionError(
            f"{self} has no truth value while the view is being defined. Combine conditions with & | ~ instead of "
            "and, or, not (with brackets: (a > 1) & (b < 2)), write a range as (1 < x) & (x < 3), and use "
            ".is_in([...]) instead of in."
        )

    __hash__ = None  # type: ignore[assignment]


class Expression(Operand, AggregationMethods):
    """A node of the tree. Immutable; hashes by what it says (`expr_key`), while `==` builds a comparison."""

    dtype: str

    def _operand(self) -> Expression:
        return self

    def __hash__(self) -> int:
        return hash(expr_key(self))


@dataclass(frozen=True, eq=False, repr=False)
class Column(Expression):
    """A column of an event: `Ride.fare`.

    For type checkers `fare: Column` may stand in an event in place of `fare: float`; see `Event`.

    Attributes:
        event: name of the event.
        name: name of the column.
        dtype: its type (see dtypes.py).
        nullable: whether it may be missing.
        filter: the rows it is taken of, when it came from `Ride.where(...)`; None in a finished feature, which keeps it in
            its own `where`.
    """

    event: str
    name: str
    dtype: str
    nullable: bool = False
    filter: Expression | None = None

    def __repr__(self) -> str:
        return f"{self.event}.{self.name}"


@dataclass(frozen=True, eq=False, repr=False)
class FeatureRef(Expression):
    """The value of another feature of the view, by name: what a derived feature is computed from."""

    name: str
    dtype: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Unnamed(Expression):
    """A feature inside `derived(...)` before the view has given it a name; the view replaces it by a `FeatureRef`."""

    feature: Any
    dtype: str

    def __repr__(self) -> str:
        return str(self.feature)


@dataclass(frozen=True, eq=False, repr=False)
class Literal(Expression):
    """A constant; instants are microseconds with dtype "timestamp"."""

    value: Any
    dtype: str

    def __repr__(self) -> str:
        return repr(format_instant(self.value)) if self.dtype == TIMESTAMP else repr(self.value)


@dataclass(frozen=True, eq=False, repr=False)
class Compare(Expression):
    """`op` is one of < <= > >= == !=. Null where either side is null."""

    op: str
    left: Expression
    right: Expression

    dtype = BOOL

    def __repr__(self) -> str:
        return f"{_bracketed(self.left)} {self.op} {_bracketed(self.right)}"


@dataclass(frozen=True, eq=False, repr=False)
class Logic(Expression):
    """`op` is & or |, after Kleene: false & null is false, true | null is true, otherwise null spreads."""

    op: str
    left: Expression
    right: Expression

    dtype = BOOL

    def __repr__(self) -> str:
        return f"{_bracketed(self.left)} {self.op} {_bracketed(self.right)}"


@dataclass(frozen=True, eq=False, repr=False)
class Not(Expression):
    operand: Expression

    dtype = BOOL

    def __repr__(self) -> str:
        if isinstance(self.operand, IsNull):
            return f"{_bracketed(self.operand.operand)}.is_not_null()"
        return f"~{_bracketed(self.operand)}"


@dataclass(frozen=True, eq=False, repr=False)
class Arithmetic(Expression):
    """`op` is one of + - * /. Null where a side is null, on division by zero, and where int64 would overflow.

    Two integers stay int64 except for `/`, which is float64. The difference of two instants is float64 seconds.
    """

    op: str
    left: Expression
    right: Expression
    dtype: str

    def __repr__(self) -> str:
        return f"{_bracketed(self.left)} {self.op} {_bracketed(self.right)}"


@dataclass(frozen=True, eq=False, repr=False)
class Call(Expression):
    """A function of functions.py: "abs", "log", "sqrt", "where", "coalesce", "greatest", "least"."""

    function: str
    operands: tuple[Expression, ...]
    dtype: str

    def __repr__(self) -> str:
        return f"{self.function}({', '.join(map(repr, self.operands))})"


@dataclass(frozen=True, eq=False, repr=False)
class IsNull(Expression):
    operand: Expression

    dtype = BOOL

    def __repr__(self) -> str:
        return f"{_bracketed(self.operand)}.is_null()"


@dataclass(frozen=True, eq=False, repr=False)
class IsIn(Expression):
    operand: Expression
    values: tuple[Any, ...]

    dtype = BOOL

    def __repr__(self) -> str:
        return f"{_bracketed(self.operand)}.is_in({list(self.values)!r})"


# Building: the rules of types


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
            raise DefinitionError(f"where({condition}, ...): the condition is {condition.dtype}, expected bool. Compare it.")
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
        raise DefinitionError(f"{name}: {condition} is {condition.dtype}, expected a condition. Compare it with a value.")
    return condition


def _literal(value: Any, name: str) -> Literal:
    dtype, plain = dtypes.of_value(value, name)
    if dtype == FLOAT and math.isnan(plain):
        raise DefinitionError(f"{name}: NaN means missing here (contract C6). Use .is_null() to ask for missing values.")
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


def _bracketed(node: Expression) -> str:
    return f"({node!r})" if isinstance(node, (Compare, Logic, Arithmetic)) else repr(node)


# Walking


def children(expr: Expression) -> tuple[Expression, ...]:
    match expr:
        case Compare(left=left, right=right) | Logic(left=left, right=right) | Arithmetic(left=left, right=right):
            return (left, right)
        case Not(operand=operand) | IsNull(operand=operand) | IsIn(operand=operand):
            return (operand,)
        case Call(operands=operands):
            return operands
    return ()


def leaves(expr: Expression) -> Iterator[Expression]:
    below = children(expr)
    if not below:
        yield expr
    for child in below:
        yield from leaves(child)


def columns_of(expr: Expression | None) -> tuple[str, ...]:
    """Names of the event columns an expression reads, each once, in order of appearance."""
    if expr is None:
        return ()
    return tuple(dict.fromkeys(leaf.name for leaf in leaves(expr) if isinstance(leaf, Column)))


def features_of(expr: Expression | None) -> tuple[str, ...]:
    """Names of the features an expression reads, each once, in order of appearance."""
    if expr is None:
        return ()
    return tuple(dict.fromkeys(leaf.name for leaf in leaves(expr) if isinstance(leaf, FeatureRef)))


def replace_leaves(expr: Expression, replace: Callable[[Expression], Expression]) -> Expression:
    """The same tree with every leaf put through `replace`; types are kept."""
    match expr:
        case Compare(op=op, left=left, right=right):
            return Compare(op, replace_leaves(left, replace), replace_leaves(right, replace))
        case Logic(op=op, left=left, right=right):
            return Logic(op, replace_leaves(left, replace), replace_leaves(right, replace))
        case Arithmetic(op=op, left=left, right=right, dtype=dtype):
            return Arithmetic(op, replace_leaves(left, replace), replace_leaves(right, replace), dtype)
        case Not(operand=operand):
            return Not(replace_leaves(operand, replace))
        case IsNull(operand=operand):
            return IsNull(replace_leaves(operand, replace))
        case IsIn(operand=operand, values=values):
            return IsIn(replace_leaves(operand, replace), values)
        case Call(function=function, operands=operands, dtype=dtype):
            return Call(function, tuple(replace_leaves(each, replace) for each in operands), dtype)
    return replace(expr)


def expr_key(expr: Expression | None) -> tuple[Any, ...]:
    """What an expression says, as nested tuples of plain values: equal keys mean equal expressions.

    >>> expr_key(Column("Ride", "fare", "float64") > 3)
    ('>', ('column', 'Ride', 'fare', 'float64'), ('literal', 'int64', 3))
    """
    match expr:
        case None:
            return ()
        case Column(event=event, name=name, dtype=dtype, filter=condition):
            return ("column", event, name, dtype) + ((expr_key(condition),) if condition is not None else ())
        case FeatureRef(name=name, dtype=dtype):
            return ("feature", name, dtype)
        case Unnamed(feature=feature):
            return ("unnamed", feature.key)
        case Literal(value=value, dtype=dtype):
            return ("literal", dtype, value)
        case Compare(op=op, left=left, right=right) | Logic(op=op, left=left, right=right):
            return (op, expr_key(left), expr_key(right))
        case Arithmetic(op=op, left=left, right=right):
            return (op, expr_key(left), expr_key(right))
        case Not(operand=operand):
            return ("not", expr_key(operand))
        case IsNull(operand=operand):
            return ("is_null", expr_key(operand))
        case IsIn(operand=operand, values=values):
            return ("is_in", expr_key(operand), *sorted(values))
        case Call(function=function, operands=operands):
            return (function, *map(expr_key, operands))
    raise TypeError(f"{type(expr).__name__} is no expression")
