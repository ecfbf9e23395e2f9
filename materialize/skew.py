"""What skew costs: how far the values that were known then lie from the corrected ones, feature by feature.

A model that is trained on corrected values and served with those known at the time sees two distributions. The report
compares the columns `<feature>` and `<feature>__known` of a training set that was made with `as_known="beside"`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.errors import DataError
from headrace.materialize.comparing import CLOSE, agree
from headrace.materialize.spine import read_spine

KNOWN = "__known"
"""What the names of columns end with that say what was known then."""


@dataclass
class FeatureSkew:
    """What was found of one feature.

    Attributes:
        rows: compared. differing: those of which the two values differ, floats by more than 1e-9 of the greater one.
        mean, largest: of the differences of numbers, over all rows that have both; None for what is no number.
        row: the first row that has the largest difference, or the first that differs; None: none does.
    """

    rows: int = 0
    differing: int = 0
    mean: float | None = None
    largest: float | None = None
    row: int | None = None
    _numbers: int = field(default=0, repr=False)

    @property
    def share(self) -> float:
        """Of the rows, 0 to 1."""
        return self.differing / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class SkewReport:
    """What was found, by feature. Printed, it is a table."""

    features: dict[str, FeatureSkew]

    @property
    def share(self) -> float:
        """Of all values that were compared, those that differ."""
        compared = sum(each.rows for each in self.features.values())
        return sum(each.differing for each in self.features.values()) / compared if compared else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "share": self.share,
            "features": {
                name: {
                    "rows": each.rows,
                    "differing": each.differing,
                    "share": each.share,
                    "mean": each.mean,
                    "largest": each.largest,
                    "row": each.row,
                }
                for name, each in self.features.items()
            },
        }

    def __str__(self) -> str:
        heads = ("feature", "rows", "differ", "mean difference", "largest", "in row")
        lines: list[tuple[str, ...]] = [heads]
        for name, each in self.features.items():
            numbers = ("-" if value is None else f"{value:.4g}" for value in (each.mean, each.largest))
            row = "-" if each.row is None else str(each.row)
            lines.append((name, str(each.rows), f"{each.share:.1%}", *numbers, row))
        widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if not at else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


def skew_report(training_set: Any) -> SkewReport:
    """Compare known with corrected values.

    Args:
        training_set: what `headrace.training_set(..., as_known="beside")` gave, in any of its forms, or the path of the
            file that it wrote.

    Raises:
        DataError: no feature has a column of what was known.
    """
    found = read_spine(training_set, "")
    names = found.schema.names
    features = {
        name: FeatureSkew()
        for name in names
        if name + KNOWN in names and not (name.endswith("__status") and name.removesuffix("__status") in names)
    }
    if not features:
        raise DataError(
            f"skew_report: no column has a second one that ends with '{KNOWN}'. Make the training set with "
            "as_known='beside'."
        )
    first = 0
    for portion in found.portions():
        for name, each in features.items():
            _compare(each, portion.column(name), portion.column(name + KNOWN), first)
        first += portion.num_rows
    return SkewReport(features)


def _compare(skew: FeatureSkew, corrected: pa.ChunkedArray, known: pa.ChunkedArray, first: int) -> None:
    """Add a portion, which begins at row `first`."""
    if pa.types.is_integer(corrected.type) or pa.types.is_floating(corrected.type):
        differs, gaps = _numbers(corrected, known)
        both = ~np.isnan(gaps)
        if both.any():
            total = (skew.mean or 0.0) * skew._numbers + float(gaps[both].sum())
            skew._numbers += int(both.sum())
            skew.mean = total / skew._numbers
            most = int(np.argmax(np.where(both & differs, gaps, -1.0)))
            if differs[most] and (skew.largest is None or gaps[most] > skew.largest):
                skew.largest, skew.row = float(gaps[most]), first + most
    else:
        differs = _others(corrected.to_pylist(), known.to_pylist())
    if skew.row is None and differs.any():
        skew.row = first + int(np.flatnonzero(differs)[0])
    skew.rows += len(differs)
    skew.differing += int(differs.sum())


def _numbers(corrected: pa.ChunkedArray, known: pa.ChunkedArray) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(n,) whether they differ, and by how much; NaN where one is missing."""
    a, b = (_floats(column) for column in (corrected, known))
    missing = [np.asarray(column.is_null()) | np.isnan(values) for column, values in ((corrected, a), (known, b))]
    with np.errstate(invalid="ignore"):
        gaps = np.where(a == b, 0.0, np.abs(a - b))
        close = (a == b) | (gaps <= CLOSE * np.maximum(np.abs(a), np.abs(b)))
    if pa.types.is_integer(corrected.type):  # exactly, beyond 2**53 too
        close = np.asarray(pc.fill_null(pc.equal(corrected, known), False))
    differs = np.where(missing[0] | missing[1], missing[0] != missing[1], ~close)
    return differs, np.where(missing[0] | missing[1], np.nan, gaps)


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = pc.fill_null(column, 0).to_numpy().astype(np.float64)
    return values


def _others(corrected: Iterable[Any], known: Iterable[Any]) -> np.ndarray[Any, Any]:
    return np.array([not agree(a, b) for a, b in zip(corrected, known, strict=True)], dtype=np.bool_)
