"""Values of a pushed row: from JSON to what a feature's type says, exactly, or why not.

| type      | JSON                                                                                              |
|-----------|---------------------------------------------------------------------------------------------------|
| int64     | an integer of 64 bits, or a number without a fraction up to 2^53                                  |
| float64   | a number; "Infinity", "-Infinity"; "NaN" is null (contract C6)                                    |
| string, bool | text; true or false                                                                            |
| bytes     | text in base64                                                                                    |
| timestamp | ISO 8601 text with a zone; a number where the request names its unit                              |
| list      | an array                                                                                          |
| map       | an object whose keys are text of the key's type, or an array of pairs                             |
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from headrace.features.dtypes import BOOL, BYTES, FLOAT, INT, STRING, TIMESTAMP, split_list, split_map
from headrace.features.time import EPOCH, MAX_INSTANT_US, MIN_INSTANT_US

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}

_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}")
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SHOWN = 80
_INSTANT = 'an instant such as "2026-05-01T12:00:00Z"'


class Unfit(Exception):
    """A value that is not of its type; the text says what was got and what was expected."""


@dataclass(frozen=True)
class Writing:
    """How a request writes its values.

    Attributes:
        unit: of instants that are numbers, one of `UNITS`; None: numbers are no instants.
        naive_is_utc: whether an instant without a zone is of UTC; otherwise it is refused (contract C1).
        maps_as_text: whether a map may be text that holds JSON.
    """

    unit: str | None = None
    naive_is_utc: bool = False
    maps_as_text: bool = False


def typed_value(value: Any, dtype: str, how: Writing) -> Any:
    """A JSON value as a plain value of type `dtype` (instants as microseconds); None stays None. Raises Unfit."""
    if value is None:
        return None
    element, pair = split_list(dtype), split_map(dtype)
    if element is not None:
        if not isinstance(value, list):
            raise unfit(value, dtype)
        return [typed_value(each, element, how) for each in value]
    if pair is not None:
        return _map(value, dtype, pair, how)
    if dtype == TIMESTAMP:
        return _instant(value, how)
    if dtype == INT:
        whole = int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value
        if isinstance(whole, int) and not isinstance(whole, bool) and -(2**63) <= whole < 2**63:
            return whole
    elif dtype == FLOAT:
        return _float(value)
    elif dtype == BYTES:
        return _bytes(value)
    elif (dtype == STRING and isinstance(value, str)) or (dtype == BOOL and isinstance(value, bool)):
        return value
    raise unfit(value, dtype)


def unfit(value: Any, expected: str) -> Unfit:
    """The error of a value."""
    return Unfit(f"got {shown(value)}, expected {expected}")


def shown(value: Any) -> str:
    """A JSON value for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."


def _float(value: Any) -> float | None:
    if isinstance(value, str) and value in _WORDS:
        value = _WORDS[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise unfit(value, FLOAT)
    try:
        number = float(value)
    except OverflowError:
        raise unfit(value, FLOAT) from None
    return None if math.isnan(number) else number


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise unfit(value, "bytes as text in base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise unfit(value, "bytes as text in base64") from None


def _instant(value: Any, how: Writing) -> int:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise unfit(value, _INSTANT) from None
        if moment.utcoffset() is None:
            if not how.naive_is_utc:
                raise Unfit(f'{shown(value)} has no time zone: add one, such as Z, or "zone": "UTC" to the request')
            moment = moment.replace(tzinfo=UTC)
        us = (moment - EPOCH) // timedelta(microseconds=1)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise unfit(value, _INSTANT)
    elif how.unit is None:
        raise Unfit(
            f"{shown(value)} is a number, whose unit would be a guess: write ISO 8601 text with a zone, or name it, "
            '"unit": "s", "ms" or "us" of the request'
        )
    elif not math.isfinite(value):
        raise unfit(value, _INSTANT)
    else:
        us = round(value * UNITS[how.unit])
    if not MIN_INSTANT_US <= us <= MAX_INSTANT_US:
        raise Unfit(f"{shown(value)} is no instant of the years 1 to 9999 in UTC")
    return us


def _map(value: Any, dtype: str, pair: tuple[str, str], how: Writing) -> dict[Any, Any]:
    if how.maps_as_text and isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise unfit(value, f"{dtype}, or its JSON as text") from None
    if isinstance(value, dict):
        return {
            _never_null(_key(name, pair[0], how), name, dtype): typed_value(each, pair[1], how)
            for name, each in value.items()
        }
    if isinstance(value, list) and all(isinstance(each, list) and len(each) == 2 for each in value):
        made = {}
        for key, each in value:
            if key is None or isinstance(key, (list, dict)):
                raise unfit(key, f"a key of {dtype}")
            made[_never_null(typed_value(key, pair[0], how), key, dtype)] = typed_value(each, pair[1], how)
        return made
    raise unfit(value, f"{dtype}: an object, or an array of pairs")


def _never_null(key: Any, written: Any, dtype: str) -> Any:
    if key is None:  # NaN
        raise unfit(written, f"a key of {dtype}")
    return key


def _key(name: str, dtype: str, how: Writing) -> Any:
    """A key of an object, which JSON has as text."""
    if dtype == INT and _INTEGER.fullmatch(name):
        return typed_value(int(name), INT, how)
    if dtype == FLOAT:
        try:
            return typed_value(float(name), FLOAT, how)
        except ValueError:
            raise unfit(name, FLOAT) from None
    if dtype == BOOL and name in ("true", "false"):
        return name == "true"
    return typed_value(name, dtype, how)
