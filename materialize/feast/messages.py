"""Columns as Feast's own messages of values, for the types that are not encoded here: sets, maps, JSON, texts of
numbers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from headrace.materialize.feast.reading import MaterializeError
from headrace.stores.feast_columns import encodes

_INTEGERS = {ValueType.INT32: pa.int32(), ValueType.INT64: pa.int64()}


def encoded_here(kind: ValueType, stored: pa.DataType) -> bool:
    """Whether values of a column are encoded from it as it is, by the columns of `as_encoded`."""
    return encodes(stored, kind.value) or (kind in _INTEGERS and pa.types.is_floating(stored))


def as_encoded(column: str, kind: ValueType, values: pa.Array) -> pa.Array:
    """The column that is encoded: as pandas stores integers with nulls, as floats, they are integers again.

    Fractions are cut off, as in Feast.

    Raises:
        MaterializeError: a number is no integer of the type.
    """
    if kind not in _INTEGERS or not pa.types.is_floating(values.type):
        return values
    numbers = values.cast(pa.float64())
    known = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    try:
        return pc.trunc(known).cast(_INTEGERS[kind])
    except pa.ArrowInvalid as error:
        raise MaterializeError(
            f"column '{column}' holds {values.type} and cannot be written as {kind.name}: {error}. Change the field's "
            "type in the view's schema, or the column."
        ) from error


def feast_messages(column: str, kind: ValueType, values: pa.Array) -> list[Any]:
    """A message `Value` for each value, as Feast's local engine makes it.

    Args:
        values: of which `through_pandas` says so have been there.

    Raises:
        MaterializeError: Feast makes none of it.
    """
    given = values.to_numpy(zero_copy_only=False) if through_pandas(kind, values.type) else _objects(values)
    try:
        return list(python_values_to_proto_values(given, kind))
    except Exception as error:  # whatever Feast's conversions raise: assertions, KeyError, errors of protobuf
        raise MaterializeError(
            f"column '{column}' holds {values.type} and cannot be written as {kind.name}: {error}. Change the field's "
            "type in the view's schema, or the column."
        ) from error


def through_pandas(kind: ValueType, stored: pa.DataType) -> bool:
    """Whether Feast's engine can make these values by its way through pandas, which changes them.

    It fails for Arrow's maps, for lists of maps and for zoned instants; they are made from Python's objects here.
    """
    return not (pa.types.is_map(stored) or kind in (ValueType.MAP_LIST, ValueType.ZONED_TIMESTAMP))


def _objects(values: pa.Array) -> list[Any]:
    return list(values.to_pylist(maps_as_pydicts="strict"))
