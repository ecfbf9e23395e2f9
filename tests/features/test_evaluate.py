"""Vectorised evaluation equals reading the expression row by row with plain Python values and None."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.columns import Column, Expression, columns_of, expr_key
from headrace.features.evaluate import evaluate
from headrace.features.functions import coalesce, greatest, least, log, sqrt, where

N = Column("E", "i", "int64", True)
J = Column("E", "j", "int64", True)
F = Column("E", "f", "float64", True)
S = Column("E", "s", "string", True)
B = Column("E", "b", "bool", True)
T = Column("E", "t", "timestamp", True)
KINDS = {"int64": np.int64, "float64": np.float64, "bool": np.bool_, "timestamp": np.int64}

Row = dict[str, Any]
ints = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
floats = st.floats() | st.sampled_from([0.0, 1.0, -2.0])
ROWS = st.fixed_dictionaries(
    {
        "i": st.none() | ints,
        "j": st.none() | ints,
        "f": st.none() | floats,
        "s": st.none() | st.sampled_from(["", "a", "b"]),
        "b": st.none() | st.booleans(),
        "t": st.none() | st.integers(0, 10**15),
    }
)


def columns(rows: list[Row]) -> dict[str, tuple[Any, Any]]:
    """Columns as a batch has them: garbage where a value is missing."""
    out = {}
    for column in (N, J, F, S, B, T):
        values = [row[column.name] for row in rows]
        valid = np.array([value is not None for value in values], dtype=bool)
        kind = KINDS.get(column.dtype)
        if kind is None:
            plain = np.empty(len(rows), dtype=object)
            plain[:] = values
        else:
            plain = np.array([7 if value is None else value for value in values], dtype=kind)
        out[column.name] = plain, valid
    return out


def same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return bool(a == b) or (isinstance(a, float) and math.isclose(a, b, rel_tol=1e-12))


def numbers() -> st.SearchStrategy[Expression]:
    leaf: st.SearchStrategy[Any] = st.sampled_from([N, J, F, abs(N), T - T, 1 + N])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda a, b, op: _binary(op, a, b), inner, inner, st.sampled_from("+-*/")),
            st.builds(
                lambda a, c, op: _binary(op, a, c), inner, ints | floats.filter(_finite), st.sampled_from("+-*/")
            ),
            st.builds(abs, inner),
            st.builds(sqrt, inner),
            st.builds(log, inner),
            st.builds(greatest, inner, inner),
            st.builds(least, inner, inner),
            st.builds(coalesce, inner, inner),
            st.builds(lambda c, a, b: where(c > 0, a, b), inner, inner, inner),
        ),
        max_leaves=6,
    )


def conditions() -> st.SearchStrategy[Expression]:
    comparing = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    leaf = st.one_of(
        st.builds(lambda a, b, op: _comparison(op, a, b), numbers(), numbers(), comparing),
        st.builds(lambda a, op: _comparison(op, S, a), st.sampled_from(["", "a", "z"]), comparing),
        st.builds(lambda op: _comparison(op, T, "1970-01-02T00:00:00Z"), comparing),
        st.sampled_from([B, S == S, B != B, B == True, N.is_null(), S.is_null(), F.is_not_null(), (F / 0).is_null()]),  # noqa: E712
        st.builds(lambda values: S.is_in(values), st.lists(st.sampled_from(["a", "", "x"]), min_size=1)),
        st.builds(lambda values: N.is_in(values), st.lists(ints, min_size=1)),
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            st.builds(lambda a: ~a, inner),
        ),
        max_leaves=5,
    )


def _finite(x: float) -> bool:
    return math.isfinite(x)


def _binary(op: str, a: Any, b: Any) -> Expression:
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[op]()


def _comparison(op: str, a: Any, b: Any) -> Any:
    return {
        "<": lambda: a < b,
        "<=": lambda: a <= b,
        ">": lambda: a > b,
        ">=": lambda: a >= b,
        "==": lambda: a == b,
        "!=": lambda: a != b,
    }[op]()


def by_hand(key: Any, row: Row) -> Any:
    """The value of one row, from what the expression says (`expr_key`), None for missing."""
    op, *rest = key
    if op == "column":
        value = row[rest[1]]
        return None if isinstance(value, float) and math.isnan(value) else value
    if op == "literal":
        return rest[1]
    if op == "is_in":
        value = by_hand(rest[0], row)
        return None if value is None else value in rest[1:]
    values = [by_hand(each, row) for each in rest]
    if op == "is_null":
        return values[0] is None
    if op == "&":
        return False if False in values else None if None in values else True
    if op == "|":
        return True if True in values else None if None in values else False
    if op == "coalesce":
        return next((v for v in values if v is not None), None)
    if op == "where":
        return values[1] if values[0] else values[2]
    if None in values:
        return None
    if op == "not":
        return not values[0]
    if op in ("<", "<=", ">", ">=", "==", "!="):
        return _comparison(op, *_alike(*values))
    return _arithmetic(op, values, _is_instant(rest[0]))


def _is_instant(key: Any) -> bool:
    return key[0] == "column" and key[3] == "timestamp"


def _alike(a: Any, b: Any) -> tuple[Any, Any]:
    """NumPy compares an int64 with a float64 as float64."""
    return (float(a), float(b)) if float in (type(a), type(b)) else (a, b)


def _arithmetic(op: str, values: list[Any], instants: bool) -> Any:
    try:
        if instants:
            return (values[0] - values[1]) / 1e6
        if op in ("log", "sqrt"):
            x = float(values[0])
            return (math.log(x) if op == "log" else math.sqrt(x)) if math.isfinite(x) else _at_infinity(op, x)
        if op in ("greatest", "least"):
            return max(values) if op == "greatest" else min(values)
        if op == "abs":
            out: Any = abs(values[0])
        else:
            if op == "/" or float in map(type, values):
                values = [float(v) for v in values]
            out = _binary(op, *values)
    except (ZeroDivisionError, ValueError):
        return None
    except OverflowError:
        out = math.inf
    if isinstance(out, float):
        return None if math.isnan(out) else out
    return out if -(2**63) <= out < 2**63 else None


def _at_infinity(op: str, x: float) -> float | None:
    return x if x > 0 else None


def check(expr: Expression, rows: list[Row]) -> None:
    values, valid = evaluate(expr, columns(rows), len(rows))
    assert len(values) == len(valid) == len(rows)
    assert valid.dtype == bool
    assert values.dtype == KINDS.get(expr.dtype, object)
    got = [v if ok else None for v, ok in zip(values.tolist(), valid.tolist(), strict=True)]
    expected = [by_hand(expr_key(expr), row) for row in rows]
    assert all(same(a, b) for a, b in zip(got, expected, strict=True)), (str(expr), got, expected)


@given(conditions(), st.lists(ROWS, max_size=6))
def test_conditions(expr: Expression, rows: list[Row]) -> None:
    check(expr, rows)


@given(numbers(), st.lists(ROWS, max_size=6))
def test_numbers(expr: Expression, rows: list[Row]) -> None:
    check(expr, rows)


@given(numbers(), ROWS, st.integers(2, 5))
def test_one_row_gives_what_many_rows_give(expr: Expression, row: Row, n: int) -> None:
    one, many = evaluate(expr, columns([row]), 1), evaluate(expr, columns([row] * n), n)
    assert one[1][0] == many[1][n - 1]
    assert not one[1][0] or one[0][0] == many[0][n - 1]


def test_constants_fill_the_column() -> None:
    values, valid = evaluate(
        where(S == "a", "yes", "no"), columns([dict.fromkeys("ijfsbt"), {**dict.fromkeys("ijfsbt"), "s": "a"}]), 2
    )
    assert (values.tolist(), valid.tolist()) == (["no", "yes"], [True, True])
    values, valid = evaluate(coalesce(S, "none"), columns([dict.fromkeys("ijfsbt")]), 1)
    assert (values.tolist(), valid.tolist()) == (["none"], [True])


def test_inputs_are_not_changed() -> None:
    given_columns = columns([{"i": 1, "j": 0, "f": math.nan, "s": "a", "b": True, "t": 5}])
    before = {name: (v.copy(), ok.copy()) for name, (v, ok) in given_columns.items()}
    evaluate((F / J > 1) | ~B | (S == "a") & (N + J > 3), given_columns, 1)
    for name, (v, ok) in before.items():
        np.testing.assert_array_equal(v, given_columns[name][0])
        np.testing.assert_array_equal(ok, given_columns[name][1])


def test_only_named_columns_are_asked_for() -> None:
    assert columns_of((F > 1) & (S == "a") | (F < 0)) == ("f", "s")
    evaluate(F > 1, {"f": columns([{**dict.fromkeys("ijfsbt"), "f": 2.0}])["f"]}, 1)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_any_number_of_rows(n: int) -> None:
    rows = [{"i": 2, "j": 3, "f": 1.5, "s": "b", "b": False, "t": 1}] * n
    assert evaluate((N * J + F > 7) & (S != "a"), columns(rows), n)[0].tolist() == [True] * n
    named = where(N > 5, "many", where(F > 1, S, coalesce(S, "none")))
    assert evaluate(named, columns(rows), n)[0].tolist() == ["b"] * n
