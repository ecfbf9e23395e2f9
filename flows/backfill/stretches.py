"""Reading a source of many files by many machines: only the judging, which depends on the order, is done in one place.

    files -> decoded, a stretch of them at a time    executors    decoded/0003.arrows, .dead.arrow, .json
                     |
          judged in order, nothing kept of it        the driver   judged/0003.bin: the judge before the stretch
                     |
          judged again, into buckets                 executors    events-KEYS/0007/0003.arrows, shared/0003.json

Whether an event is late, a duplicate or far ahead depends on all before it, but on nothing of them beyond what a judge
keeps. So one goes through all events first, and then each stretch is judged by one that begins where that one was. The
driver's reads no more columns than it looks at.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.errors import DataError
from headrace.features.events import EventSchema
from headrace.features.sources import FileSource
from headrace.flows.backfill.computing import Phase, Progress, Step
from headrace.flows.backfill.crew import Brief, Crew, Job
from headrace.flows.backfill.reading import Reached
from headrace.flows.backfill.site import Counts, Judge, Outlets, Site, lettered
from headrace.flows.backfill.stage import as_arrow, as_events, whole
from headrace.flows.batch import EventBatch
from headrace.flows.files import paths_of
from headrace.flows.read import batches_of_files
from headrace.stores.deadletters import dead_letter_schema

MOST = 512
"""Stretches of a source, at most."""


@dataclass(frozen=True)
class Stretch:
    """Some of a source's files, one after the other. paths: as every machine finds them."""

    number: int
    paths: tuple[str, ...]


class _Decoded(msgspec.Struct, frozen=True):
    rows: int


class _Judged(msgspec.Struct, frozen=True):
    """Before a stretch. base: rows before it."""

    base: int
    now_us: int
    judge: dict[str, bytes]


@dataclass(frozen=True)
class Decode:
    """The job of decoding a stretch."""

    stretch: Stretch
    batch_size: int

    def __call__(self, site: Site) -> None:
        source = site.read
        assert isinstance(source, FileSource)
        place = _Place(site, self.stretch.number)
        if place.decoded.exists():
            return
        place.make()
        rows = 0
        paths = [Path(each) for each in self.stretch.paths]
        with (
            whole(place.events) as events,
            whole(place.letters) as letters,
            pa.OSFile(str(letters), "wb") as file,
            pa.ipc.new_file(file, dead_letter_schema()) as refuse,
            _Events(events, source.schema) as write,
        ):
            for piece in batches_of_files(source, paths, self.batch_size, first=self.stretch.number == 0):
                write(piece.batch)
                broken = lettered(piece.dead)
                if broken is not None:
                    refuse.write_table(broken)
                rows = piece.progress.offset
        with whole(place.decoded) as path:
            path.write_bytes(msgspec.json.encode(_Decoded(rows)))


@dataclass(frozen=True)
class Share:
    """The job of judging a stretch, and putting its events into the buckets of their parts."""

    number: int

    def __call__(self, site: Site) -> None:
        place = _Place(site, self.number)
        if place.shared.exists():
            return
        judged = msgspec.msgpack.decode(place.judged.read_bytes(), type=_Judged)
        judge = site.judge(judged.now_us)
        judge.load(judged.judge)
        with Outlets(site, self.number) as outlets:
            for batch in place.batches(judged.base):
                for part, events, letters in judge.take(batch):
                    outlets.put(part, events, lettered(letters))
                if judge.end is not None:
                    break
            broken = place.broken(judged.base, judge.end)
            judge.counts.dead.update(broken.column("reason").to_pylist())
            outlets.put(site.first, None, broken)
        with whole(place.shared) as path:
            path.write_bytes(judge.counts.packed())


class _Place:
    """Where what is known of a stretch lies."""

    def __init__(self, site: Site, number: int) -> None:
        folder, name = site.stage.folder, f"{number:04d}"
        assert isinstance(site.read, FileSource)
        self._schema = site.read.schema
        self.events = folder / "decoded" / f"{name}.arrows"
        self.letters = folder / "decoded" / f"{name}.dead.arrow"
        self.decoded = folder / "decoded" / f"{name}.json"
        self.judged = folder / "judged" / f"{name}.bin"
        self.shared = folder / "shared" / f"{name}.json"

    def make(self) -> None:
        for path in (self.decoded, self.judged, self.shared):
            path.parent.mkdir(parents=True, exist_ok=True)

    def batches(self, base: int) -> Iterator[EventBatch]:
        """The stretch's events at their rows in the source. Little is read of columns that nobody looks at."""
        dtypes = {field.name: field.dtype for field in self._schema.fields}
        with pa.memory_map(str(self.events)) as file:
            for batch in pa.ipc.open_stream(file):
                events = as_events(pa.Table.from_batches([batch]), dtypes)
                yield EventBatch(events.columns, events.time, events.partition, events.offset + base, events.effective)

    def broken(self, base: int, end: int | None) -> pa.Table:
        """Dead letters of what could not be decoded, of rows before `end`."""
        with pa.memory_map(str(self.letters)) as file:
            table = pa.ipc.open_file(file).read_all()
        offset = pc.add(table.column("offset"), base)
        table = table.set_column(table.schema.get_field_index("offset"), table.schema.field("offset"), offset)
        return table if end is None else table.filter(pc.less(offset, end))


