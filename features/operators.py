"""Python's operators on whatever can stand in an expression."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from headrace.features.errors import DefinitionError

if TYPE_CHECKING:
    from headrace.features.columns import Expression


class Operand:
    """Python's operators on whatever can stand in an expression: an expression itself, or a feature in `derived`."""

    def _operand(self) -> Expression:
        raise TypeError(f"{type(self).__name__} cannot stand in an expression")

    def __lt__(self, other: Any) -> Expression:
        return _build("compare", "<", self, other)

    def __le__(self, other: Any) -> Expression:
        return _build("compare", "<=", self, other)

    def __gt__(self, other: Any) -> Expression:
        return _build("compare", ">", self, other)

    def __ge__(self, other: Any) -> Expression:
        return _build("compare", ">=", self, other)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return _build("compare", "==", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return _build("compare", "!=", self, other)

    def __and__(self, other: Any) -> Expression:
        return _build("logic", "&", self, other)

    def __rand__(self, other: Any) -> Expression:
        return _build("logic", "&", other, self)

    def __or__(self, other: Any) -> Expression:
        return _build("logic", "|", self, other)

    def __ror__(self, other: Any) -> Expression:
        return _build("logic", "|", other, self)

    def __invert__(self) -> Expression:
        return _build("invert", self)

    def __add__(self, other: Any) -> Expression:
        return _build("arithmetic", "+", self, other)

    def __radd__(self, other: Any) -> Expression:
        return _build("arithmetic", "+", other, self)

    def __sub__(self, other: Any) -> Expression:
        return _build("arithmetic", "-", self, other)

    def __rsub__(self, other: Any) -> Expression:
        return _build("arithmetic", "-", other, self)

    def __mul__(self, other: Any) -> Expression:
        return _build("arithmetic", "*", self, other)

    def __rmul__(self, other: Any) -> Expression:
        return _build("arithmetic", "*", other, self)

    def __truediv__(self, other: Any) -> Expression:
        return _build("arithmetic", "/", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return _build("arithmetic", "/", other, self)

    def __neg__(self) -> Expression:
        return _build("arithmetic", "-", 0, self)

    def __abs__(self) -> Expression:
        return _build("call", "abs", self)

    def is_null(self) -> Expression:
        """True where the value is missing (null or NaN); never null itself."""
        return _build("is_null", self)

    def is_not_null(self) -> Expression:
        return _build("invert", self.is_null())

    def is_in(self, values: Iterable[Any]) -> Expression:
        """True where the value is one of `values`; null where it is missing.

        Raises:
            DefinitionError: no values, or one that is not of this column's type.
        """
        return _build("is_in", self, values)

    def __bool__(self) -> NoReturn:
        raise DefinitionError(
            f"{self} has no truth value while the view is being defined. Combine conditions with & | ~ instead of "
            "and, or, not (with brackets: (a > 1) & (b < 2)), write a range as (1 < x) & (x < 3), and use "
            ".is_in([...]) instead of in."
        )

    def __hash__(self) -> int:
        raise TypeError(f"{type(self).__name__} has no hash")


def _build(rule: str, *operands: Any) -> Expression:
    # The rules make nodes, and nodes have these operators: the circle is closed here, at call time.
    from headrace.features import rules

    made: Expression = getattr(rules, rule)(*operands)
    return made
