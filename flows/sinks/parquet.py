"""Parquet files, exactly once: staged beside, renamed into their places when the checkpoint counts.

    folder/date=2026-05-01/alerts-3f9c21d07a54-000000000012-0.parquet       visible
    folder/_headrace/pickups.alerts.staging/000000000013-0.staged            not yet

Nobody but the step writes its staged files, and a checkpoint names the ones that count: whatever else is staged when a
run begins is left from a crash, and goes.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.features.sinks import ParquetSink
from headrace.features.time import DAY, format_instant
from headrace.flows.deadletter import DeadLetter
from headrace.flows.sinks.protocol import SinkPlace, SinkRows
from headrace.flows.sinks.staging import Staged, restored, saved
from headrace.stores.durable import make_folder, sync_file, sync_folder
from headrace.stores.errors import StoreError

ROWS_OF_FILE = 200_000
"""Rows that wait in memory; then they are written to a file."""


@dataclass(frozen=True)
class _File:
    """A staged file and where it goes, both relative to the folder."""

    staged: str
    place: str


class ParquetWriter:
    """A SinkWriter of a ParquetSink."""

    def __init__(self, sink: ParquetSink, at: SinkPlace) -> None:
        self._sink, self._at = sink, at
        self._folder = Path(sink.folder)
        self._staging = self._folder / "_headrace" / f"{at.slug}.staging"
        self._state = Staged.new()
        self._rows: list[SinkRows] = []
        self._waiting = 0
        self._files: list[_File] = []
        self._promised: list[_File] = []

    def open(self, state: bytes | None) -> None:
        found = restored(state, self._at)
        try:
            if found is not None:
                self._state = found
                promised = [_File(staged, place) for staged, place in found.files]
                self._look_for(promised)
                self._show(promised)
            shutil.rmtree(self._staging, ignore_errors=True)
            make_folder(self._staging)
        except OSError as error:
            raise self._failed("cannot be written", error) from error

    def write(self, rows: SinkRows) -> None:
        if not len(rows):
            return
        self._rows.append(rows)
        self._waiting += len(rows)
        if self._waiting >= ROWS_OF_FILE:
            self._stage()

    def flush(self) -> bytes:
        self._stage()
        try:
            sync_folder(self._staging)
        except OSError as error:
            raise self._failed("cannot be flushed to the disk", error) from error
        self._promised, self._files = self._files, []
        self._state = self._state.next([(each.staged, each.place) for each in self._promised])
        return saved(self._state)

    def committed(self) -> None:
        try:
            self._show(self._promised)
        except OSError as error:
            raise self._failed("took a checkpoint's files, which cannot be moved into their places", error) from error
        self._promised = []

    def dead(self) -> Sequence[DeadLetter]:
        return []

    def close(self) -> None:
        self._rows, self._waiting = [], 0

    def _stage(self) -> None:
        if not self._waiting:
            return
        rows = SinkRows.concat(self._rows)
        self._rows, self._waiting = [], 0
        try:
            for folder, table in self._by_folder(rows):
                number = f"{self._state.number + 1:012d}-{len(self._files)}"
                staged = self._staging / f"{number}.staged"
                pq.write_table(table, staged, compression="zstd")
                sync_file(staged)
                place = f"{folder}{self._at.slug}-{self._state.token}-{number}.parquet"
                self._files.append(_File(str(staged.relative_to(self._folder)), place))
        except OSError as error:
            raise self._failed("cannot be written", error) from error

    def _by_folder(self, rows: SinkRows) -> list[tuple[str, pa.Table]]:
        if self._sink.by is None:
            return [("", rows.table)]
        day = rows.time_us // DAY
        return [
            (f"date={format_instant(int(each) * DAY)[:10]}/", rows.table.filter(pa.array(day == each)))
            for each in np.unique(day)
        ]

    def _look_for(self, promised: Sequence[_File]) -> None:
        """What a checkpoint counts is staged here or in its place, unless the step ran in another folder.

        A staging folder once made stays. So where it is, a file that is in neither was moved, and taken away later by
        whoever reads the files.
        """
        if self._staging.exists():
            return
        lost = [each for each in promised if not (self._folder / each.place).exists()]
        if lost:
            raise StoreError(
                f"Step '{self._at.name}': the last checkpoint counts {len(lost)} file(s) that are staged nowhere in "
                f"the folder {self._sink.folder} of this machine, nor in their places; the first would be "
                f"{lost[0].place}. Did the step run on another machine, or with another folder? Give all workers one "
                f"folder, or bring that machine's {self._staging} here. To go on without those rows, make that folder, "
                "empty."
            )

    def _show(self, files: Sequence[_File]) -> None:
        folders = set()
        for each in files:
            staged, place = self._folder / each.staged, self._folder / each.place
            if staged.exists():  # else it was moved before a crash
                make_folder(place.parent)
                os.replace(staged, place)
                folders.add(place.parent)
        for folder in folders:
            sync_folder(folder)

    def _failed(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            f"Step '{self._at.name}': the folder {self._sink.folder} {what}: {error}. The last checkpoint stands; mend "
            "it, and the next run goes on from there."
        )
