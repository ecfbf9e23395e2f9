"""When each event of a source arrived, and from which instant a live flow counted it.

A live flow judges events in the order in which they arrive, and its clock is the wall's: an event that is further
ahead than `max_ahead` (one hour, where the source sets none) of the instant of its arrival is refused, and one that
arrives later than `lateness` after newer ones is late. A file may have its rows in any order. Where its arrivals never
go back, events are judged as they are read; otherwise once more afterwards, in order of arrival (ties: of the file).
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from headrace.features.sources import Source
from headrace.flows.admission import WALL_AHEAD_US, Admission
from headrace.flows.batch import ARROW_TYPES, BatchColumn, EventBatch
from headrace.flows.lanes import FOREVER, NEVER
from headrace.flows.recomputing.judging import Judges
from headrace.stores.sql import connect
from headrace.stores.sql import name as quoted

Ints = npt.NDArray[np.int64]
PLACE = ("headrace offset", "headrace time", "headrace arrival")
SORTED = 100_000
"""Events that are judged at a time in order of arrival."""


def arrival_of(batch: EventBatch, column: str) -> Ints:
    """(n,) microseconds; an event that does not say when it arrived did so when it happened."""
    arrived: Ints = np.where(batch.valid(column), batch.values(column), batch.time)
    return arrived


class Arrivals:
    """The verdicts of a live flow on the events of a source, kept on the disk by offset.

    Args:
        folder: for files; its own. source: judges. column: the event's instant of arrival.
        partition: its column of the partition that it came by; None: all came by one.
    """

    def __init__(self, folder: Path, source: Source, column: str, partition: str | None) -> None:
        self._folder = folder
        self._source = source
        self.column = column
        self._partition = partition
        self._judges = self._new_judges()
        self._newest = NEVER
        self._sorted = True
        self._rows = 0
        folder.mkdir()
        self._judged_by = dict(self._told())
        types = {name: ARROW_TYPES[dtype] for name, dtype in self._judged_by.items()}
        self._schema = pa.schema([*((name, pa.int64()) for name in PLACE), *types.items()])
        self._arrived = pa.OSFile(str(folder / "arrived.arrow"), "wb")
        self._writer: Any = pa.ipc.new_file(self._arrived, self._schema)
        self._counts = (folder / "counts").open("wb")

    def add(self, batch: EventBatch, upto: int) -> None:
        """The next events of the source.

        Args:
            upto: the offset after the last row read, broken ones included.
        """
        arrival = arrival_of(batch, self.column)
        columns = [pa.array(batch.offset), pa.array(batch.time), pa.array(arrival)]
        for name in self._judged_by:
            values = batch.arrow(name)
            columns.append(values.dictionary_decode() if pa.types.is_dictionary(values.type) else values)
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        counts = np.full(upto - self._rows, FOREVER)
        if len(batch):
            rising = bool((np.diff(arrival) >= 0).all()) and int(arrival[0]) >= self._newest
            self._sorted = self._sorted and rising
            self._newest = max(self._newest, int(arrival.max()))
        if self._sorted:
            offsets, effective = self._judged(batch, arrival)
            counts[offsets - self._rows] = effective
        counts.tofile(self._counts)
        self._rows = upto

    def finish(self) -> None:
        """The source has been read to its end."""
        self._writer.close()
        self._arrived.close()
        self._counts.close()
        if self._sorted:
            return
        self._judges = self._new_judges()
        counts = np.memmap(self._folder / "counts", dtype=np.int64, mode="r+")
        counts[:] = FOREVER
        for batch, arrival in self._by_arrival():
            offsets, effective = self._judged(batch, arrival)
            counts[offsets] = effective
        counts.flush()

    def counted_from(self, offsets: Ints) -> Ints:
        """(n,) the instant from which a live flow counted each event, `FOREVER` for one that it did not let in."""
        if not len(offsets):
            return np.empty(0, dtype=np.int64)
        found: Ints = np.asarray(np.memmap(self._folder / "counts", dtype=np.int64, mode="r")[offsets])
        return found

    def _new_judges(self) -> Judges:
        # Without a clock they judge by lateness and ids alone.
        return Judges(lambda: Admission(self._source, live=True), self._partition)

    def _told(self) -> Iterator[tuple[str, str]]:
        """The columns that judges look at, and their types."""
        if self._source.dedup is not None:
            yield self._source.dedup, self._source.schema.field(self._source.dedup).dtype
        if self._partition is not None and self._partition != self._source.dedup:
            yield self._partition, "int64"

    def _judged(self, batch: EventBatch, arrival: Ints) -> tuple[Ints, Ints]:
        """Offsets and effective instants of the events let in."""
        ahead = WALL_AHEAD_US if self._source.max_ahead_us is None else self._source.max_ahead_us
        taken, _ = self._judges.take(batch.take(batch.time - arrival <= ahead), None)
        return taken.offset, taken.effective

    def _by_arrival(self) -> Iterator[tuple[EventBatch, Ints]]:
        with closing(connect()) as connection:
            connection.register("arrived", ds.dataset(self._folder / "arrived.arrow", format="ipc"))
            order = ", ".join(map(quoted, ("headrace arrival", "headrace offset")))
            for rows in connection.sql(f"SELECT * FROM arrived ORDER BY {order}").to_arrow_reader(SORTED):
                offset, time, arrival = (rows.column(name).to_numpy().astype(np.int64) for name in PLACE)
                columns = {
                    name: BatchColumn(dtype, arrow=rows.column(name).cast(ARROW_TYPES[dtype]))
                    for name, dtype in self._judged_by.items()
                }
                yield EventBatch.of(columns, time, 0, offset), arrival
