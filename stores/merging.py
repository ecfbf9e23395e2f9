"""Few files in place of many, within a part: what a commit merges, and why a log of many small commits stays readable.

Files come in tiers of rows; once a date ends in eight files of a tier or below, they become one. So a row is written
four times at most, a date never holds many more than eight files of a tier, and files from 131,072 rows on (some 6 MB)
are left alone. When the rows have gone on to a later date, the small files of the date before become few.

A merged file takes the place of its parts for readers of the manifest at once. Plain readers of the folder go on seeing
the parts until nobody can still be reading by an older manifest; then the names change hands (tidying.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from headrace.stores.manifest import LogFile, by_time
from headrace.stores.parquet import ParquetFile, read_batches
from headrace.stores.places import Place
from headrace.stores.staging import log_file

if TYPE_CHECKING:
    import pyarrow as pa

FILES = 8
TIERS = (1 << 10, 1 << 14, 1 << 17)
"""Rows below which a file belongs to a tier."""

LARGE = 1 << 19
"""Rows that a merged file of a date that has passed does not exceed."""


@dataclass(frozen=True)
class Merging:
    """What merging needs to know.

    Attributes:
        part: whose files they are.
        name: gives a new name in the part's own folder.
        due_us: from when on a merged file gets its name for every reader.
        dropped: collects files that the next commit names no more and that no other reader sees.
    """

    place: Place
    part: str
    name: Callable[[], str]
    due_us: int
    dropped: list[str]

    def merge(self, files: Sequence[LogFile], schema: pa.Schema, conform: Callable[[pa.RecordBatch], pa.Table]) -> str:
        """The rows of `files` in one new file; where it is."""
        file = ParquetFile(self.place, self.name(), schema)
        try:
            for each in files:
                for batch in read_batches(self.place, each.place):
                    file.write(conform(batch))
        except BaseException:
            file.drop()
            raise
        file.finish()
        return file.path

    def replaced(self, files: Sequence[LogFile]) -> tuple[str, ...]:
        """What every reader sees of `files`, which a merged one now holds; the rest may go."""
        self.dropped.extend(file.at for file in files if file.at)
        return tuple(path for file in files for path in (file.replaces if file.at else (file.path,)))


def plan_merge(files: Sequence[LogFile]) -> int:
    """How many of the newest of these files to merge; 0 for none. `files` are in order.

    >>> plan_merge([LogFile("", 10)] * 8), plan_merge([LogFile("", 10)] * 7)
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


def merge_rows(merging: Merging, view: str, schemas: Sequence[pa.Schema], files: Sequence[LogFile]) -> list[LogFile]:
    """The files of a view after merging, ordered by time.

    Args:
        schemas: of the rows, by version of the view. files: committed ones; those that wait for their first name for
            every reader are left as they are.
    """
    ordered = sorted(files, key=by_time)
    last = ordered[-1].date if ordered else ""
    out: list[LogFile] = []
    for (date, version), group in groupby(ordered, key=lambda file: (file.date, file.version)):
        kept = list(group)
        fresh = [file for file in kept if file.at and not file.replaces]
        settled = [file for file in kept if not file.at or file.replaces]
        if date == last:
            count = plan_merge(settled)
            groups = [settled[-count:]] if count else []
        else:
            groups = _passed(settled)
        for chosen in groups:
            at = merging.merge(chosen, schemas[version], lambda batch, s=schemas[version]: _cast(batch, s))  # type: ignore[misc]
            merged = log_file(
                merging.part, view, chosen[0].first_us, chosen[-1].last_us, sum(f.rows for f in chosen), version, at
            )
            settled = [file for file in settled if file not in chosen]
            settled.append(_with(merged, merging.replaced(chosen), merging.due_us))
        out += [*settled, *fresh]
    return sorted(out, key=by_time)


def merge_letters(
    merging: Merging,
    schema: pa.Schema,
    conform: Callable[[pa.RecordBatch], pa.Table],
    files: Sequence[LogFile],
    path: str,
) -> list[LogFile]:
    """The files of dead letters after merging, in order; a merged one is called `path`."""
    settled = [file for file in files if not file.at or file.replaces]
    count = plan_merge(settled)
    if not count:
        return list(files)
    chosen = settled[-count:]
    at = merging.merge(chosen, schema, conform)
    merged = LogFile(path, sum(file.rows for file in chosen), at=at)
    fresh = [file for file in files if file.at and not file.replaces]
    return [*settled[:-count], _with(merged, merging.replaced(chosen), merging.due_us), *fresh]


def unchanging(files: Sequence[LogFile]) -> tuple[LogFile, ...]:
    """Those of a view's files that no later commit will merge or move: of dates that have passed, and merged."""
    ordered = sorted(files, key=by_time)
    found: list[LogFile] = []
    for date, group in groupby(ordered, key=lambda file: file.date):
        of_date = list(group)
        versions = {file.version: [each for each in of_date if each.version == file.version] for file in of_date}
        if (
            date < ordered[-1].date
            and not any(file.at for file in of_date)
            and not any(map(_passed, versions.values()))
        ):
            found += of_date
    return tuple(found)


def _passed(files: Sequence[LogFile]) -> list[list[LogFile]]:
    """Neighbours to merge in a date that gets no more rows."""
    groups: list[list[LogFile]] = [[]]
    rows = 0
    for file in files:
        if rows + file.rows > LARGE or file.rows >= TIERS[-1]:
            groups.append([])
            rows = 0
        groups[-1].append(file)
        rows += file.rows
    return [group for group in groups if len(group) > 1]


def _with(file: LogFile, replaces: tuple[str, ...], due_us: int) -> LogFile:
    import msgspec

    return msgspec.structs.replace(file, replaces=replaces, due_us=due_us)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_batches([batch]).cast(schema)