class _Events:
    """A file of decoded events."""

    def __init__(self, path: Path, schema: EventSchema) -> None:
        self._dtypes = {field.name: field.dtype for field in schema.fields}
        self._path = path
        self._writer: pa.RecordBatchStreamWriter | None = None

    def __enter__(self) -> "_Events":
        self._file = pa.OSFile(str(self._path), "wb")
        return self

    def __call__(self, batch: EventBatch) -> None:
        rows = as_arrow(batch, self._dtypes)
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._file, rows.schema)
        self._writer.write_batch(rows)

    def __exit__(self, *_: object) -> None:
        if self._writer is None:
            pa.ipc.new_stream(self._file, pa.schema([])).close()
        else:
            self._writer.close()
        self._file.close()


def stretches_of(source: FileSource) -> tuple[list[Stretch], tuple[str, ...]]:
    """The files of a source in stretches of about the same size, at most `MOST`; and the names of all."""
    paths = paths_of(source)
    sizes = np.array([path.stat().st_size + 1 for _, path in paths], dtype=np.float64)
    number = np.minimum(np.floor((np.cumsum(sizes) - sizes / 2) / sizes.sum() * min(MOST, len(paths))), MOST - 1)
    made = [
        tuple(str(path.absolute()) for (_, path), of in zip(paths, number.tolist(), strict=True) if of == each)
        for each in np.unique(number).tolist()
    ]
    return [Stretch(at, its) for at, its in enumerate(made)], tuple(name for name, _ in paths)


def read_by_stretches(
    site: Site, brief: Brief, crew: Crew, batch_size: int, progress: Progress
) -> tuple[Judge, Reached]:
    """Every event of the source, as `read_in_order` does it. One that was killed goes on with what is left.

    Raises:
        DataError: the source is not of files, or cannot be read.
    """
    source = site.read
    if not isinstance(source, FileSource):
        raise DataError(
            f"Source '{site.name}': other machines read files, and its events are in a {type(source).__name__} of this "
            "process. Write them to files, or backfill without --engine spark."
        )
    stretches, names = stretches_of(source)
    places = [_Place(site, each.number) for each in stretches]

    def side_by_side(phase: Phase, jobs: Sequence[Job]) -> None:
        crew.do(brief, jobs, lambda done: progress(Step(phase, site.name, done, len(jobs))))

    side_by_side("read", [Decode(each, batch_size) for each in stretches if not places[each.number].decoded.exists()])
    judge, rows, its = _judge(site, stretches, progress)
    side_by_side("share", [Share(number) for number in its if not places[number].shared.exists()])
    judge.counts = Counts()
    for number in its:
        judge.counts.add(Counts.unpacked(places[number].shared.read_bytes()))
    return judge, Reached(rows if judge.end is None else judge.end, names)


def _judge(site: Site, stretches: Sequence[Stretch], progress: Progress) -> tuple[Judge, int, list[int]]:
    """Judge all events in their order, leaving what a judge of each stretch begins with.

    Returns:
        the judge at the end, the rows of the source, and which stretches are read.
    """
    now_us = _now(site)
    judge = site.judge(now_us)
    base, read = 0, []
    for stretch in stretches:
        place = _Place(site, stretch.number)
        rows = msgspec.json.decode(place.decoded.read_bytes(), type=_Decoded).rows
        if not place.shared.exists():
            with whole(place.judged) as path:
                path.write_bytes(msgspec.msgpack.encode(_Judged(base, now_us, judge.save())))
        read.append(stretch.number)
        for batch in place.batches(base):
            for _ in judge.take(batch):
                pass
            if judge.end is not None:
                return judge, base, read
        base += rows
        progress(Step("judge", site.name, stretch.number + 1, len(stretches)))
    return judge, base, read


def _now(site: Site) -> int:
    """The wall clock by which all is judged: as it was when this began, however often it was taken up."""
    path = site.stage.folder / "now"
    if not path.exists():
        with whole(path) as beside:
            beside.write_text(str(time.time_ns() // 1000))
    return int(path.read_text())
