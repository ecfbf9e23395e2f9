"""The embedded runner: views over files, frames and Python iterables, on one machine and with no services.

    source -> batches -> SourceFlow -> online store      at once
                             |------> offline log       as the watermark passes
                             '------> dead letters      both become visible with the next checkpoint

A replay reads its sources side by side in event-time order, and its clock is the stream's own. A live run takes what
comes, and its clock is the wall's (live.py). A checkpoint makes snapshots, offsets and log files count at one instant,
so a run that was killed goes on from the last one and ends as if nothing had happened (contract C13).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.features.sources import Source
from headrace.features.views import ViewDefinition, definition
from headrace.flows.changes import OnChange
from headrace.flows.interrupts import Interrupts
from headrace.flows.live import LiveFeed, run_live
from headrace.flows.pipeline import SourceFlow
from headrace.flows.read import BATCH_SIZE, Part, batches
from headrace.flows.recording import Reading, Recorder, Summary
from headrace.flows.warm import warm
from headrace.stores.checkpoints import Checkpoint

CHECKPOINT_EVERY_S = 10.0


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


class _Feed(Reading):
    """One source being replayed."""

    def __init__(
        self,
        source: Source,
        views: Sequence[ViewDefinition],
        checkpoint: Checkpoint | None,
        size: int,
        on_change: OnChange = "refuse",
    ) -> None:
        super().__init__(SourceFlow(source, views), checkpoint, on_change)
        if self.flow.backfills:
            self.flow.graft(_history(source, views, size, self.offset, self.files))
        self._parts: Iterator[Part] = batches(source, size, self.offset, files=self.files)
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


def _history(source: Source, views: Sequence[ViewDefinition], size: int, upto: int, files: Sequence[str]) -> SourceFlow:
    """A flow of `views` that has taken the source from its beginning up to row `upto`."""
    flow = SourceFlow(source, views)
    for part in batches(source, size, files=files):
        batch = part.batch if part.progress.offset <= upto else part.batch.take(part.batch.offset < upto)
        flow.push(batch, wall_us=time.time_ns() // 1000)
        if part.progress.offset >= upto:
            break
    return flow


def run(
    views: Iterable[Any],
    data: str | PathLike[str],
    *,
    live: bool = False,
    batch_size: int = BATCH_SIZE,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    on_change: OnChange = "refuse",
    progress: Callable[[Step], None] | None = None,
) -> Summary:
    """Run views over their sources, into the folder `data`, until the sources end.

    Goes on from the last checkpoint in `data` if there is one. Ctrl-C and SIGTERM end the run after the batch at hand,
    with a checkpoint.

    Args:
        views: feature views or definitions, over any number of sources.
        data: folder of the embedded online store, the offline log and the checkpoints; made if it is not there.
        live: the clock is the wall's: events are taken as they come, however few, and values fall while none come.
            Otherwise a replay: the clock is the stream's newest event, and sources are read as fast as they can be. A
            live iterable has no past: a restarted run takes what it yields next.
        batch_size: events per batch.
        checkpoint_every_s: seconds between checkpoints.
        on_change: what to do with a view that is not the one whose state `data` holds. Features that compute what they
            did keep their state; new ones "start" empty, or take theirs from a "backfill": the source is read again
            from its beginning up to where the run stands. "refuse": SnapshotError says what has changed.
        progress: called after each batch.

    Raises:
        DefinitionError: no views, two of one name, or two sources of one name.
        SnapshotError: `data` holds a checkpoint of other definitions.
        LockedError: another run writes into `data`.
        DataError: a source cannot be read at all. Single bad rows become dead letters instead.
    """
    began = time.perf_counter()
    sources = by_source([definition(view) for view in views])
    warm()
    with Recorder(Path(data), "wall" if live else "stream") as recorder:
        summary = recorder.summary

        def shown(feed: Reading, part: Part) -> None:
            made = part.progress
            summary.read[feed.name] += made.offset - feed.offset
            feed.offset, feed.files = made.offset, made.files
            if progress is not None:
                progress(Step(feed.name, made.done, made.total, made.unit, feed.flow.newest_us, summary))

        readings: Sequence[Reading]
        if live:
            if on_change == "backfill":
                raise DefinitionError(
                    "on_change='backfill' reads a source again, and what a live run has taken may be gone. Choose "
                    "'start', or replay."
                )
            streams = [LiveFeed(source, its, recorder.checkpoint, batch_size, on_change) for source, its in sources]
            for stream in streams:
                recorder.change(stream)
                recorder.follow(stream)
            run_live(streams, recorder, checkpoint_every_s, shown)
            readings = streams
        else:
            feeds = [_Feed(source, its, recorder.checkpoint, batch_size, on_change) for source, its in sources]
            for feed in feeds:
                recorder.change(feed)
                recorder.follow(feed)
            _replay(feeds, recorder, checkpoint_every_s, shown)
            readings = feeds
        recorder.commit(readings, tails=True)
        summary.entities = {name: n for reading in readings for name, n in reading.flow.entities.items()}
    summary.seconds = time.perf_counter() - began
    return summary


def by_source(views: Sequence[ViewDefinition]) -> list[tuple[Source, list[ViewDefinition]]]:
    """The views of each source, in the order in which the sources are first named.

    Raises:
        DefinitionError: no views, two of one name, or two sources of one name.
    """
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
    feeds: Sequence[_Feed], recorder: Recorder, checkpoint_every_s: float, shown: Callable[[Reading, Part], None]
) -> None:
    """Batch by batch, always of the source that is furthest behind; at the end all views stand at one clock."""
    due = time.monotonic() + checkpoint_every_s
    with Interrupts() as interrupts:
        while not interrupts.asked:
            for feed in feeds:
                feed.fetch()
            reading = [feed for feed in feeds if feed.next is not None]
            if not reading:
                break
            feed = min(reading, key=lambda f: f.reached)
            part, feed.next = feed.next, None
            assert part is not None
            recorder.write(feed, feed.flow.push(part.batch, wall_us=time.time_ns() // 1000), part.dead)
            shown(feed, part)
            if time.monotonic() >= due:
                recorder.commit(feeds)
                due = time.monotonic() + checkpoint_every_s
        recorder.summary.stopped = interrupts.asked
    clock = max((feed.flow.newest_us for feed in feeds if feed.flow.newest_us is not None), default=None)
    for feed in feeds:
        if clock is not None:
            recorder.write(feed, feed.flow.advance(clock))
