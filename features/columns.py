"""Expressions over columns: a small tree that is built with Python's operators, checked at once and evaluated later.

    Ride.fare * 2 > 10           Compare(">", Arithmetic("*", Column("fare"), Literal(2)), Literal(10))

The same tree serves two kinds of leaves: `Column` (one value per event: filters, computed inputs) and `FeatureRef`
(one value per entity: derived features). Every node knows its `dtype` and whether it can be null; `evaluate`
(evaluate.py) runs it on NumPy columns. A wrong type fails while the expression is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headrace.features.dtypes import BOOL, TIMESTAMP
from headrace.features.methods import AggregationMethods
from headrace.features.operators import Operand
from headrace.features.time import format_instant

T = TypeVar("T")


class Expression(Operand, AggregationMethods):
    """A node of the tree. Immutable; hashes by what it says (`expr_key`), while `==` builds a comparison."""

    dtype: str

    def _operand(self) -> Expression:
        return self

    def __hash__(self) -> int:
        return hash(expr_key(self))


@dataclass(frozen=True, eq=False, repr=False)
class Column(Expression, Generic[T]):
    """A column of an event: `Ride.fare`.

    For type checkers `fare: Column[float]` may stand in an event in place of `fare: float`; see `Event`.

    Attributes:
        event: name of the event. name: name of the column. dtype: its type (see dtypes.py). nullable: whether it may
        be missing. filter: the rows it is taken of, when it came from `Ride.where(...)`; None in a finished feature,
        which keeps it in
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


@dataclass(frozen=True, eq=False, repr=False)
class Row(Expression):
    """Several columns of one event together: what an object learns from. Its value is a tuple.

    Missing where one of them is, but for the last of a labelled row: there None stands in its place.

    Attributes:
        event: name of the event. names: of the operands, the label's left out. labelled: the last operand is a label.
    """

    event: str
    names: tuple[str, ...]
    operands: tuple[Expression, ...]
    labelled: bool = False

    dtype = "row"

    def __repr__(self) -> str:
        given = [
            repr(each) if isinstance(each, Column) and each.name == name else f"{name}={each!r}"
            for name, each in zip(self.names, self.operands, strict=False)
        ]
        x = given[0] if len(given) == 1 else f"({', '.join(given)})"
        return f"{x}, y={self.operands[-1]!r}" if self.labelled else x


def _bracketed(node: Expression) -> str:
    return f"({node!r})" if isinstance(node, (Compare, Logic, Arithmetic)) else repr(node)


def children(expr: Expression) -> tuple[Expression, ...]:
    match expr:
        case Compare(left=left, right=right) | Logic(left=left, right=right) | Arithmetic(left=left, right=right):
            return (left, right)
        case Not(operand=operand) | IsNull(operand=operand) | IsIn(operand=operand):
            return (operand,)
        case Call(operands=operands) | Row(operands=operands):
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
        case Row(event=event, names=names, operands=operands, labelled=labelled):
            return Row(event, names, tuple(replace_leaves(each, replace) for each in operands), labelled)
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
        case Row(names=names, operands=operands, labelled=labelled):
            return ("row", names, labelled, *map(expr_key, operands))
    raise TypeError(f"{type(expr).__name__} is no expression")
