"""What a run writes: online rows at once, log rows and dead letters with the next checkpoint, and the count of all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from headrace.flows.changes import OnChange
from headrace.flows.deadletter import DeadLetter
from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.shard import BEGINNING
from headrace.flows.snapshot import pack, unpack
from headrace.stores.checkpoints import Checkpoint, SnapshotPart, read_checkpoint
from headrace.stores.deadletters import dead_letter_table
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock, ClockKind

ONLINE = "online"
LOG = "log"


@dataclass
class Summary:
    """What a run did. Counts are of this run alone, not of those it went on from.

    read: events read per source, broken ones included. taken: let in. online_rows, log_rows, tail_rows: rows
    written, by
    view. dead: events not taken, by reason. duplicates: events taken before. missing: values that were null or NaN, by
    source and column. entities: in memory at the end, by view.
    seconds: wall time. stopped: the run was interrupted; the next one goes on from there.
    """

    read: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    online_rows: Counter[str] = field(default_factory=Counter)
    log_rows: Counter[str] = field(default_factory=Counter)
    tail_rows: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    entities: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: bool = False


class Reading:
    """A source as far as it has been read, and its flow.

    offset: rows read, broken ones included. files: files begun so far, of a source that reads files.
    """

    def __init__(self, flow: SourceFlow, checkpoint: Checkpoint | None, on_change: OnChange = "refuse") -> None:
        self.flow = flow
        self.name = flow.source.name
        self.offset = 0
        self.files: tuple[str, ...] = ()
        if checkpoint is not None and self._part in checkpoint.snapshots:
            meta, _ = unpack(checkpoint.snapshots[self._part][-1])
            flow.load(checkpoint.snapshots, on_change)
            self.files = tuple(meta["files"])
            self.offset = checkpoint.offsets.get(self.name, {}).get(0, 0)

    def save(self) -> dict[str, SnapshotPart]:
        """What a checkpoint holds of this source beside the offset."""
        return {**self.flow.save(), self._part: SnapshotPart(pack({"files": list(self.files)}, {}))}

    @property
    def _part(self) -> str:
        return f"{self.name}.-files"


class Recorder:
    """The stores of a data folder, written by one run; to be used in a `with` statement.

    Args:
        data: the folder. kind: whether its clock is the wall's or the stream's.
    """

    def __init__(self, data: Path, kind: ClockKind) -> None:
        self.summary = Summary()
        self._kind = kind
        self._log = OfflineLog(data / LOG)
        try:
            self._log.claim()
            self.checkpoint = read_checkpoint(data / LOG)
            self._store = EmbeddedStore(data / ONLINE, durable=kind == "wall")
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, exc: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()
        self._log.close()

    def write(self, reading: Reading, output: Output, broken: Sequence[DeadLetter] = ()) -> None:
        """Write what one step gave; `broken`: letters of rows that could not be decoded."""
        for view in reading.flow.views:
            online, settled = output.online.get(view.name), output.log.get(view.name)
            if online is not None:
                self._store.write(view, online)
                self.summary.online_rows[view.name] += online.num_rows
            if settled is not None:
                self._log.append(view, settled)
                self.summary.log_rows[view.name] += settled.num_rows
        dead = [*broken, *output.dead]
        if dead:
            self._log.dead_letters(dead_letter_table([letter.record() for letter in dead]))
            self.summary.dead.update(letter.reason for letter in dead)
        self.summary.taken += output.taken
        self.summary.duplicates += output.duplicates
        self.summary.missing.update({f"{reading.name}.{column}": n for column, n in output.missing.items()})

    def follow(self, reading: Reading) -> None:
        """Rows online that a run wrote after its last checkpoint, before it was killed, must not stay; see
        `ShardOperator.follow`."""
        written = [self._store.newest_us(view) for view in reading.flow.views]
        reading.flow.follow(max((us for us in written if us is not None), default=BEGINNING))

    def change(self, reading: Reading) -> None:
        """Views that have changed since the checkpoint: the stores take the new definition, online rows are written
        anew."""
        flow = reading.flow
        changed = [view for view in flow.views if view.name in flow.changed]
        rows = flow.rows(flow.clock_us) if changed else {}
        for view in changed:
            if view.log:
                self._log.migrate_view(view)
            self._store.migrate_view(view)
            if view.name in rows:
                self._store.write(view, rows[view.name])

    def set_clock(self, us: int) -> None:
        """Say that every online row is as of `us` or later."""
        self._store.set_clock(us, self._kind)

    def commit(self, readings: Sequence[Reading], *, tails: bool = False) -> None:
        """A checkpoint: everything written so far counts, and a restart goes on from here.

        tails: also write what would follow if no further event came.
        """
        for reading in readings if tails else ():
            rows = reading.flow.tail()
            for view in reading.flow.views:
                if view.name in rows:
                    self._log.tail(view, rows[view.name])
                    self.summary.tail_rows[view.name] += rows[view.name].num_rows
        self._store.sync()
        begun = [reading for reading in readings if reading.flow.newest_us is not None]
        clock = None
        if begun:
            clock = Clock(min(reading.flow.clock_us for reading in begun), self._kind)
            self.set_clock(clock.us)
        self._log.commit(
            settled_us={name: us for reading in begun for name, us in reading.flow.settled_us().items()},
            snapshots={name: part for reading in readings for name, part in reading.save().items()},
            offsets={reading.name: {0: reading.offset} for reading in readings},
            clock=clock,
        )
