"""What the words of a question mean: `driver_activity driver_id=7 --at 2026-05-01T12:00Z`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.features.dtypes import BOOL, BYTES, FLOAT, INT, TIMESTAMP
from headrace.features.errors import DataError, did_you_mean
from headrace.features.time import instant_us
from headrace.features.views import ViewDefinition

TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def entity_keys(view: ViewDefinition, words: Sequence[str]) -> dict[str, Any]:
    """The entity's keys from words `column=value`, each as the type of its column.

    Raises:
        DataError: a word without `=`, a column that is no key of the view's entity, a key missing or given twice, a
            value that is not of the column's type.
    """
    keys: dict[str, Any] = {}
    expected = " ".join(f"{key}=..." for key in view.entity.keys)
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise DataError(f"'{word}' is no key=value. View '{view.name}' is asked by {expected}")
        if name not in view.entity.keys:
            raise DataError(
                f"'{name}' is no key of entity '{view.entity.name}'{did_you_mean(name, view.entity.keys)} "
                f"View '{view.name}' is asked by {expected}"
            )
        if name in keys:
            raise DataError(f"Key '{name}' is given twice.")
        keys[name] = _value(text, _dtype(view, name), name)
    missing = [key for key in view.entity.keys if key not in keys]
    if missing:
        raise DataError(
            f"Key '{missing[0]}' of entity '{view.entity.name}' is missing. View '{view.name}' is asked by {expected}"
        )
    return {key: keys[key] for key in view.entity.keys}


def _dtype(view: ViewDefinition, key: str) -> str:
    return view.schema.field(key).dtype


def _value(text: str, dtype: str, name: str) -> Any:
    try:
        if dtype == INT:
            return int(text)
        if dtype == FLOAT:
            return float(text)
        if dtype == BOOL:
            return TRUTHS[text.lower()]
    except (ValueError, KeyError):
        raise DataError(f"Key '{name}' is of type {dtype}, got '{text}'.") from None
    if dtype == TIMESTAMP:
        return instant_us(text, name)
    return text.encode() if dtype == BYTES else text
