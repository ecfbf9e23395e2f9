"""Compile the kernels before they are needed: `python -m headrace.flows.warm`.

Compiling takes about half a minute once; Numba keeps the result beside the source (or in the user's cache folder where
that cannot be written), and every later start takes it from there in a twentieth of a second.
"""

import time
from typing import Any

import numpy as np
from numba import config

from headrace.features.columns import Column
from headrace.features.entities import Entity
from headrace.features.events import Event, EventTime
from headrace.features.sources import IterableSource
from headrace.features.views import define
from headrace.flows import answering, json_kernel, readings, spans, verdicts, walking
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.events import prepare
from headrace.flows.json_columns import JsonColumns
from headrace.flows.keys import KeyTable
from headrace.flows.pipeline import SourceFlow
from headrace.flows.plan import compile_view

KERNELS = (answering.answer, json_kernel.scan, spans.gather, *readings.KERNELS, *verdicts.KERNELS, *walking.KERNELS)


class _Warming(Event):
    key: str
    value: Column[float]
    at: EventTime


def is_warm() -> bool:
    """Whether this process has loaded or compiled the kernels already, or finds them compiled on the disk."""
    if config.DISABLE_JIT:
        return True
    return all(kernel.signatures or (kernel.stats.cache_path and _has_index(kernel)) for kernel in KERNELS)


def _has_index(kernel: Any) -> bool:
    return bool(kernel._cache._cache_file._load_index())


def warm() -> float:
    """Compile or load every kernel; returns the seconds that it took."""
    began = time.perf_counter()
    source = IterableSource([], _Warming)
    view = define(
        "warming",
        source=source,
        entity=Entity("warming", key="key"),
        features={"mean": _Warming.value.mean(last="1m")},
    )
    flow = SourceFlow(source, [view])
    columns = {
        "key": BatchColumn("string", values=np.array(["a"], dtype=object)),
        "value": BatchColumn("float64", values=np.array([1.0])),
        "at": BatchColumn("timestamp", values=np.array([1])),
    }
    flow.push(EventBatch.of(columns, np.array([1])))
    flow.advance(10**9)
    flow.tail()
    flow.save()
    flow.save()
    JsonColumns(source.schema.fields[:2], ("key", "value"), json_kernel.WHOLE).read([b'{"key": "a", "value": 1}'])
    plan = compile_view(view)
    events = prepare(plan, KeyTable(("key",), ("string",)), EventBatch.of(columns, np.array([1])))
    answering.answers(plan, 1, events, np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64), None)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(f"kernels ready after {warm():.1f} s")
