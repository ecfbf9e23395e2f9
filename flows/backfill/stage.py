"""What a backfill keeps on the disk while it works, so that memory stays bounded and a killed one goes on.

    plan.json                       what is done: views, source, range; another plan begins anew
    events-KEYS/0007/0000.arrows    the events of a bucket, as they were let in; a file for each stretch of the source
    dead/0000.arrow                 events that were not let in, likewise
    read.json, admission            the source has been read to its end: how far, and the judge's state
    rows-VIEW/0007-TOKEN-0.arrow    the bucket's log rows, in order; those of a large one in several files
    rows-VIEW/0007.json             which of them count, one after another
    state-VIEW/0007.bin             its state; there only when the bucket is done

Every file gets its name when it is complete. Where all is done by one machine, nothing waits for the disk: what was
written is there after a kill -9, and after a crash of the machine, which another boot tells, all begins anew. Flushing
these files, and deleting what had been flushed, took a quarter of a backfill's time. Where several machines share the
folder (`shared`), files are flushed, and whoever does again what another has done leaves the same.
"""

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
        plan: MessagePack types that say what is being done; None: it is what another process has said.
        buckets: how many.
        sample: the share of the entities that is computed, those of the least `key_number`.
        shared: several machines work in it.
    """

    def __init__(
        self, folder: Path, plan: Mapping[str, Any] | None, buckets: int, sample: float = 1.0, *, shared: bool = False
    ) -> None:
        self.folder = folder
        self.buckets = buckets
        self.shared = shared
        self._sample = sample
        boot = None if shared else _read(_BOOT)
        self._sync: Callable[[Path], None] = _nothing if boot else sync_file
        if plan is None:
            return
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
    def refusing(self, stretch: int = 0) -> Iterator[Callable[[pa.Table], None]]:
        """Takes dead letters, in the form of headrace.stores.deadletters, to the disk as they come."""
        (self.folder / "dead").mkdir(parents=True, exist_ok=True)
        with (
            whole(self.folder / "dead" / f"{stretch:04d}.arrow", self._sync) as path,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, dead_letter_schema()) as writer,
        ):
            yield writer.write_table

    def finish_reading(self, read: Read, admission: bytes) -> None:
        """The source has been read, and all spills and the dead letters are closed."""
        write_durably(self.folder / "admission", admission)
        write_durably(self.folder / "read.json", msgspec.json.encode(read))

    def admission(self) -> bytes:
        """The judge's state at the end of the reading."""
        return (self.folder / "admission").read_bytes()

    def dead(self) -> pa.Table:
        """The dead letters, in the form of headrace.stores.deadletters."""
        files = sorted((self.folder / "dead").glob("*.arrow"))
        tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in files]
        return pa.concat_tables(tables) if tables else dead_letter_schema().empty_table()

    def spill(self, schema: EventSchema, keys: Sequence[str], columns: Sequence[str], stretch: int = 0) -> "Spill":
        """The events of the views whose entity has these keys; what is added is of one stretch of the source."""
        folder = self.folder / f"events-{'-'.join(keys)}"
        return Spill(folder, schema, keys, columns, self.buckets, self._sample, self._sync, stretch)

    def done(self, view: str, bucket: int) -> bool:
        """Whether the bucket has been computed."""
        return self._state(view, bucket).exists()

    def writing(self, view: str, bucket: int) -> "Rows":
        """Takes the log rows of a bucket, in order, table by table."""
        folder = self.folder / f"rows-{view}"
        folder.mkdir(exist_ok=True)
        return Rows(folder, bucket, self._sync)

    def keep(self, view: str, bucket: int, state: bytes, rows: "Rows") -> None:
        """A bucket has been computed, and its rows are written."""
        (self.folder / f"state-{view}").mkdir(exist_ok=True)
        rows.finish()
        with whole(self._state(view, bucket), self._sync) as path:
            path.write_bytes(state)

    def rows(self, view: str) -> list[Path]:
        """The files of a view's rows, by bucket."""
        folder = self.folder / f"rows-{view}"
        done = [bucket for bucket in range(self.buckets) if self.done(view, bucket)]
        return [folder / name for bucket in done for name in Rows.names(folder, bucket)]

    def states(self, view: str) -> list[bytes]:
        """The states of a view, by bucket."""
        return [self._state(view, bucket).read_bytes() for bucket in range(self.buckets) if self.done(view, bucket)]

    def remove(self) -> None:
        """All is written where it belongs."""
        shutil.rmtree(self.folder)

    def _state(self, view: str, bucket: int) -> Path:
        return self.folder / f"state-{view}" / f"{bucket:04d}.bin"


