"""What is found where two places hold values of the same entities at the same instants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition

CLOSE = 1e-9
"""Floats that differ by less than this share of the greater one are equal."""
Entity = tuple[Any, ...]


@dataclass
class FeatureCheck:
    """What was found of one feature.

    Attributes:
        compared: values. mismatched: those that differ. largest: the greatest difference of two numbers; None: none
            differ, or they are no numbers.
        example: the first that differs, in words.
    """

    compared: int = 0
    mismatched: int = 0
    largest: float | None = None
    example: str | None = None


@dataclass
class Check:
    """What was found where two places were compared.

    Attributes:
        view: its name. places: which were compared, the one that is taken for right last.
        entities: sampled. rows: that both have.
        missing: rows that only the second place has. extra: rows that only the first has.
        undecided: entities of which the first has newer events than the second knows of; compare them later.
        behind, maybe_later: of served answers, those that were as of a moment before, and those that may differ because
            an event came after them: see served.py. No differences.
        example: the first missing or extra row, in words.
        features: what was found of each.
        from_us: rows as of earlier instants, or of this one, were not compared, microseconds; None: all were.
    """

    view: str
    places: tuple[str, str]
    entities: int = 0
    rows: int = 0
    missing: int = 0
    extra: int = 0
    undecided: int = 0
    behind: int = 0
    maybe_later: int = 0
    example: str | None = None
    features: dict[str, FeatureCheck] = field(default_factory=dict)
    from_us: int | None = None

    @property
    def differences(self) -> int:
        """Missing and extra rows, and values that differ."""
        return self.missing + self.extra + sum(each.mismatched for each in self.features.values())


def compare(
    check: Check, view: ViewDefinition, key: Entity, at: int, got: Mapping[str, Any], right: Mapping[str, Any]
) -> None:
    """Take the values of one entity at one instant into what was found."""
    for name, each in check.features.items():
        each.compared += 1
        if agree(got[name], right[name]):
            continue
        each.mismatched += 1
        if isinstance(got[name], (int, float)) and isinstance(right[name], (int, float)):
            each.largest = max(each.largest or 0.0, abs(got[name] - right[name]))
        if each.example is None:
            instant = format_instant(at)
            each.example = f"{shown_key(view, key)} at {instant}: {got[name]!r}, expected {right[name]!r}"


def agree(got: Any, right: Any) -> bool:
    """Whether two values are the same, floats within `CLOSE`; also within lists and maps, whose order counts.

    >>> agree(0.1 + 0.2, 0.3), agree([1.0, None], [1.0 + 1e-12, None]), agree({"a": 1, "b": 1}, {"b": 1, "a": 1})
    (True, True, False)
    """
    if isinstance(got, float) and isinstance(right, float):
        return math.isclose(got, right, rel_tol=CLOSE) or (math.isnan(got) and math.isnan(right))
    if isinstance(got, Mapping) and isinstance(right, Mapping):
        return agree(list(got.items()), list(right.items()))
    if isinstance(got, Sequence) and isinstance(right, Sequence) and not isinstance(got, (str, bytes)):
        return len(got) == len(right) and all(map(agree, got, right))
    return bool(got == right)


def shown_key(view: ViewDefinition, key: Entity) -> str:
    """An entity in words."""
    return " ".join(f"{name}={value}" for name, value in zip(view.entity.keys, key, strict=True))
