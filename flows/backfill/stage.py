"""What a backfill keeps on the disk while it works, so that memory stays bounded and a killed one goes on.

    plan.json                  what is done: views, source, range; another plan begins anew
    events-KEYS/0007.arrows    the events of a bucket, as they were let in
    read.json, admission       the source has been read to its end: how far, and the judge's state
    dead.arrow                 events that were not let in
    rows-VIEW/0007-0.arrow     the bucket's log rows, in order; those of a large one in several files, one after another
    state-VIEW/0007.bin        its state; there only when the bucket is done

Every file gets its name when it is complete, and nothing waits for the disk: what was written is there after a kill
-9, and after a crash of the machine, which another boot tells, all begins anew. Flushing these files, and deleting what
had been flushed, took a quarter of a backfill's time.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.features.events import EventSchema
from headrace.flows.backfill.merging import write_run
from headrace.flows.backfill.portions import Portion, spans, within
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.worker.exchange import numbered
from headrace.stores.deadletters import dead_letter_schema
from headrace.stores.durable import make_folder, sync_file, write_durably
from headrace.stores.keys import KEY_NUMBERS

_PARTITION, _OFFSET, _TIME, _EFFECTIVE = (f"headrace {name}" for name in ("partition", "offset", "time", "effective"))


_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Of Linux: another text after each start of the machine."""


class Read(msgspec.Struct, frozen=True):
    """How far the source was read, and what was counted on the way.

    offset, files: as a checkpoint has them. newest, watermark: microseconds; None without any event.
    """

    offset: int
    files: tuple[str, ...]
    newest: int | None
    watermark: int | None
    taken: int
    duplicates: int
    missing: dict[str, int]
    dead: dict[str, int]


def _nothing(path: Path) -> None:
    """What is written outlives the process without being flushed."""


class Stage:
    """The working folder of one source's backfill.

    Args:
        folder: its own; made if it is not there, emptied if it is of another plan.
        plan: MessagePack types that say what is being done.
        buckets: how many.
        sample: the share of the entities that is computed, those of the least `key_number`.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], buckets: int, sample: float = 1.0) -> None:
        self.folder = folder
        self.buckets = buckets
        self._sample = sample
        boot = _read(_BOOT)
        self._sync: Callable[[Path], None] = _nothing if boot else sync_file
        told = msgspec.json.encode({**plan, "boot": (boot or b"").decode()}, order="sorted")
        if not folder.exists() or _read(folder / "plan.json") != told:
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
            write_durably(folder / "plan.json", told)

    def begin_reading(self) -> None:
        """Forget what an earlier run had read, which did not come to the end."""
        for path in self.folder.iterdir():
            if path.name != "plan.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @property
    def read(self) -> Read | None:
        """What came of the reading; None before its end."""
        data = _read(self.folder / "read.json")
        return None if data is None else msgspec.json.decode(data, type=Read)

    @contextmanager
    def refusing(self) -> Iterator[Callable[[pa.Table], None]]:
        """Takes dead letters, in the form of headrace.stores.deadletters, to the disk as they come."""
        path = self.folder / "dead.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, dead_letter_schema()) as writer:
            yield writer.write_table
        self._sync(path)

    def finish_reading(self, read: Read, admission: bytes) -> None:
        """The source has been read, and all spills and the dead letters are closed."""
        write_durably(self.folder / "admission", admission)
        write_durably(self.folder / "read.json", msgspec.json.encode(read))

    def admission(self) -> bytes:
        """The judge's state at the end of the reading."""
        return (self.folder / "admission").read_bytes()

    def dead(self) -> pa.Table:
        """The dead letters, in the form of headrace.stores.deadletters."""
        return pa.ipc.open_file(pa.memory_map(str(self.folder / "dead.arrow"))).read_all()

    def spill(self, schema: EventSchema, keys: Sequence[str], columns: Sequence[str]) -> "Spill":
        """The events of the views whose entity has these keys."""
        return Spill(
            self.folder / f"events-{'-'.join(keys)}", schema, keys, columns, self.buckets, self._sample, self._sync
        )

    def done(self, view: str, bucket: int) -> bool:
        """Whether the bucket has been computed."""
        return self._state(view, bucket).exists()

    def writing(self, view: str, bucket: int) -> Callable[[pa.Table], None]:
        """Takes the log rows of a bucket, in order, table by table; what an earlier run had written is gone."""
        (self.folder / f"rows-{view}").mkdir(exist_ok=True)
        for path in self._rows(view, bucket):
            path.unlink()
        numbers = count()

        def write(rows: pa.Table) -> None:
            path = self.folder / f"rows-{view}" / f"{bucket:04d}-{next(numbers)}.arrow"
            write_run(path, rows)
            self._sync(path)

        return write

    def keep(self, view: str, bucket: int, state: bytes) -> None:
        """A bucket has been computed, and its rows are written."""
        (self.folder / f"state-{view}").mkdir(exist_ok=True)
        path = self._state(view, bucket)
        beside = path.with_suffix(".new")
        beside.write_bytes(state)
        self._sync(beside)
        beside.replace(path)

    def rows(self, view: str) -> list[Path]:
        """The files of a view's rows, by bucket."""
        done = [bucket for bucket in range(self.buckets) if self.done(view, bucket)]
        return [path for bucket in done for path in self._rows(view, bucket)]

    def states(self, view: str) -> list[bytes]:
        """The states of a view, by bucket."""
        return [self._state(view, bucket).read_bytes() for bucket in range(self.buckets) if self.done(view, bucket)]

    def remove(self) -> None:
        """All is written where it belongs."""
        shutil.rmtree(self.folder)

    def _rows(self, view: str, bucket: int) -> list[Path]:
        return sorted((self.folder / f"rows-{view}").glob(f"{bucket:04d}-*.arrow"))

    def _state(self, view: str, bucket: int) -> Path:
        return self.folder / f"state-{view}" / f"{bucket:04d}.bin"


