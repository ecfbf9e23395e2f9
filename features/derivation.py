"""Derived features computed: the same code on the columns of a batch or training set and on the row of a lookup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.features.dtypes import BOOL, FLOAT, INT, NUMBERS, TIMESTAMP
from headrace.features.errors import DataError
from headrace.features.evaluate import evaluate, typed
from headrace.features.features import MISSING, DerivedFeature

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.features.evaluate import Array, Columns, Pair
    from headrace.features.naming import NamedFeature


def derive(derivations: Iterable[NamedFeature], columns: Columns, dtypes: Mapping[str, str], n: int) -> dict[str, Pair]:
    """Derived features of n rows, defaults applied.

    Args:
        derivations: what to compute, each after the features it reads.
        columns: name -> (values, valid) of the features they read (other than each other), defaults applied.
        dtypes: type of every feature.
        n: number of rows.

    Returns:
        name -> (values, valid) for each of `derivations`.

    Raises:
        DataError: a function of the user's failed or returned something else than n values; names feature and function.
    """
    known = dict(columns) if isinstance(columns, dict) else {name: columns[name] for name in columns}
    out: dict[str, Pair] = {}
    for named in derivations:
        feature = named.feature
        assert isinstance(feature, DerivedFeature)
        if feature.expr is not None:
            values, valid = evaluate(feature.expr, known, n)
        else:
            values, valid = _function(named.name, feature, known, dtypes, n)
        out[named.name] = known[named.name] = with_default(values, valid, feature.default)
    return out


def with_default(values: Array, valid: Array, default: Any) -> Pair:
    """The column with `default` in place of missing values; MISSING and None leave it as it is."""
    if default is MISSING or default is None or valid.all():
        return values, valid
    import numpy as np

    if values.dtype != object:
        return np.where(valid, values, values.dtype.type(default)), np.ones_like(valid)
    out = values.copy()
    for i in np.flatnonzero(~valid):
        out[i] = default
    return out, np.ones_like(valid)


def _function(name: str, feature: DerivedFeature, known: Columns, dtypes: Mapping[str, str], n: int) -> Pair:
    import numpy as np

    function: Any = feature.fn
    shown = f"Feature '{name}': its function {getattr(function, '__name__', type(function).__name__)}"
    arrays = [_input(*known[each], dtypes[each]) for each in feature.inputs]
    try:
        result = np.asarray(function(*arrays))
    except Exception as error:
        raise DataError(f"{shown} failed with {type(error).__name__}: {error}") from error
    if result.shape != (n,):
        raise DataError(f"{shown} returned shape {result.shape} for {n} rows. It must return one value per row.")
    try:
        return _output(result, feature.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{shown} returned values ({result.dtype}) that are no {feature.dtype}: {error}. "
            "Set dtype= of derived(...) to what it returns."
        ) from error


def _input(values: Array, valid: Array, dtype: str) -> Array:
    """A feature as a function gets it: a fresh array with its type's own sign for missing (NaN, NaT, None)."""
    import numpy as np

    if dtype in NUMBERS:
        out = typed(values, valid, dtype).astype(np.float64)
        out[~valid] = np.nan
        return out
    if dtype == TIMESTAMP:
        instants = typed(values, valid, dtype).astype("datetime64[us]")
        instants[~valid] = np.datetime64("NaT")
        return instants
    plain = values.astype(object)
    plain[~valid] = None
    return plain


def _output(result: Array, dtype: str) -> Pair:
    import numpy as np

    if dtype == FLOAT:
        values = result.astype(np.float64)
        return values, ~np.isnan(values)
    if result.dtype.kind in "mM":
        valid = ~np.isnat(result)
        return np.where(valid, result, np.datetime64(0, "us")).astype("datetime64[us]").astype(np.int64), valid
    if result.dtype.kind == "f":
        valid = ~np.isnan(result)
    elif result.dtype == object:
        valid = np.array([value is not None and value == value for value in result], dtype=np.bool_)
    else:
        valid = np.ones(len(result), dtype=np.bool_)
    if dtype in (INT, TIMESTAMP):
        whole = np.array([int(value) for value in result[valid]], dtype=np.int64)
        if (whole != result[valid]).any():
            raise ValueError("some are not whole numbers")
        values = np.zeros(len(result), dtype=np.int64)
        values[valid] = whole
        return values, valid
    if dtype == BOOL:
        values = np.zeros(len(result), dtype=np.bool_)
        values[valid] = result[valid].astype(np.bool_)
        return values, valid
    plain = np.empty(len(result), dtype=object)
    plain[:] = result.tolist()
    plain[~valid] = None
    return plain, valid