class Rows:
    """The log rows of one bucket on their way to the disk; called with one table after another."""

    def __init__(self, folder: Path, bucket: int, sync: Callable[[Path], None]) -> None:
        self._folder, self._bucket, self._sync = folder, bucket, sync
        self._names: list[str] = []
        self._token = secrets.token_hex(4)

    def __call__(self, rows: pa.Table) -> None:
        name = f"{self._bucket:04d}-{self._token}-{len(self._names)}.arrow"
        write_run(self._folder / name, rows)
        self._sync(self._folder / name)
        self._names.append(name)

    def finish(self) -> None:
        """These files count, and no others of the bucket."""
        with whole(self._folder / f"{self._bucket:04d}.json", self._sync) as path:
            path.write_bytes(msgspec.json.encode(self._names))

    @staticmethod
    def names(folder: Path, bucket: int) -> list[str]:
        """Of the files of a bucket that count."""
        return msgspec.json.decode((folder / f"{bucket:04d}.json").read_bytes(), type=list[str])


@contextmanager
def whole(path: Path, sync: Callable[[Path], None] = sync_file) -> Iterator[Path]:
    """A file to be written beside `path`, which becomes it at the end; whoever else writes it is not disturbed."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    yield beside
    sync(beside)
    beside.replace(path)


class Spill:
    """Events split by entity into buckets, each a file of record batches.

    Args:
        keys: the entity's. columns: those that the views look at, keys among them. sync: called with each file that
            is complete. stretch: of the source, from which the events are that are added.
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
        stretch: int = 0,
    ) -> None:
        self._sync = sync
        self._stretch = stretch
        self._folder = folder
        self._buckets = buckets
        self._limit = sample * KEY_NUMBERS
        self._dtypes = {name: schema.field(name).dtype for name in columns}
        self._keys = keys
        self._writers: dict[int, tuple[Any, Any, Path]] = {}

    def add(self, batch: EventBatch) -> None:
        """Put events where they belong; one without a key concerns nobody."""
        numbers, present = numbered(batch, self._keys)
        bucket = np.where(present & (numbers < self._limit), numbers % np.uint64(self._buckets), -1).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(self._buckets + 1))
        table = as_arrow(batch.take(order), self._dtypes)
        for number, (begin, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
            if end > begin:
                self._writer(number, table.schema).write_batch(table.slice(begin, end - begin))

    def close(self) -> None:
        """Everything is in the files, durably."""
        for number, (writer, file, path) in self._writers.items():
            writer.close()
            file.close()
            self._sync(path)
            path.replace(self._place(number))
        self._writers = {}

    def has(self, number: int) -> bool:
        """Whether a bucket has any events."""
        return bool(self._files(number))

    def bucket(self, number: int) -> EventBatch | None:
        """The events of a bucket; None where there are none."""
        paths = self._files(number)
        if not paths:
            return None
        with ExitStack() as stack:
            files = [stack.enter_context(pa.memory_map(str(path))) for path in paths]
            tables = [pa.ipc.open_stream(file).read_all() for file in files]
            return as_events(pa.concat_tables(tables), self._dtypes)

    def portions(self, number: int, settled_us: int, every_us: int | None) -> Iterator[Portion]:
        """The events of a bucket in portions of time, see `spans`; none where there are none."""
        paths = self._files(number)
        if not paths:
            return
        with ExitStack() as stack:
            files = [stack.enter_context(pa.memory_map(str(path))) for path in paths]
            batches = [batch for file in files for batch in pa.ipc.open_stream(file)]  # nothing is read yet
            effective = [batch.column(_EFFECTIVE).to_numpy() for batch in batches]
            for span in spans(effective, settled_us, every_us):
                inside = [within(each, span) for each in effective]
                some = [
                    batch.filter(pa.array(these)) for batch, these in zip(batches, inside, strict=True) if these.any()
                ]
                events = as_events(pa.Table.from_batches(some), self._dtypes) if some else None
                yield Portion(events, settled_us if span[1] is None else span[1])

    def _writer(self, number: int, schema: pa.Schema) -> Any:
        if number not in self._writers:
            place = self._place(number)
            place.parent.mkdir(parents=True, exist_ok=True)
            path = place.with_name(f"{place.name}.{secrets.token_hex(4)}.new")
            file = pa.OSFile(str(path), "wb")
            self._writers[number] = pa.ipc.new_stream(file, schema), file, path
        return self._writers[number][0]

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:04d}" / f"{self._stretch:04d}.arrows"

    def _files(self, number: int) -> list[Path]:
        return sorted((self._folder / f"{number:04d}").glob("*.arrows"))


def as_arrow(batch: EventBatch, dtypes: Mapping[str, str]) -> pa.RecordBatch:
    """Events with these columns and their places, as they are staged."""
    arrays = {}
    for name in dtypes:
        array = batch.arrow(name)
        arrays[name] = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    numbers = {_PARTITION: batch.partition, _OFFSET: batch.offset, _TIME: batch.time, _EFFECTIVE: batch.effective}
    return pa.RecordBatch.from_pydict({**arrays, **{name: pa.array(values) for name, values in numbers.items()}})


def as_events(table: pa.Table, dtypes: Mapping[str, str]) -> EventBatch:
    """What `as_arrow` was given, of the columns of `dtypes`."""

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