class Spill:
    """Events split by entity into buckets, each a file of record batches.

    Args:
        keys: the entity's. columns: those that the views look at, keys among them. sync: called with each file that
            is complete.
    """

    def __init__(
        self,
        folder: Path,
        schema: EventSchema,
        keys: Sequence[str],
        columns: Sequence[str],
        buckets: int,
        sample: float,
        sync: Callable[[Path], None] = _nothing,
    ) -> None:
        self._sync = sync
        self._folder = folder
        self._buckets = buckets
        self._limit = sample * KEY_NUMBERS
        self._dtypes = {name: schema.field(name).dtype for name in columns}
        self._keys = keys
        self._writers: dict[int, Any] = {}

    def add(self, batch: EventBatch) -> None:
        """Put events where they belong; one without a key concerns nobody."""
        numbers, present = numbered(batch, self._keys)
        bucket = np.where(present & (numbers < self._limit), numbers % np.uint64(self._buckets), -1).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(self._buckets + 1))
        table = _as_arrow(batch.take(order), self._dtypes)
        for number, (begin, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
            if end > begin:
                self._writer(number, table.schema).write_batch(table.slice(begin, end - begin))

    def close(self) -> None:
        """Everything is in the files, durably."""
        for number, (writer, file) in self._writers.items():
            writer.close()
            file.close()
            self._sync(self._file(number))
        self._writers = {}

    def has(self, number: int) -> bool:
        """Whether a bucket has any events."""
        return self._file(number).exists()

    def bucket(self, number: int) -> EventBatch | None:
        """The events of a bucket; None where there are none."""
        path = self._file(number)
        if not path.exists():
            return None
        with pa.memory_map(str(path)) as file:
            return _as_events(pa.ipc.open_stream(file).read_all(), self._dtypes)

    def portions(self, number: int, settled_us: int, every_us: int | None) -> Iterator[Portion]:
        """The events of a bucket in portions of time, see `spans`; none where there are none."""
        path = self._file(number)
        if not path.exists():
            return
        with pa.memory_map(str(path)) as file:
            batches = list(pa.ipc.open_stream(file))  # nothing is read yet
            effective = [batch.column(_EFFECTIVE).to_numpy() for batch in batches]
            for span in spans(effective, settled_us, every_us):
                inside = [within(each, span) for each in effective]
                some = [
                    batch.filter(pa.array(these)) for batch, these in zip(batches, inside, strict=True) if these.any()
                ]
                events = _as_events(pa.Table.from_batches(some), self._dtypes) if some else None
                yield Portion(events, settled_us if span[1] is None else span[1])

    def _writer(self, number: int, schema: pa.Schema) -> Any:
        if number not in self._writers:
            self._folder.mkdir(exist_ok=True)
            file = pa.OSFile(str(self._file(number)), "wb")
            self._writers[number] = pa.ipc.new_stream(file, schema), file
        return self._writers[number][0]

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:04d}.arrows"


def _as_arrow(batch: EventBatch, dtypes: Mapping[str, str]) -> pa.RecordBatch:
    arrays = {}
    for name in dtypes:
        array = batch.arrow(name)
        arrays[name] = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    numbers = {_PARTITION: batch.partition, _OFFSET: batch.offset, _TIME: batch.time, _EFFECTIVE: batch.effective}
    return pa.RecordBatch.from_pydict({**arrays, **{name: pa.array(values) for name, values in numbers.items()}})


def _as_events(table: pa.Table, dtypes: Mapping[str, str]) -> EventBatch:
    def column(name: str) -> pa.Array:
        return table.column(name).combine_chunks()

    numbers = [column(name).to_numpy() for name in (_TIME, _PARTITION, _OFFSET, _EFFECTIVE)]
    columns = {name: BatchColumn(dtype, arrow=column(name)) for name, dtype in dtypes.items()}
    return EventBatch.of(columns, *numbers)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
