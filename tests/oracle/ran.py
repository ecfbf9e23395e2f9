"""The embedded runner at work on a described view: its source as a file, a frame or an iterable."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from headrace.features import FileSource, FrameSource, IterableSource
from headrace.features.sources import Source
from tests.oracle.definitions import Happening, judging
from tests.oracle.described import COLUMNS, Sent, Stream
from tests.oracle.replayed import instant

ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
SCHEMA = pa.schema([*((n, ARROW[d]) for n, d in COLUMNS.items()), ("at", pa.timestamp("us", tz="UTC"))])


def table_of(events: Sequence[Sent]) -> pa.Table:
    rows = [dict(event.columns) | {"at": instant(event.time)} for event in events]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _rows(events: Sequence[Sent], folder: Path, judged: dict[str, Any]) -> Source:
    return IterableSource([dict(e.columns) | {"at": instant(e.time)} for e in events], Happening, **judged)


def _arrow(events: Sequence[Sent], folder: Path, judged: dict[str, Any]) -> Source:
    return FrameSource(table_of(events), Happening, **judged)


def _pandas(events: Sequence[Sent], folder: Path, judged: dict[str, Any]) -> Source:
    frame = table_of(events).to_pandas(integer_object_nulls=True)
    return FrameSource(frame, Happening, **judged)


def _polars(events: Sequence[Sent], folder: Path, judged: dict[str, Any]) -> Source:
    import polars as pl

    return FrameSource(pl.from_arrow(table_of(events)), Happening, **judged)


def _parquet(events: Sequence[Sent], folder: Path, judged: dict[str, Any]) -> Source:
    pyarrow.parquet.write_table(table_of(events), folder / "events.parquet", row_group_size=3)
    return FileSource(folder / "events.parquet", Happening, **judged)


def _csv(events: Sequence[Sent], folder: Path, judged: dict[str, Any]) -> Source:
    table = table_of(events)
    text = pa.array([instant(e.time).isoformat() for e in events], type=pa.string())
    pyarrow.csv.write_csv(table.set_column(table.column_names.index("at"), "at", text), folder / "events.csv")
    return FileSource(folder / "events.csv", Happening, **judged)


def _jsonl(events: Sequence[Sent], folder: Path, judged: dict[str, Any]) -> Source:
    lines = [json.dumps(dict(e.columns) | {"at": instant(e.time).isoformat()}) + "\n" for e in events]
    (folder / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    return FileSource(folder / "events.jsonl", Happening, **judged)


FORMS: dict[str, Callable[[Sequence[Sent], Path, dict[str, Any]], Source]] = {
    "rows": _rows,
    "arrow": _arrow,
    "pandas": _pandas,
    "polars": _polars,
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _jsonl,
}


def writable(events: Sequence[Sent], form: str) -> list[Sent]:
    """The events as the form can hold them: CSV has no empty text beside null, JSON no number that is not finite.

    All are of partition 0, in the order in which they came.
    """
    out = []
    for offset, event in enumerate(events):
        columns = dict(event.columns)
        if form == "csv" and columns["city"] == "":
            columns["city"] = None
        amount = columns["amount"]
        if form == "jsonl" and amount is not None and not math.isfinite(amount):
            columns["amount"] = None
        out.append(replace(event, columns=columns, partition=0, offset=offset))
    return out


def source_of(form: str, events: Sequence[Sent], folder: Path, stream: Stream) -> Source:
    """A source of the events in the form named, its file (if any) in `folder`."""
    return FORMS[form](events, folder, judging(stream))
