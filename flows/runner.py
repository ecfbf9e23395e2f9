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
from headrace.features.streams import Flow
from headrace.features.views import ViewDefinition
from headrace.flows.changes import OnChange
from headrace.flows.graph.viewing import apart, different_names
from headrace.flows.interrupts import Interrupts
from headrace.flows.live import LiveFeed, run_live
from headrace.flows.pipeline import SourceFlow
from headrace.flows.read import BATCH_SIZE, Part, batches
from headrace.flows.recording import Reading, Recorder, Summary
from headrace.flows.warm import warm
from headrace.flows.worker.interpreter import rare_collection
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
        self._parts: Iterator[Part] = batches(source, size, self.offset, files=self.files, position=self.position)
        self.next: Part | None = None
        self._ended = False

    def fetch(self) -> None:
        """Have the next batch at hand, unless the source has ended."""
        if self.next is None and not self._ended:
            self.next = next(self._parts, None)
            self._ended = self.next is None

    @property
    def ended(self) -> bool:
        return self._ended

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
        views: feature views or definitions, and flows of steps, over any number of sources. A source that several
            of them name is read once. A view over a stream has its flow run too.
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
    flows, every, over = apart(views)
    sources = by_source(every, flows)
    if every or over:  # flows of steps alone need no compiled kernels
        warm()
    with rare_collection(), Recorder(Path(data), "wall" if live else "stream") as recorder:
        summary = recorder.summary

        def shown(feed: Reading, part: Part) -> None:
            made = part.progress
            summary.read[feed.name] += made.offset - feed.offset
            feed.offset, feed.files, feed.position = made.offset, made.files, made.position
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
                recorder.change(stream.flow)
                recorder.follow(stream.flow)
            recorder.attach(streams, flows, on_change, over)
            run_live(streams, recorder, checkpoint_every_s, shown)
            readings = streams
        else:
            feeds = [_Feed(source, its, recorder.checkpoint, batch_size, on_change) for source, its in sources]
            for feed in feeds:
                recorder.change(feed.flow)
                recorder.follow(feed.flow)
            recorder.attach(feeds, flows, on_change, over)
            _replay(feeds, recorder, checkpoint_every_s, shown)
            readings = feeds
        if not summary.stopped:
            recorder.finish()
        clock = _newest_of(readings)
        if clock is not None and not live:
            recorder.advance(clock)
        recorder.commit(readings, tails=True)
    summary.seconds = time.perf_counter() - began
    return summary


def by_source(views: Sequence[ViewDefinition], flows: Sequence[Flow] = ()) -> list[tuple[Source, list[ViewDefinition]]]:
    """The views of each source, in the order in which the sources are first named; those that only flows read too.

    Raises:
        DefinitionError: no views and no flows, two of one name, or two sources of one name; a view over a stream.
    """
    for view in views:
        if view.source.kind == "stream":
            raise DefinitionError(
                f"View '{view.name}' is over the stream '{view.source.name}', and only `headrace run` computes flows "
                "of steps; it reads files from their beginning too. Run it: headrace run FILE, or headrace.run([...]). "
                "Training sets come from the log that it writes: log=OfflineLog(...)."
            )
    if not views and not flows:
        raise DefinitionError("No views to run. Define one: class DriverActivity(FeatureView, source=..., entity=...).")
    for flow in flows:
        if not flow.steps:
            raise DefinitionError(f"Flow '{flow.name}' has no steps. Begin it with flow.read(source).")
        if [each.name for each in flows].count(flow.name) > 1:
            raise DefinitionError(f"Two flows are named '{flow.name}'. Give one of them another name.")
    different_names(views)
    found: dict[str, tuple[Source, list[ViewDefinition]]] = {}
    for view in views:
        _same(found, view.source).append(view)
    for flow in flows:
        for source in flow.sources:
            _same(found, source)
    return list(found.values())


def _newest_of(readings: Iterable[Reading]) -> int | None:
    """The newest event of all sources, microseconds; None before the first."""
    return max((each.flow.newest_us for each in readings if each.flow.newest_us is not None), default=None)


def sources_read(views: Iterable[ViewDefinition]) -> list[Source]:
    """The sources that views are computed from, those of streams among them, each once.

    Raises:
        DefinitionError: two sources of one name.
    """
    found: dict[str, tuple[Source, list[ViewDefinition]]] = {}
    for view in views:
        for root in view.source.roots:
            _same(found, root)
    return [source for source, _ in found.values()]


def _same(found: dict[str, tuple[Source, list[ViewDefinition]]], source: Source) -> list[ViewDefinition]:
    """The views of a source, which is no other one than that found under its name."""
    first, its = found.setdefault(source.name, (source, []))
    if first is not source and repr(first) != repr(source):
        raise DefinitionError(
            f"Two different sources are named '{source.name}': {first!r} and {source!r}. A checkpoint tells sources "
            "apart by name; give one of them another."
        )
    return its


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
    clock = _newest_of(feeds)
    for feed in feeds:
        if clock is not None:
            recorder.write(feed, feed.flow.advance(clock))
