"""Few files in place of many: at a commit, the newest small files of a date are merged into one.

Files come in tiers of rows; once a date ends in eight files of a tier or below, they become one. So a row is written a
handful of times at most, a date never holds many more than eight files of a tier, and files beyond two million rows are
left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from headrace.stores.durable import sync_file
from headrace.stores.layout import RowLayout, arrow_schema
from headrace.stores.manifest import LogFile
from headrace.stores.staging import ROW_GROUP, log_file, parquet_writer, staged_path

FILES = 8
TIERS = (1 << 15, 1 << 18, 1 << 21)
"""Rows below which a file belongs to a tier."""


def plan_merge(files: Sequence[LogFile]) -> int:
    """How many of the newest files of a date to merge; 0 for none. `files` are ordered by time.

    >>> plan_merge([LogFile("", 10, 0, 0)] * 8), plan_merge([LogFile("", 10, 0, 0)] * 7)
    (8, 0)
    """
    chosen = 0
    for limit in TIERS:
        small, rows = 0, 0
        for file in reversed(files):
            if file.rows >= limit:
                break
            small, rows = small + 1, rows + file.rows
        if small - max(chosen - 1, 0) >= FILES:
            chosen = small
    return chosen


def merge_small(root: Path, layout: RowLayout, files: Sequence[LogFile], fresh: Sequence[LogFile]) -> list[LogFile]:
    """All files of a view after a commit that adds `fresh`, ordered by time; merged ones wait under `staged_path`."""
    touched = {file.date for file in fresh}
    out: list[LogFile] = []
    for date, group in groupby(sorted([*files, *fresh], key=_by_time), key=lambda file: file.date):
        kept = list(group)
        count = plan_merge(kept) if date in touched else 0
        if count:
            kept[-count:] = [_merged(root, layout, kept[-count:])]
        out += kept
    return out


def resolve(root: Path, path: str) -> Path:
    """Where a file that counts is: in its place, or still waiting for the rename that follows the commit."""
    final = root / path
    return final if final.exists() else staged_path(root, path)


def _by_time(file: LogFile) -> tuple[int, int, str]:
    return (file.first_us, file.last_us, file.path)


def _merged(root: Path, layout: RowLayout, files: Sequence[LogFile]) -> LogFile:
    import pyarrow.parquet as pq

    schema = arrow_schema(layout)
    place = staged_path(root, f"view={layout.view}/merged")
    with parquet_writer(place, schema) as writer:
        for file in files:
            with pq.ParquetFile(resolve(root, file.path)) as source:
                for batch in source.iter_batches(batch_size=ROW_GROUP):
                    writer.write_batch(batch.cast(schema), row_group_size=ROW_GROUP)
    sync_file(place)
    first, last = files[0].first_us, files[-1].last_us
    named = log_file(layout.view, first // 86_400_000_000, first, last, sum(file.rows for file in files))
    place.rename(staged_path(root, named.path))
    return named
