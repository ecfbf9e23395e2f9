"""The rows of all buckets in order of instant, in slices that fit into memory.

A file of rows has small record batches, and says in its schema's metadata which instant the first, the last and every
so many rows have: from these marks of all files follows where to cut, without reading any.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flows.backfill.buckets import ORDER
from headrace.flows.ordering import in_order
from headrace.stores.layout import EVENT_TIMESTAMP

Ints = npt.NDArray[np.int64]
SLICE = 1_000_000
"""Rows of a slice, about; all rows of one instant are in one."""
EVERY = 512
"""Rows between two marks."""
TOGETHER = 8_192
"""Rows of a record batch."""
_MARKS = b"headrace marks"


def write_run(path: Path, rows: pa.Table) -> None:
    """A file for `merged`.

    Args:
        rows: in order of instant, with the column `ORDER`.
    """
    instants = _instants(rows)
    marks = np.concatenate([instants[:1], instants[EVERY - 1 :: EVERY], instants[-1:]])
    schema = rows.schema.with_metadata({_MARKS: marks.tobytes()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=TOGETHER)


def merged(files: Sequence[Path], slice_rows: int = SLICE) -> Iterator[pa.Table]:
    """Tables in order of instant, and of entity within an instant; the next one is made while one is looked at.

    Args:
        files: as `write_run` made them.
    """
    runs = [_Run(path) for path in files]
    try:
        cuts = _cuts([run.marks for run in runs], slice_rows)
        with ThreadPoolExecutor(1, "headrace-merge") as pool:
            ahead = [pool.submit(_slice, runs, cut) for cut in cuts[:1]]
            for cut in [*cuts[1:], None]:
                rows = ahead.pop().result() if ahead else None
                if cut is not None:
                    ahead.append(pool.submit(_slice, runs, cut))
                if rows is not None:
                    yield rows
    finally:
        for run in runs:
            run.close()


class _Run:
    """One file, read on from where the last slice ended; open only while there is something of it in the slices."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with pa.OSFile(str(path), "rb") as file:
            self.marks: Ints = np.frombuffer(pa.ipc.open_file(file).schema.metadata[_MARKS], dtype=np.int64)
        self._file: pa.NativeFile | None = None
        self._batches: pa.RecordBatchFileReader | None = None
        self._next = 0
        self._left: pa.RecordBatch | None = None

    def upto(self, cut: int) -> Iterator[pa.RecordBatch]:
        """The rows as of instants up to `cut` that were not given yet."""
        if self._file is None:
            if self._next or not len(self.marks) or cut < self.marks[0]:
                return
            self._file = pa.OSFile(str(self._path), "rb")
            self._batches = pa.ipc.open_file(self._file)
        assert self._batches is not None
        while True:
            if self._left is None:
                if self._next == self._batches.num_record_batches:
                    self.close()
                    return
                self._left = self._batches.get_batch(self._next)
                self._next += 1
            end = int(np.searchsorted(_instants(self._left), cut, side="right"))
            if end:
                yield self._left.slice(0, end)
            if end < self._left.num_rows:
                self._left = self._left.slice(end)
                return
            self._left = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._batches = None


def _cuts(marks: Sequence[Ints], slice_rows: int) -> list[int]:
    """The last instant of each slice."""
    every = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *marks]))
    if not len(every):
        return []
    step = max(1, slice_rows // EVERY)
    cuts = np.unique(every[step - 1 :: step])
    return [*cuts[cuts < every[-1]].tolist(), int(every[-1])]


def _slice(runs: Sequence[_Run], cut: int) -> pa.Table | None:
    parts = [batch for run in runs for batch in run.upto(cut)]
    if not parts:
        return None
    rows = pa.Table.from_batches(parts).combine_chunks()
    entity = rows.column(ORDER).to_numpy()
    order = in_order(_instants(rows), lambda at: (entity[at],))
    return rows.drop_columns([ORDER]).take(pa.array(order)).replace_schema_metadata(None)


def _instants(rows: pa.Table | pa.RecordBatch) -> Ints:
    found: Ints = rows.column(EVENT_TIMESTAMP).cast(pa.int64()).to_numpy()
    return found
