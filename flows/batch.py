"""A batch of decoded events in columns: what every step between decoding and the shard operator passes on.

A column rests as it arrived, as NumPy values with a validity mask or as an Arrow array, and takes the other form when
somebody asks for it, once. Strings stay in Arrow, so a batch whose strings are only hashed never makes a Python
object.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.errors import DataError

ARROW_TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "string": pa.string(),
    "bytes": pa.binary(),
}
_NUMPY_TYPES: dict[str, Any] = {"int64": np.int64, "float64": np.float64, "bool": np.bool_, "timestamp": np.int64}

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Selection = slice | npt.NDArray[np.integer[Any]] | Bools


class BatchColumn:
    """One field of a batch: n values of a dtype of `EventSchema`, some of them missing.

    Either form may be given, `values` with `valid` (None: nothing is missing) or `arrow`; the other is made on first
    use and kept. Arrow strings may be dictionary-encoded. NaN counts as missing in a float column (contract C6).
    """

    __slots__ = ("_arrow", "_valid", "_values", "dtype")

    def __init__(
        self,
        dtype: str,
        *,
        values: npt.NDArray[Any] | None = None,
        valid: Bools | None = None,
        arrow: pa.Array | None = None,
    ) -> None:
        self.dtype = dtype
        self._arrow = arrow
        self._values = values
        self._valid = valid
        if values is not None and dtype == "float64":
            nan = np.isnan(values)
            if nan.any():
                self._valid = ~nan if valid is None else valid & ~nan
                self._values = np.where(nan, 0.0, values)
        elif arrow is not None and dtype == "float64" and _has_nan(arrow):
            self._arrow = pc.if_else(pc.is_nan(arrow), None, arrow)

    def __len__(self) -> int:
        given = self._arrow if self._values is None else self._values
        return 0 if given is None else len(given)

    def values(self) -> npt.NDArray[Any]:
        """(n,) int64, float64, bool, int64 microseconds for timestamps, object for strings and bytes.

        Missing numbers are 0, missing objects None. Never write into it.
        """
        if self._values is None:
            self._values = _to_numpy(self.dtype, self._arrow)
        return self._values

    def valid(self) -> Bools:
        """(n,) bool: true where a value is present. Never write into it."""
        if self._valid is None:
            if self._complete():
                self._valid = np.ones(len(self), dtype=np.bool_)
            else:
                self._valid = np.array(pc.is_valid(self._arrow))
        return self._valid

    def missing(self) -> int:
        """How many values are missing."""
        if self._valid is None and self._complete():
            return 0
        return len(self) - int(self.valid().sum())

    def arrow(self) -> pa.Array:
        """An Arrow array of the type in `ARROW_TYPES`, or a dictionary of it; null where a value is missing."""
        if self._arrow is None:
            self._arrow = _to_arrow(self.dtype, self.values(), self._valid)
        return self._arrow

    def take(self, chosen: Selection) -> "BatchColumn":
        """The chosen rows, in the order given."""
        if self._values is not None:
            valid = None if self._valid is None and self._complete() else self.valid()[chosen]
            arrow = _take_arrow(self._arrow, chosen) if self._arrow is not None and self._is_object() else None
            return _column(self.dtype, self._values[chosen], valid, arrow)
        return _column(self.dtype, None, None, _take_arrow(self._arrow, chosen))

    def _is_object(self) -> bool:
        return self.dtype not in _NUMPY_TYPES

    @staticmethod
    def concat(columns: Sequence["BatchColumn"]) -> "BatchColumn":
        """The rows of all columns, one after the other. They are of one dtype, and there is at least one."""
        dtype = columns[0].dtype
        if all(c._values is not None for c in columns):
            valid = None if all(c._valid is None and c._complete() for c in columns) else [c.valid() for c in columns]
            joined = None if valid is None else np.concatenate(valid)
            return _column(dtype, np.concatenate([c.values() for c in columns]), joined, None)
        return _column(dtype, None, None, _concat_arrow([c.arrow() for c in columns]))

    def _complete(self) -> bool:
        return self._arrow is None or self._arrow.null_count == 0


def _column(dtype: str, values: npt.NDArray[Any] | None, valid: Bools | None, arrow: pa.Array | None) -> BatchColumn:
    """A column from parts that are known to be clean, without looking for NaN again."""
    made = BatchColumn.__new__(BatchColumn)
    made.dtype, made._values, made._valid, made._arrow = dtype, values, valid, arrow
    return made


def _has_nan(array: pa.Array) -> bool:
    if array.null_count:
        return bool(pc.any(pc.is_nan(array)).as_py())
    return bool(np.isnan(array.to_numpy(zero_copy_only=False)).any())


def _to_numpy(dtype: str, array: pa.Array) -> npt.NDArray[Any]:
    if dtype not in _NUMPY_TYPES:
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        words = np.empty(len(coded.dictionary) + 1, dtype=object)  # one object per distinct value; the last is None
        words[:-1] = coded.dictionary.to_numpy(zero_copy_only=False)
        return words[pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy(zero_copy_only=False)]
    if dtype == "timestamp":
        array = array.view(pa.int64()) if array.type == ARROW_TYPES["timestamp"] else array.cast(pa.int64())
    if array.null_count:
        array = pc.fill_null(array, False if dtype == "bool" else 0)
    values = array.to_numpy(zero_copy_only=False)
    # A writable array, so that a compiled kernel sees one array type whatever the source was.
    return values if values.flags.writeable else values.copy()


def _to_arrow(dtype: str, values: npt.NDArray[Any], valid: Bools | None) -> pa.Array:
    mask = None if valid is None or valid.all() else ~valid
    if dtype == "timestamp":
        return pa.array(values, type=pa.int64(), mask=mask).view(ARROW_TYPES["timestamp"])
    return pa.array(values, type=ARROW_TYPES[dtype], mask=mask)


def _take_arrow(array: pa.Array, chosen: Selection) -> pa.Array:
    if isinstance(chosen, slice):
        start, stop, step = chosen.indices(len(array))
        if step == 1:
            return array.slice(start, max(0, stop - start))
        return array.take(pa.array(np.arange(start, stop, step)))
    if chosen.dtype == np.bool_:
        return array.filter(pa.array(chosen))
    return array.take(pa.array(chosen))


def _concat_arrow(arrays: Sequence[pa.Array]) -> pa.Array:
    if any(pa.types.is_dictionary(a.type) for a in arrays):
        plain = [a.dictionary_decode() if pa.types.is_dictionary(a.type) else a for a in arrays]
        return pa.concat_arrays(plain).dictionary_encode()
    return pa.concat_arrays(arrays)


@dataclass(frozen=True, eq=False)
class EventBatch:
    """n events in source order, by column.

    columns: one per schema field, the event-time field included.
    time: (n,) int64, event time in microseconds UTC.
    partition: (n,) int32 and offset: (n,) int64, where the event stands in its source; together they are unique.
    effective: (n,) int64, the instant from which the event counts: its time, or for an event let in late
        (`late="count"`) the watermark of its partition when it came.
    """

    columns: Mapping[str, BatchColumn]
    time: Ints
    partition: npt.NDArray[np.int32]
    offset: Ints
    effective: Ints

    @classmethod
    def of(
        cls,
        columns: Mapping[str, BatchColumn],
        time: npt.ArrayLike,
        partition: npt.ArrayLike = 0,
        offset: npt.ArrayLike | None = None,
        effective: npt.ArrayLike | None = None,
    ) -> "EventBatch":
        """A batch from its parts: a scalar `partition` is everybody's, offsets default to 0..n-1."""
        at = np.ascontiguousarray(time, dtype=np.int64)
        n = len(at)
        where = np.asarray(partition, dtype=np.int32)
        if where.shape != (n,) or not where.flags.c_contiguous:
            where = np.ascontiguousarray(np.broadcast_to(where, (n,)))
        order = np.arange(n, dtype=np.int64) if offset is None else np.ascontiguousarray(offset, dtype=np.int64)
        counts = at if effective is None else np.ascontiguousarray(effective, dtype=np.int64)
        for name, column in columns.items():
            if len(column) != n:
                raise DataError(f"Column '{name}' of a batch has {len(column)} rows and its time column has {n}.")
        if len(order) != n or len(counts) != n:
            raise DataError(f"A batch of {n} events has {len(order)} offsets and {len(counts)} effective instants.")
        return cls(columns, at, where, order, counts)

    @classmethod
    def empty(cls, dtypes: Mapping[str, str]) -> "EventBatch":
        """No events, of the fields and dtypes given."""
        none = {n: BatchColumn(d, arrow=pa.array([], type=ARROW_TYPES[d])) for n, d in dtypes.items()}
        return cls.of(none, np.empty(0, dtype=np.int64))

    @classmethod
    def concat(cls, batches: Sequence["EventBatch"]) -> "EventBatch":
        """All events of one or more batches with the same fields, in the order given."""
        if not batches:
            raise DataError("No batches to join: give at least one, or build an empty one with EventBatch.empty.")
        if len(batches) == 1:
            return batches[0]
        time = np.concatenate([b.time for b in batches])
        shared = all(b.effective is b.time for b in batches)
        return cls(
            {n: BatchColumn.concat([b.columns[n] for b in batches]) for n in batches[0].columns},
            time,
            np.concatenate([b.partition for b in batches]),
            np.concatenate([b.offset for b in batches]),
            time if shared else np.concatenate([b.effective for b in batches]),
        )

    def __len__(self) -> int:
        return len(self.time)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def values(self, name: str) -> npt.NDArray[Any]:
        """(n,) NumPy values of field `name`; see `BatchColumn.values`."""
        return self._column(name).values()

    def valid(self, name: str) -> Bools:
        """(n,) bool: true where field `name` is present."""
        return self._column(name).valid()

    def missing(self, name: str) -> int:
        """How many values of field `name` are missing."""
        return self._column(name).missing()

    def arrow(self, name: str) -> pa.Array:
        """Arrow array of field `name`, null where missing, strings perhaps dictionary-encoded."""
        return self._column(name).arrow()

    def _column(self, name: str) -> BatchColumn:
        try:
            return self.columns[name]
        except KeyError:
            known = ", ".join(self.columns)
            raise DataError(f"This batch has no column '{name}'. It has: {known}.") from None

    @property
    def position(self) -> Ints:
        """(n,) int64: `partition << 48 | offset`, which orders events that share an instant (contract C4)."""
        return (self.partition.astype(np.int64) << 48) | self.offset

    def take(self, chosen: Selection) -> "EventBatch":
        """The events chosen by indices (in that order), a boolean mask, or a slice (no copy)."""
        if isinstance(chosen, slice) and chosen.indices(len(self.time)) == (0, len(self.time), 1):
            return self
        time = self.time[chosen]
        return EventBatch(
            {n: c.take(chosen) for n, c in self.columns.items()},
            time,
            self.partition[chosen],
            self.offset[chosen],
            time if self.effective is self.time else self.effective[chosen],
        )

    def counting_from(self, effective: Ints) -> "EventBatch":
        """The same events with another effective instant each."""
        return EventBatch(self.columns, self.time, self.partition, self.offset, effective)
