"""Arrow columns and Python values to the types of an event's fields: checked, vectorised, one refusal per row.

| field   | read from                                             | refused                          |
|---------|-------------------------------------------------------|----------------------------------|
| int     | integers, whole floats (pandas' integers with gaps)   | fractions, beyond int64, bools   |
| float   | floats (NaN is missing, infinities stay), integers    | bools, text                      |
| bool    | bools                                                 | integers, text                   |
| str     | UTF-8 text                                            | numbers, bytes, what is no UTF-8 |
| bytes   | bytes; from JSON their base64                         | text                             |
| instant | see instants.py                                       | what has no zone or no unit      |

Decimals count as the number they are. From a text format (CSV) numbers, bools (true, false, 1, 0) and instants are read
from their text and bytes from base64; an empty cell is a null, or an empty string where a string may not be null. NaN
and NaT are missing in every type.
"""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.events import Field
from headrace.flows.batch import ARROW_TYPES
from headrace.flows.fit import Cast, Unfit, cell, shown, without
from headrace.flows.instants import cast_datetimes, cast_instants
from headrace.flows.values import NAMES, Reading, cast_value

_MAX = 2**63 - 1
_INT_TEXT = r"^-?[0-9]{1,18}$"
_FLOAT_TEXT = r"^-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$"
_PYTHON: dict[str, set[type]] = {
    "int64": {int},
    "float64": {float, int},
    "bool": {bool},
    "string": {str},
    "bytes": {bytes},
}


