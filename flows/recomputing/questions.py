"""Questions to views of the past, an entity and an instant each, on the disk: by bucket, as the events will be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.worker.exchange import numbered
from headrace.stores.keys import KeyColumns, key_numbers

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """n questions.

    entities: their keys, in columns. at: (n,) microseconds. portion, row: (n,) which one it is, see `Questions.add`.
    """

    entities: EventBatch
    at: Ints
    portion: Ints
    row: Ints

    def __len__(self) -> int:
        return len(self.at)


class Questions:
    """The questions to all views of one entity.

    Args:
        folder: for files; its own.
        keys: name and type of the entity's key columns. buckets: among which entities are divided.

    Attributes:
        latest: the latest instant asked, microseconds; None without any question about an entity.
    """

    def __init__(self, folder: Path, keys: KeyColumns, buckets: int) -> None:
        self._folder = folder
        self._keys = keys
        self._buckets = buckets
        self._numbers = np.empty(0, dtype=np.uint64)
        self._ends: list[Ints] = []
        self.latest: int | None = None

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._keys)

    def add(self, keys: Sequence[pa.ChunkedArray], times: Ints) -> None:
        """The next portion of questions; one with a null key is about nobody.

        Args:
            keys: (n,) each, in the entity's order and types. times: (n,) microseconds.
        """
        columns = [pa.concat_arrays(column.chunks) if column.num_chunks else _none(column) for column in keys]
        numbers = key_numbers(columns)
        present = np.ones(len(times), dtype=np.bool_)
        for column in columns:
            if column.null_count:
                present &= np.asarray(column.is_valid())
        bucket = np.where(present, numbers % np.uint64(self._buckets), -1).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        self._ends.append(np.searchsorted(bucket[order], np.arange(self._buckets + 1)))
        table = {"row": pa.array(order), "at": pa.array(times[order])}
        table |= {f"k{i}": column.take(pa.array(order)) for i, column in enumerate(columns)}
        self._folder.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(self._file(len(self._ends) - 1)), "wb") as file:
            made = pa.table(table)
            with pa.ipc.new_file(file, made.schema) as writer:
                writer.write_table(made)
        self._numbers = np.union1d(self._numbers, numbers[present])
        if present.any():
            newest = int(times[present].max())
            self.latest = newest if self.latest is None else max(self.latest, newest)

    def concern(self, batch: EventBatch) -> npt.NDArray[np.bool_]:
        """(n,) false for events of entities that are not asked about, but for a few whose number is another's."""
        numbers, present = numbered(batch, self.key_names)
        if not len(self._numbers):
            return np.zeros(len(batch), dtype=np.bool_)
        near = np.minimum(np.searchsorted(self._numbers, numbers), len(self._numbers) - 1)
        found: npt.NDArray[np.bool_] = present & (self._numbers[near] == numbers)
        return found

    def bucket(self, number: int) -> Asked | None:
        """The questions about entities of a bucket; None where there are none."""
        parts: list[tuple[int, pa.Table]] = []
        for portion, ends in enumerate(self._ends):
            begin, end = int(ends[number]), int(ends[number + 1])
            if end > begin:
                with pa.memory_map(str(self._file(portion))) as file:
                    # A copy, so that no mapping of the file outlives this.
                    rows = pa.ipc.open_file(file).read_all().slice(begin, end - begin)
                    parts.append((portion, rows.take(pa.array(np.arange(end - begin)))))
        if not parts:
            return None
        table = pa.concat_tables([part for _, part in parts])
        portions = np.repeat([portion for portion, _ in parts], [part.num_rows for _, part in parts])
        at = _ints(table.column("at"))
        columns = {
            name: BatchColumn(dtype, arrow=pa.concat_arrays(table.column(f"k{i}").chunks))
            for i, (name, dtype) in enumerate(self._keys)
        }
        return Asked(EventBatch.of(columns, at), at, portions.astype(np.int64), _ints(table.column("row")))

    def _file(self, portion: int) -> Path:
        return self._folder / f"{portion:04d}.arrow"


def _ints(column: pa.ChunkedArray) -> Ints:
    found: Ints = column.to_numpy().astype(np.int64)
    return found


def _none(column: pa.ChunkedArray) -> Any:
    return pa.array([], type=column.type)
