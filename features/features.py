"""Features: an aggregation of an event's column over a window, or a value derived from other features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from headrace.features import dtypes
from headrace.features.aggregations import Aggregation
from headrace.features.code import code_key
from headrace.features.columns import Column, Expression, Unnamed, expr_key, leaves
from headrace.features.errors import DefinitionError
from headrace.features.operators import Operand
from headrace.features.rules import as_expression
from headrace.features.windows import Window


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "no default"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""Stands for "no default given", because None is a value that one can give."""


class Feature(Operand):
    """What both kinds of features share: they stand in expressions, and compare by `key` (== builds a comparison)."""

    if TYPE_CHECKING:

        @property
        def dtype(self) -> str:
            """Type of its values, see dtypes.py."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What it computes, as nested tuples of plain values: equal keys compute the same."""
        raise TypeError(type(self).__name__)

    def _operand(self) -> Expression:
        return Unnamed(self, self.dtype)

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class AggregateFeature(Feature):
    """One aggregation over one window.

    Attributes:
        agg: the aggregation; with by=, a `ByBucket`.
        column: what is aggregated; None for count(), which counts rows.
        where: condition of the rows, None for all.
        window: the window, its `ending_us` included.
        by: the bucket column of by=, else None.
        default: value in place of an empty window's or of null; MISSING when none was given.
        event: name of the event whose rows these are.
    """

    agg: Aggregation
    column: Expression | None
    where: Expression | None
    window: Window
    by: Expression | None = None
    default: Any = MISSING
    event: str = ""

    @property
    def dtype(self) -> str:
        return self.agg.out_dtype(self.column.dtype if self.column is not None else None)

    @property
    def empty(self) -> Any:
        """The value of a window without inputs: the default, else the aggregation's own (contract C6)."""
        return dtypes.coerce(self.agg.empty, self.dtype, "empty") if self.default is MISSING else self.default

    @property
    def key(self) -> tuple[Any, ...]:
        return (
            "aggregate",
            self.event,
            self.agg.key,
            expr_key(self.column),
            expr_key(self.where),
            repr(self.window),
            expr_key(self.by),
            repr(self.default),
        )

    def __str__(self) -> str:
        column = "" if self.column is None else f"{self.column}, "
        where = "" if self.where is None else f", where={self.where}"
        by = "" if self.by is None else f", by={self.by}"
        return f"{self.agg}({column}{self.window}{where}{by})"


@dataclass(frozen=True, eq=False)
class DerivedFeature(Feature):
    """A value computed from other features of the same view and instant; exactly one of `expr` and `fn` is given.

    Attributes:
        expr: expression over `FeatureRef`s.
        fn: a function of NumPy arrays, one per input; see `derived`.
        inputs: names of the features it reads.
        dtype: type of the result.
        default: value in place of null; MISSING when none was given.
    """

    expr: Expression | None
    fn: Callable[..., Any] | None
    inputs: tuple[str, ...]
    dtype: str
    default: Any = MISSING

    @property
    def key(self) -> tuple[Any, ...]:
        what = expr_key(self.expr) if self.fn is None else code_key(self.fn)
        return ("derived", what, self.inputs, self.dtype, repr(self.default))

    def __str__(self) -> str:
        if self.fn is None:
            return f"derived({self.expr})"
        return f"derived({getattr(self.fn, '__name__', type(self.fn).__name__)}({', '.join(self.inputs)}))"


@dataclass(frozen=True, eq=False)
class Derivation(Feature):
    """What `derived(...)` returns in the body of a view, which makes it a `DerivedFeature` once features have names."""

    expr: Expression | None
    fn: Callable[..., Any] | None
    operands: tuple[Any, ...]
    dtype: str
    default: Any = MISSING

    @property
    def key(self) -> tuple[Any, ...]:
        what = expr_key(self.expr) if self.fn is None else code_key(self.fn)
        operands = tuple(each if isinstance(each, str) else each.key for each in self.operands)
        return ("derivation", what, operands, self.dtype, repr(self.default))

    def __str__(self) -> str:
        return f"derived({self.expr if self.fn is None else getattr(self.fn, '__name__', self.fn)})"


