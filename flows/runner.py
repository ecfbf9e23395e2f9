"""The embedded runner: views replayed from files, frames and Python iterables, on one machine and with no services.

    source -> batches -> SourceFlow -> online store      at once
                             |------> offline log       as the watermark passes
                             '------> dead letters      both become visible with the next checkpoint

Several sources are read side by side in event-time order. A checkpoint makes snapshots, offsets and log files count at
one instant, so a run that was killed goes on from the last one and ends as if nothing had happened (contract C13).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.features.sources import Source
from headrace.features.views import ViewDefinition, definition
from headrace.flows.deadletter import DeadLetter
from headrace.flows.interrupts import Interrupts
from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.read import BATCH_SIZE, Part, batches
from headrace.flows.warm import warm
from headrace.stores.checkpoints import Checkpoint, read_checkpoint
from headrace.stores.deadletters import dead_letter_table
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock

ONLINE = "online"
LOG = "log"
CHECKPOINT_EVERY_S = 10.0


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


@dataclass(frozen=True)
class Step:
    """How far a run is, after each batch of a source: for a progress bar.

    done of total, in `unit` (rows or bytes); total is None where nobody knows. newest_us: newest event so far.
    """

    source: str
    done: int
    total: int | None
    unit: str
    newest_us: int | None
    summary: Summary


class _Feed:
    """One source being read, and its flow."""

    def __init__(
        self, source: Source, views: Sequence[ViewDefinition], checkpoint: Checkpoint | None, size: int
    ) -> None:
        self.flow = SourceFlow(source, views)
        self.name = source.name
        self.offset = 0
        if checkpoint is not None and self.name in checkpoint.snapshots:
            self.flow.restore(checkpoint.snapshots[self.name])
            self.offset = checkpoint.offsets.get(self.name, {}).get(0, 0)
        self._parts: Iterator[Part] = batches(source, size, self.offset)
        self.next: Part | None = None
        self.ended = False

    def fetch(self) -> None:
        """Have the next batch at hand, unless the source has ended."""
        if self.next is None and not self.ended:
            self.next = next(self._parts, None)
            self.ended = self.next is None

    @property
    def reached(self) -> int:
        """Event time up to which this source has been read."""
        return self.flow.newest_us if self.flow.newest_us is not None else -(2**63)


def run(
    views: Iterable[Any],
    data: str | PathLike[str],
    *,
    batch_size: int = BATCH_SIZE,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    progress: Callable[[Step], None] | None = None,
) -> Summary:
    """Replay the sources of `views` to their end, into the folder `data`.

    Goes on from the last checkpoint in `data` if there is one. The clock is the stream's own: its newest event.
    Ctrl-C and SIGTERM end the run after the batch at hand, with a checkpoint.

    Args:
        views: feature views or definitions, over any number of sources.
        data: folder of the embedded online store, the offline log and the checkpoints; made if it is not there.
        batch_size: events per batch.
        checkpoint_every_s: seconds between checkpoints.
        progress: called after each batch.

    Raises:
        DefinitionError: no views, two of one name, or two sources of one name.
        SnapshotError: `data` holds a checkpoint of other definitions.
        DataError: a source cannot be read at all. Single bad rows become dead letters instead.
    """
    began = time.perf_counter()
    by_source = _by_source([definition(view) for view in views])
    folder = Path(data)
    summary = Summary()
    with OfflineLog(folder / LOG) as log:
        checkpoint = read_checkpoint(folder / LOG)
        feeds = [_Feed(source, its, checkpoint, batch_size) for source, its in by_source]
        store = EmbeddedStore(folder / ONLINE, durable=False)
        try:
            _replay(feeds, store, log, summary, checkpoint_every_s, progress)
            _finish(feeds, store, log, summary)
        finally:
            store.close()
    summary.entities = {name: n for feed in feeds for name, n in feed.flow.entities.items()}
    summary.seconds = time.perf_counter() - began
    return summary


def _by_source(views: Sequence[ViewDefinition]) -> list[tuple[Source, list[ViewDefinition]]]:
    if not views:
        raise DefinitionError("No views to run. Define one: class DriverActivity(FeatureView, source=..., entity=...).")
    found: dict[str, tuple[Source, list[ViewDefinition]]] = {}
    names: set[str] = set()
    for view in views:
        source, its = found.setdefault(view.source.name, (view.source, []))
        if source is not view.source and repr(source) != repr(view.source):
            raise DefinitionError(
                f"Two different sources are named '{source.name}': {source!r} and {view.source!r}. A checkpoint tells "
                "sources apart by name; give one of them another."
            )
        if view.name in names:
            raise DefinitionError(f"Two views are named '{view.name}'. Give one of them another name, with name='...'.")
        names.add(view.name)
        its.append(view)
    return list(found.values())


def _replay(
    feeds: Sequence[_Feed],
    store: EmbeddedStore,
    log: OfflineLog,
    summary: Summary,
    checkpoint_every_s: float,
    progress: Callable[[Step], None] | None,
) -> None:
    """Batch by batch, always of the source that is furthest behind."""
    warm()
    due = time.monotonic() + checkpoint_every_s
    with Interrupts() as interrupts:
        while not interrupts.asked:
            for feed in feeds:
                feed.fetch()
            reading = [feed for feed in feeds if feed.next is not None]
            if not reading:
                return
            feed = min(reading, key=lambda f: f.reached)
            _step(feed, store, log, summary, progress)
            if time.monotonic() >= due:
                _commit(feeds, store, log)
                due = time.monotonic() + checkpoint_every_s
        summary.stopped = True


def _step(
    feed: _Feed,
    store: EmbeddedStore,
    log: OfflineLog,
    summary: Summary,
    progress: Callable[[Step], None] | None,
) -> None:
    part = feed.next
    assert part is not None
    output = feed.flow.push(part.batch, wall_us=time.time_ns() // 1000)
    _write(feed, output, part.dead, store, log, summary)
    summary.read[feed.name] += part.progress.offset - feed.offset
    feed.offset = part.progress.offset
    feed.next = None
    if progress is not None:
        made = part.progress
        progress(Step(feed.name, made.done, made.total, made.unit, feed.flow.newest_us, summary))


def _write(
    feed: _Feed, output: Output, broken: Sequence[DeadLetter], store: EmbeddedStore, log: OfflineLog, summary: Summary
) -> None:
    for view in feed.flow.views:
        online, settled = output.online.get(view.name), output.log.get(view.name)
        if online is not None:
            store.write(view, online)
            summary.online_rows[view.name] += online.num_rows
        if settled is not None:
            log.append(view, settled)
            summary.log_rows[view.name] += settled.num_rows
    dead = [*broken, *output.dead]
    if dead:
        log.dead_letters(dead_letter_table([letter.record() for letter in dead]))
        summary.dead.update(letter.reason for letter in dead)
    summary.taken += output.taken
    summary.duplicates += output.duplicates
    summary.missing.update({f"{feed.name}.{column}": n for column, n in output.missing.items()})


def _finish(feeds: Sequence[_Feed], store: EmbeddedStore, log: OfflineLog, summary: Summary) -> None:
    """Bring every view to the common clock, write what would follow if no further event came, and make it count."""
    clock = max((feed.flow.newest_us for feed in feeds if feed.flow.newest_us is not None), default=None)
    for feed in feeds:
        if clock is not None:
            _write(feed, feed.flow.advance(clock), (), store, log, summary)
        tails = feed.flow.tail()
        for view in feed.flow.views:
            if view.name in tails:
                log.tail(view, tails[view.name])
                summary.tail_rows[view.name] += tails[view.name].num_rows
    _commit(feeds, store, log)


def _commit(feeds: Sequence[_Feed], store: EmbeddedStore, log: OfflineLog) -> None:
    """A checkpoint: everything written so far counts, and a restart goes on from here."""
    store.sync()
    begun = [feed for feed in feeds if feed.flow.newest_us is not None]
    clock = None
    if begun:
        clock = Clock(min(feed.flow.clock_us for feed in begun), "stream")
        store.set_clock(clock.us, clock.kind)
    log.commit(
        settled_us={name: us for feed in begun for name, us in feed.flow.settled_us().items()},
        snapshots={feed.name: feed.flow.snapshot() for feed in feeds},
        offsets={feed.name: {0: feed.offset} for feed in feeds},
        clock=clock,
    )
