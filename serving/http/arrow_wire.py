"""Answers as an Arrow IPC stream: one record batch, a row for each entity, a schema that depends on the features only.

    driver_id  rides_1h  fare_mean   __statuses                __event_timestamps
    string     int64     float64     fixed_size_list<int8>[2]  fixed_size_list<timestamp[us, UTC]>[2]

`__statuses` has a code for each feature, in their order; `__event_timestamps` an instant (or null) for each, too. The
schema's metadata has, under "headrace", JSON: `statuses`, the words by code, and `failures` of a partial answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.features.dtypes import BOOL, FLOAT, INT, TIMESTAMP
from headrace.features.features import MISSING
from headrace.features.reading import STATUSES
from headrace.serving.http.feast_wire import Wire
from headrace.serving.http.problems import why_failed
from headrace.serving.table import FeatureTable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_CODES = {status: code for code, status in enumerate(STATUSES)}
_CODE = {FLOAT: "d", INT: "q"}
_PLAIN = (INT, FLOAT, BOOL, TIMESTAMP)

STATUS_COLUMN, TIME_COLUMN = "__statuses", "__event_timestamps"


def arrow_stream(wire: Wire, table: FeatureTable) -> bytes:
    """The answer; statuses are Headrace's own, all six of them.

    NaN and infinity are what they are. Import of pyarrow happens here.
    """
    import numpy as np
    import pyarrow as pa

    from headrace.stores.layout import arrow_type

    n, width, names, arrays = len(table.rows), len(wire.names), [], []
    for name, values in table.entities.items():
        names.append(name)
        arrays.append(pa.array(list(values), arrow_type(wire.key_types[name])))
    codes = np.zeros((n, width), np.int8)
    for at, (column, found) in enumerate(zip(table.columns, table.values, strict=True)):
        values_of = _array(found, column.dtype)
        names.append(wire.names[at])
        arrays.append(values_of)
        if values_of.null_count or column.default is not MISSING or table.origins[column.origin].why is not None:
            codes[:, at] = [_CODES[status] for status in table.statuses[at]]
    times, unknown = _times(table)
    names += [STATUS_COLUMN, TIME_COLUMN]
    instants = pa.array(times.ravel(), pa.timestamp("us", tz="UTC"), mask=unknown.ravel())
    arrays += [
        pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), width),
        pa.FixedSizeListArray.from_arrays(instants, width),
    ]
    told: dict[str, Any] = {"statuses": list(STATUSES)}
    if table.failures:
        told["failures"] = {view: why_failed(error) for view, error in table.failures.items()}
    schema = pa.schema(
        [pa.field(name, each.type) for name, each in zip(names, arrays, strict=True)],
        metadata={"headrace": msgspec.json.encode(told)},
    )
    batch = pa.record_batch(arrays, schema=schema)
    assert batch.num_rows == n
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    out: bytes = sink.getvalue().to_pybytes()
    return out


def _array(found: Sequence[Any], dtype: str) -> pa.Array:
    """(n,) values as Arrow. Numbers with no null among them are copied as they are: `pa.array` takes 5 µs a call."""
    import pyarrow as pa

    from headrace.stores.layout import arrow_type
    from headrace.stores.rows import table_value

    code = _CODE.get(dtype)
    if code is not None:
        try:
            numbers = pa.py_buffer(array(code, found))
        except TypeError:  # a null
            pass
        else:
            return pa.Array.from_buffers(arrow_type(dtype), len(found), [None, numbers])
    plain = found if dtype in _PLAIN else [table_value(each, dtype) for each in found]
    return pa.array(plain, arrow_type(dtype))


def _times(table: FeatureTable) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(n, f) what each value is as of, microseconds; and where that is not known."""
    import numpy as np

    of_origins = np.array(
        [[0 if us is None else us for us in each.event_times_us] for each in table.origins], np.int64
    ).reshape(len(table.origins), len(table.rows))
    unknown = np.array([[us is None for us in each.event_times_us] for each in table.origins], np.bool_)
    unknown = unknown.reshape(of_origins.shape)
    places = [column.origin for column in table.columns]
    return of_origins[places].T, unknown[places].T