def cast_column(field: Field, array: pa.Array, reading: Reading) -> Cast:
    """An Arrow column of any type to the field's type. Nullability is not judged here."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return cast_column(field, array.storage, reading)
    if pa.types.is_null(kind):
        return Cast(pa.nulls(len(array), ARROW_TYPES[field.dtype]))
    if reading.text and field.dtype not in ("string", "timestamp"):
        return _from_text(field, array, reading)
    if field.dtype == "timestamp":
        return cast_instants(_blank_to_null(array) if reading.text else array, reading.time)
    if pa.types.is_dictionary(kind) and not (field.dtype == "string" and _is_text(kind.value_type)):
        return cast_column(field, array.cast(kind.value_type), reading)
    return _CASTS[field.dtype](field, array, reading)


def cast_values(field: Field, values: Sequence[Any], reading: Reading) -> Cast:
    """Python values to the field's type; `MISSING` marks a field that the row does not have.

    Values of the one expected Python type are converted in one go, any others one by one.
    """
    kinds = set(map(type, values))
    kinds.discard(type(None))
    if not kinds:
        return Cast(pa.nulls(len(values), ARROW_TYPES[field.dtype]))
    if kinds <= _PYTHON.get(field.dtype, set()) and not (field.dtype == "bytes" and reading.base64):
        try:
            return Cast(pa.array(values, type=ARROW_TYPES[field.dtype], from_pandas=False))
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            pass  # a value beyond the type: each is judged alone
    elif field.dtype == "timestamp" and kinds == {datetime}:
        quick = cast_datetimes(values)
        if quick is not None:
            return cast_instants(quick.array, reading.time)
    elif field.dtype == "timestamp" and kinds == {str}:
        try:
            return cast_instants(pa.array(values, type=pa.string()), reading.time)
        except (pa.ArrowException, ValueError):
            pass  # text that is no UTF-8
    elif field.dtype == "timestamp" and kinds == {int} and reading.time.unit is not None:
        try:
            return cast_instants(pa.array(values, type=pa.int64()), reading.time)
        except (pa.ArrowException, OverflowError):
            pass
    return _one_by_one(field, values, reading)


def never_fits(field: Field, kind: pa.DataType, reading: Reading) -> str | None:
    """Why no value of Arrow type `kind` can fit the field, or None if some can.

    Told from one value of the type that fits whatever a value of that type could fit.
    """
    if pa.types.is_dictionary(kind):
        return never_fits(field, kind.value_type, reading)
    specimen: Any = "2026-01-01T00:00:00Z"
    if pa.types.is_boolean(kind):
        specimen = True
    elif _is_bytes(kind):
        specimen = bytes(kind.byte_width if pa.types.is_fixed_size_binary(kind) else 0)
    elif not _is_text(kind):
        specimen = 0
    try:
        one = pa.array([specimen], type=kind)
    except (pa.ArrowException, TypeError, ValueError):
        return None if pa.types.is_null(kind) or isinstance(kind, pa.BaseExtensionType) else f"{kind} is no column type"
    unfit = cast_column(field, one, reading).unfit
    return f"type {kind}: {unfit[0]}" if unfit else None


def _one_by_one(field: Field, values: Sequence[Any], reading: Reading) -> Cast:
    out: list[Any] = []
    unfit: dict[int, str] = {}
    for row, value in enumerate(values):
        fit = None
        try:
            fit = cast_value(field, value, reading)
        except Unfit as refusal:
            unfit[row] = str(refusal)
        except Exception as error:  # an object of the user's own may raise anything when it is converted
            unfit[row] = f"{shown(value)} raised {type(error).__name__}: {error}"
        out.append(fit)
    if field.dtype == "timestamp":
        return Cast(pa.array(out, type=pa.int64()).cast(ARROW_TYPES["timestamp"]), unfit)
    return Cast(pa.array(out, type=ARROW_TYPES[field.dtype], from_pandas=False), unfit)


def _from_text(field: Field, array: pa.Array, reading: Reading) -> Cast:
    """Cells of text: those of the common spelling in one go, the others one by one."""
    text = _utf8_text(array)
    if text is None or field.dtype not in ("int64", "float64"):
        values = array.to_pylist() if text is None else text.to_pylist()
        return _one_by_one(field, [_cell_text(v) for v in values], reading)
    pattern = _INT_TEXT if field.dtype == "int64" else _FLOAT_TEXT
    common = pc.match_substring_regex(text, pattern)
    odd = np.flatnonzero(~pc.fill_null(common, True).to_numpy(zero_copy_only=False))
    if not len(odd):
        return Cast(text.cast(ARROW_TYPES[field.dtype]))
    slow = _one_by_one(field, text.take(pa.array(odd)).to_pylist(), reading)
    fast = pc.if_else(common, text, None).cast(ARROW_TYPES[field.dtype])
    placed = pc.replace_with_mask(fast, pa.array(np.isin(np.arange(len(text)), odd)), slow.array)
    return Cast(placed, {int(odd[i]): why for i, why in slow.unfit.items()})


def _blank_to_null(array: pa.Array) -> pa.Array:
    text = _utf8_text(array)
    if text is None:
        return pa.array([_cell_text(v) for v in array.to_pylist()], type=pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), None, text)


def _cell_text(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _utf8_text(array: pa.Array) -> pa.Array | None:
    """The column as `pa.string()`, or None where a row is no UTF-8."""
    try:
        plain = array.cast(pa.string())
        plain.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return plain


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _refused(field: Field, array: pa.Array, rows: npt.NDArray[np.integer[Any]], problem: str = "") -> dict[int, str]:
    what = problem or f"({array.type}) is no {NAMES[field.dtype]}"
    return {int(i): f"{cell(array, int(i))} {what}" for i in rows}


def _none_fits(field: Field, array: pa.Array) -> Cast:
    present = pc.is_valid(array).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type):
        present &= ~pc.fill_null(pc.is_nan(array), True).to_numpy(zero_copy_only=False)
    return Cast(pa.nulls(len(array), ARROW_TYPES[field.dtype]), _refused(field, array, np.flatnonzero(present)))


def _to_int(field: Field, array: pa.Array, reading: Reading) -> Cast:
    kind = array.type
    if pa.types.is_uint64(kind):
        bad = pc.fill_null(pc.greater(array, pa.scalar(_MAX, pa.uint64())), False).to_numpy(zero_copy_only=False)
        return Cast(
            without(array, bad).cast(pa.int64()), _refused(field, array, np.flatnonzero(bad), "is beyond int64")
        )
    if pa.types.is_integer(kind):
        return Cast(array.cast(pa.int64()))
    if pa.types.is_floating(kind):
        values = pc.fill_null(array.cast(pa.float64()), math.nan).to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        with np.errstate(invalid="ignore"):
            whole = (values == np.floor(values)) & (values >= -(2.0**63)) & (values < 2.0**63)
        bad = ~missing & ~whole
        cast = np.where(whole, values, 0.0).astype(np.int64)
        return Cast(pa.array(cast, mask=missing | bad), _refused(field, array, np.flatnonzero(bad)))
    if pa.types.is_decimal(kind):
        return _one_by_one(field, array.to_pylist(), reading)
    return _none_fits(field, array)


def _to_float(field: Field, array: pa.Array, reading: Reading) -> Cast:
    if pa.types.is_integer(array.type):
        return Cast(array.cast(pa.float64(), safe=False))
    if pa.types.is_floating(array.type):
        return Cast(array.cast(pa.float64()))
    if pa.types.is_decimal(array.type):  # Arrow's own cast is not the nearest float
        return _one_by_one(field, array.to_pylist(), reading)
    return _none_fits(field, array)


def _to_bool(field: Field, array: pa.Array, reading: Reading) -> Cast:
    return Cast(array) if pa.types.is_boolean(array.type) else _none_fits(field, array)


def _to_string(field: Field, array: pa.Array, reading: Reading) -> Cast:
    kind = array.type
    if pa.types.is_dictionary(kind):
        words = _utf8_text(array.dictionary)
        if words is not None and not words.null_count:
            indices = array.indices.cast(pa.int32(), safe=False)
            return Cast(pa.DictionaryArray.from_arrays(indices, words))
        return _to_string(field, array.cast(kind.value_type), reading)
    if not (_is_text(kind) or (reading.text and _is_bytes(kind))):
        return _none_fits(field, array)
    text = _utf8_text(array)
    if text is None:
        raw = array.cast(pa.large_binary()).to_pylist()
        return _one_by_one(field, [_decoded(v) for v in raw], reading)
    if reading.text and field.nullable:
        text = pc.if_else(pc.equal(text, ""), None, text)
    return Cast(text)


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")  # what is no UTF-8 is refused by `_utf8`


def _to_bytes(field: Field, array: pa.Array, reading: Reading) -> Cast:
    if reading.base64 and _is_text(array.type):
        return _one_by_one(field, array.to_pylist(), reading)
    return Cast(array.cast(pa.binary())) if _is_bytes(array.type) else _none_fits(field, array)


_CASTS: dict[str, Callable[[Field, pa.Array, Reading], Cast]] = {
    "int64": _to_int,
    "float64": _to_float,
    "bool": _to_bool,
    "string": _to_string,
    "bytes": _to_bytes,
}
