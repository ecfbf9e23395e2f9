"""Answers as an Arrow IPC stream: one record batch, a row for each entity, a schema that depends on the features only.

    driver_id  rides_1h  fare_mean   __statuses                __event_timestamps
    string     int64     float64     fixed_size_list<int8>[2]  fixed_size_list<timestamp[us, UTC]>[2]

`__statuses` has a code for each feature, in their order; `__event_timestamps` an instant (or null) for each, too. The
schema's metadata has, under "headrace", JSON: `statuses`, the words by code, and `failures` of a partial answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.features.dtypes import BOOL, FLOAT, INT, TIMESTAMP
from headrace.features.reading import STATUSES
from headrace.serving.http.feast_wire import Wire
from headrace.serving.http.problems import why_failed
from headrace.serving.table import FeatureTable

_CODES = {status: code for code, status in enumerate(STATUSES)}
_PLAIN = (INT, FLOAT, BOOL, TIMESTAMP)

STATUS_COLUMN, TIME_COLUMN = "__statuses", "__event_timestamps"


def arrow_stream(wire: Wire, table: FeatureTable) -> bytes:
    """The answer; statuses are Headrace's own, all six of them.

    NaN and infinity are what they are. Import of pyarrow happens here.
    """
    import pyarrow as pa

    from headrace.stores.layout import arrow_type
    from headrace.stores.rows import table_value

    n, names, arrays = len(table.rows), [], []
    for name, values in table.entities.items():
        names.append(name)
        arrays.append(pa.array(list(values), arrow_type(wire.key_types[name])))
    for name, column, found in zip(wire.names, table.columns, table.values, strict=True):
        dtype = column.dtype
        plain = found if dtype in _PLAIN else [table_value(each, dtype) for each in found]
        names.append(name)
        arrays.append(pa.array(plain, arrow_type(dtype)))
    codes: list[int] = [_CODES[status] for row in zip(*table.statuses, strict=True) for status in row]
    instants = pa.timestamp("us", tz="UTC")
    times: list[Any] = [us for row in zip(*_times(table), strict=True) for us in row]
    width = len(wire.names)
    names += [STATUS_COLUMN, TIME_COLUMN]
    arrays += [
        pa.FixedSizeListArray.from_arrays(pa.array(codes, pa.int8()), width),
        pa.FixedSizeListArray.from_arrays(pa.array(times, pa.int64()).cast(instants), width),
    ]
    told: dict[str, Any] = {"statuses": list(STATUSES)}
    if table.failures:
        told["failures"] = {view: why_failed(error) for view, error in table.failures.items()}
    schema = pa.schema(
        [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)],
        metadata={"headrace": msgspec.json.encode(told)},
    )
    batch = pa.record_batch(arrays, schema=schema)
    assert batch.num_rows == n
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    out: bytes = sink.getvalue().to_pybytes()
    return out


def _times(table: FeatureTable) -> list[Any]:
    return [table.origins[column.origin].event_times_us for column in table.columns]
