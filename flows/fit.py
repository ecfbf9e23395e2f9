"""Whether values fit the field they are meant for: the result of casting a column, and the refusal of one value."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Unfit(Exception):
    """One value does not fit its field; the message is the detail of its dead letter. Never leaves `flows`."""


@dataclass(frozen=True)
class Unreadable:
    """In place of a row that could not even be parsed: what is wrong with it."""

    problem: str


class Missing:
    """The mark of a field that a row does not have, which is not the same as a null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing()


@dataclass(frozen=True)
class Cast:
    """A column after casting: `array` (n,) of the field's Arrow type, and the rows that did not fit.

    unfit: row -> what is wrong with it; such a row is null in `array`.
    """

    array: pa.Array
    unfit: dict[int, str] = field(default_factory=dict)


def shown(value: Any, limit: int = 60) -> str:
    """A value as an error shows it: its Python form, shortened."""
    try:
        text = repr(value)
    except Exception:  # the repr of an object of the user's own may raise anything
        text = f"<{type(value).__name__} that cannot be shown>"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def cell(array: pa.Array, row: int) -> str:
    """One value of an Arrow array as an error shows it. Also for instants that no Python datetime can hold."""
    try:
        value = array[row].as_py()
    except (ValueError, OverflowError, ArithmeticError):
        ticks = array.slice(row, 1).view(pa.int64() if array.type.bit_width == 64 else pa.int32())
        return f"{ticks[0].as_py()} ({array.type})"
    return value.isoformat() if hasattr(value, "isoformat") else shown(value)


def without(array: pa.Array, bad: npt.NDArray[np.bool_]) -> pa.Array:
    """`array` with null in the rows where `bad` is true."""
    if not bad.any():
        return array
    return array.take(pa.array(np.arange(len(array)), mask=bad))


def interleaved(parts: Sequence[tuple[Sequence[int], Cast]], n: int) -> Cast:
    """One column of n rows from parts of it: the rows that each part has, and their values in that order.

    A row that no part has is null.
    """
    if len(parts) == 1 and len(parts[0][0]) == n:
        return parts[0][1]
    source = np.full(n, -1, dtype=np.int64)
    unfit: dict[int, str] = {}
    first = 0
    for rows, cast in parts:
        source[np.asarray(rows, dtype=np.int64)] = np.arange(first, first + len(rows))
        first += len(rows)
        unfit |= {rows[i]: why for i, why in cast.unfit.items()}
    values = pa.concat_arrays([cast.array for _, cast in parts])
    return Cast(values.take(pa.array(source, mask=source < 0)), unfit)
