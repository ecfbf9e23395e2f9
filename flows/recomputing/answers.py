"""Rows that answer questions, from buckets in any order to the order in which the questions were put."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, RowLayout, arrow_schema

Ints = npt.NDArray[np.int64]
_ROW = "headrace row"


class Answers:
    """The answers of one view, on the disk by portion of the questions.

    Args:
        folder: for files; its own. layout: of the view's rows.
    """

    def __init__(self, folder: Path, layout: RowLayout) -> None:
        self._folder = folder
        stored = arrow_schema(layout)
        names = [EVENT_TIMESTAMP, NEWEST_EVENT, *layout.feature_names]
        self._schema = pa.schema([(_ROW, pa.int64()), *(pa.field(name, stored.field(name).type) for name in names)])
        self._writers: dict[int, tuple[Any, Any]] = {}
        self._lock = Lock()

    def put(self, rows: pa.Table, found: Ints, portion: Ints, row: Ints) -> None:
        """Answers to n questions; several threads may call it.

        Args:
            rows: of the view. found: (n,) which of them answers each, -1: none does. portion, row: (n,) whose answer.
        """
        taken = rows.select(self._schema.names[1:]).take(pa.array(found, mask=found < 0))
        table = pa.Table.from_arrays([pa.array(row), *taken.columns], schema=self._schema)
        with self._lock:
            for number in np.unique(portion).tolist():
                mine = portion == number
                self._writer(number).write_table(table if mine.all() else table.filter(pa.array(mine)))

    def close(self) -> None:
        """All have been put."""
        for writer, file in self._writers.values():
            writer.close()
            file.close()
        self._writers = {}

    def rows(self, portion: int, columns: Sequence[str], n: int) -> pa.Table:
        """(n,) the answers to a portion, in its order; null in every column where there is none."""
        table = self._table(portion)
        place = np.full(n, -1)
        place[table.column(_ROW).to_numpy()] = np.arange(len(table))
        return table.select(list(columns)).take(pa.array(place, mask=place < 0))

    def instead(self, portion: int, rows: pa.Table) -> pa.Table:
        """(n,) the rows given, and in their place the answers to those of the questions that were answered here."""
        table = self._table(portion)
        place = np.arange(len(rows))
        place[table.column(_ROW).to_numpy()] = len(rows) + np.arange(len(table))
        every = pa.concat_tables([rows.cast(table.select(rows.column_names).schema), table.select(rows.column_names)])
        return every.take(pa.array(place))

    def _table(self, portion: int) -> pa.Table:
        path = self._file(portion)
        if not path.exists():
            return self._schema.empty_table()
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_stream(file).read_all()

    def _writer(self, portion: int) -> Any:
        if portion not in self._writers:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = pa.OSFile(str(self._file(portion)), "wb")
            self._writers[portion] = pa.ipc.new_stream(file, self._schema), file
        return self._writers[portion][0]

    def _file(self, portion: int) -> Path:
        return self._folder / f"{portion:04d}.arrows"
