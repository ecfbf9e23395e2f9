"""One Python value, or one cell of text, to the type of a field: the rules of casting.py for a single value."""

import base64
import binascii
import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from headrace.features.events import Field
from headrace.flows.fit import MISSING, Unfit, shown
from headrace.flows.instants import TimeReading, instant_of

NAMES = {"int64": "int", "float64": "float", "bool": "bool", "string": "str", "bytes": "bytes", "timestamp": "instant"}
"""What the author of an event calls the types of its fields."""

_MIN, _MAX = -(2**63), 2**63 - 1
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "1": True, "0": False}
_NO_NUMBERS = {"nan": math.nan, "inf": math.inf, "infinity": math.inf, "-inf": -math.inf, "-infinity": -math.inf}


@dataclass(frozen=True)
class Reading:
    """How a source writes its events.

    time: the clock of instants without a zone and the unit of those that are integers.
    text: every value is text (CSV); base64: bytes are written in base64 (JSON).
    columns: event field -> column of the source, where the names differ.
    source: name for dead letters.
    """

    time: TimeReading = dataclasses.field(default_factory=TimeReading)
    text: bool = False
    base64: bool = False
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source: str = ""

    def column(self, name: str) -> str:
        """What the source calls the field `name`."""
        return self.columns.get(name, name)


def cast_value(field: Field, value: Any, reading: Reading) -> Any:
    """One Python value as the field's plain Python value (an instant as int microseconds), None where it is missing.

    Raises:
        Unfit: the value is not of the field's type, or missing from the row of a field that may not be null.
    """
    if value is MISSING:
        if field.nullable:
            return None
        raise Unfit("the row does not have it")
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return math.nan if field.dtype == "float64" else None
    if reading.text and isinstance(value, str):
        return _parse(field, value, reading)
    if field.dtype == "timestamp":
        return None if isinstance(value, np.datetime64) and np.isnat(value) else instant_of(value, reading.time)
    if field.dtype in ("int64", "float64"):
        return _number(field, value)
    if field.dtype == "bool" and isinstance(value, bool):
        return value
    if field.dtype == "string" and isinstance(value, str):
        return _utf8(str.__str__(value))
    if field.dtype == "bytes" and isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if field.dtype == "bytes" and reading.base64 and isinstance(value, str):
        return _base64(value)
    raise _mismatch(field, value)


def _mismatch(field: Field, value: Any) -> Unfit:
    return Unfit(f"{shown(value)} ({type(value).__name__}) is no {NAMES[field.dtype]}")


def _number(field: Field, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise _mismatch(field, value)
    if field.dtype == "float64":
        try:
            return float(value)
        except (OverflowError, ValueError):
            raise Unfit(f"{shown(value)} is beyond float64") from None
    try:
        whole = int(value)
    except (OverflowError, ValueError):
        raise _mismatch(field, value) from None
    if whole != value:
        raise _mismatch(field, value)
    if not _MIN <= whole <= _MAX:
        raise Unfit(f"{shown(value)} is beyond int64")
    return whole


def _utf8(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Unfit(f"{text[:60]!a} is no UTF-8 text") from None
    return text


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unfit(f"{shown(text)} is no base64, which bytes are written in") from None


def _parse(field: Field, raw: str, reading: Reading) -> Any:
    """The value of one cell of a text format."""
    if field.dtype == "string":
        return _utf8(raw) if raw or not field.nullable else None
    text = raw.strip()
    if not text:
        return None
    if field.dtype == "timestamp":
        return instant_of(text, reading.time)
    if field.dtype == "bytes":
        return _base64(text)
    if field.dtype == "bool":
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        raise Unfit(f"{shown(raw)} is no bool (true, false, 1 or 0)")
    if field.dtype == "int64" and re.fullmatch(r"[+-]?[0-9]{1,40}", text):
        return _number(field, int(text))
    value = _NO_NUMBERS.get(text.lower(), math.nan)
    if _NUMBER.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise Unfit(f"{shown(raw)} is beyond float64")
    elif text.lower() not in _NO_NUMBERS:
        raise Unfit(f"{shown(raw)} is no {NAMES[field.dtype]}")
    if field.dtype == "int64":
        return None if math.isnan(value) else _number(field, value)
    return value
