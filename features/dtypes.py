"""The types of columns and features, as short text: `"int64"`, `"list<string>"`, `"map<string,float64>"`.

A column of an event has one of `SCALARS`. A feature may also be a list or a map of scalars. In memory a `timestamp` is
an `int` of microseconds UTC, a list a Python `list`, a map a `dict` whose order means something (largest first).
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.features.time import instant_us

INT, FLOAT, STRING, BOOL, TIMESTAMP, BYTES = "int64", "float64", "string", "bool", "timestamp", "bytes"
SCALARS = (INT, FLOAT, STRING, BOOL, TIMESTAMP, BYTES)
NUMBERS = (INT, FLOAT)

OF_PYTHON: dict[type, str] = {
    str: STRING,
    int: INT,
    float: FLOAT,
    bool: BOOL,
    bytes: BYTES,
    datetime: TIMESTAMP,
}

_INT64 = range(-(2**63), 2**63)


def list_of(dtype: str) -> str:
    return f"list<{dtype}>"


def map_of(key: str, value: str) -> str:
    return f"map<{key},{value}>"


def split_map(dtype: str) -> tuple[str, str] | None:
    """Key and value types of a map type, None for any other.

    >>> split_map("map<string,list<int64>>")
    ('string', 'list<int64>')
    """
    if not dtype.startswith("map<"):
        return None
    key, _, value = dtype[4:-1].partition(",")
    return key, value


def split_list(dtype: str) -> str | None:
    """Element type of a list type, None for any other."""
    return dtype[5:-1] if dtype.startswith("list<") else None


def is_known(dtype: str) -> bool:
    """Whether text is a type: a scalar, or a list or map of known types.

    >>> is_known("map<string,list<int64>>"), is_known("double")
    (True, False)
    """
    element, pair = split_list(dtype), split_map(dtype)
    if element is not None:
        return is_known(element)
    if pair is not None:
        return pair[0] in SCALARS and is_known(pair[1])
    return dtype in SCALARS


def of_value(value: Any, name: str) -> tuple[str, Any]:
    """Type and plain value of a literal; NumPy scalars become Python's, aware datetimes microseconds.

    Raises:
        DefinitionError: None, a naive datetime, an integer beyond 64 bits or a value of no column type.
    """
    if hasattr(value, "item") and type(value).__module__.partition(".")[0] == "numpy":
        value = value.item()
    if value is None:
        raise DefinitionError(f"{name}: None is no value to compare or compute with. Use .is_null() to ask for nulls.")
    if isinstance(value, datetime):
        return TIMESTAMP, instant_us(value, name)
    python: Any
    for python in (bool, int, float, str, bytes):
        if isinstance(value, python):
            plain = python(value)
            if python is int and plain not in _INT64:
                raise DefinitionError(f"{name}: {value!r} does not fit 64 bits.")
            return OF_PYTHON[python], plain
    raise DefinitionError(
        f"{name}: {value!r} ({type(value).__name__}) is no column value. "
        "Use a str, int, float, bool, bytes or an aware datetime."
    )


def coerce(value: Any, dtype: str, name: str) -> Any:
    """`value` as a plain Python value of type `dtype`; None stays None.

    Used for defaults: `default=0` of a float feature becomes 0.0, an instant becomes microseconds.

    Raises:
        DefinitionError: the value is not of that type.

    >>> coerce(0, "float64", "default"), coerce({"NYC": 1}, "map<string,int64>", "default")
    (0.0, {'NYC': 1})
    >>> coerce("none", "float64", "default of 'fare_mean'")
    Traceback (most recent call last):
    ...
    headrace.features.errors.DefinitionError: default of 'fare_mean': got 'none' (string), expected float64.
    """
    if value is None:
        return None
    element = split_list(dtype)
    if element is not None:
        if not isinstance(value, (list, tuple)):
            raise DefinitionError(f"{name}: got {value!r}, expected a list ({dtype}).")
        return [coerce(each, element, name) for each in value]
    pair = split_map(dtype)
    if pair is not None:
        if not isinstance(value, dict):
            raise DefinitionError(f"{name}: got {value!r}, expected a dict ({dtype}).")
        return {coerce(key, pair[0], name): coerce(each, pair[1], name) for key, each in value.items()}
    if dtype == TIMESTAMP and isinstance(value, str):
        return instant_us(value, name)
    got, plain = of_value(value, name)
    if got == dtype:
        if dtype == FLOAT and math.isnan(plain):
            raise DefinitionError(f"{name}: NaN means missing here (contract C6). Use None or leave it out.")
        return plain
    if dtype == FLOAT and got == INT:
        return float(plain)
    raise DefinitionError(f"{name}: got {value!r} ({got}), expected {dtype}.")