@dataclass(frozen=True, eq=False)
class FeatureGroup(Operand):
    """Features made by one call with several windows or quantiles; a view names them `<name>_<label>`.

    `group["1h"]` is one of them, for use in `derived`.
    """

    members: dict[str, AggregateFeature] = field(hash=False)

    def __getitem__(self, label: str) -> AggregateFeature:
        try:
            return self.members[label]
        except KeyError:
            raise DefinitionError(f"The group has no '{label}'. It has: {', '.join(self.members)}.") from None

    def _operand(self) -> Expression:
        labels = list(self.members)
        raise DefinitionError(
            f"A group of {len(labels)} features ({', '.join(labels)}) cannot stand in an expression. "
            f"Choose one of them, such as group[{labels[0]!r}]."
        )


def derived(
    expr: Any,
    *,
    inputs: Sequence[Feature | str] | None = None,
    default: Any = MISSING,
    dtype: str | type = "float64",
) -> Derivation:
    """A feature computed from other features at the same instant.

    Either an expression over features (`derived(completed / rides, default=0.0)`; also with the functions of
    `headrace.features.functions`), or a function with `inputs=`: it gets one NumPy array per input, each of the same
    length n, and returns n values. Numbers come as float64 with NaN for null; bool, text, lists and maps as object
    arrays with None. NaN and None in what it returns mean null. It runs on whole columns offline and on one row
    online, so it must treat each row by itself; it must not depend on anything but its inputs.

    Args:
        expr: an expression over features, or a function.
        inputs: for a function, the features (or names of features of the view) it reads.
        default: value in place of null, such as after a division by zero.
        dtype: for a function, the type of its result.

    Raises:
        DefinitionError: columns of an event in place of features, no inputs, a default of the wrong type.
    """
    if isinstance(expr, FeatureGroup) or any(isinstance(each, FeatureGroup) for each in inputs or ()):
        next(each for each in (expr, *(inputs or ())) if isinstance(each, FeatureGroup))._operand()
    if isinstance(expr, Operand):
        if inputs is not None:
            raise DefinitionError("derived: inputs= goes with a function; an expression names its features itself.")
        tree = as_expression(expr, "derived")
        _only_features(tree)
        return Derivation(tree, None, (), tree.dtype, _default(default, tree.dtype))
    if not callable(expr):
        raise DefinitionError(
            f"derived: got {expr!r}, expected an expression over features, such as a / b, or a function with "
            "inputs=[...]."
        )
    name = getattr(expr, "__name__", type(expr).__name__)
    if not inputs or isinstance(inputs, str):
        raise DefinitionError(f"derived({name}): say what it reads: derived({name}, inputs=[feature, ...]).")
    for each in inputs:
        if not isinstance(each, (Feature, str)):
            raise DefinitionError(
                f"derived({name}): input {each!r} is no feature. Give features of this view or their names."
            )
    result = dtypes.OF_PYTHON.get(dtype, "") if isinstance(dtype, type) else dtype
    if not dtypes.is_known(result):
        raise DefinitionError(
            f"derived({name}): dtype {dtype!r} is no type. Use 'float64', 'int64', 'string', 'bool', ..."
        )
    return Derivation(None, expr, tuple(inputs), result, _default(default, result))


def _default(default: Any, dtype: str) -> Any:
    return default if default is MISSING else dtypes.coerce(default, dtype, "default of a derived feature")


def _only_features(tree: Expression) -> None:
    found = list(leaves(tree))
    for leaf in found:
        if isinstance(leaf, Column):
            raise DefinitionError(
                f"derived({tree}): {leaf} is a column, which has a value per event; a derived feature is computed from "
                f"features. Aggregate it first, such as {leaf}.mean(last='1h')."
            )
    if not any(isinstance(leaf, Unnamed) for leaf in found):
        raise DefinitionError(f"derived({tree}): it reads no feature.")
