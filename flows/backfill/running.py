"""Backfilling a source's views: read and judge every event, settle bucket by bucket, write the log, the online rows and
a checkpoint."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.features.sources import FileSource, FrameSource, IterableSource, Source
from headrace.features.views import ViewDefinition, definition
from headrace.flows.admission import WALL_AHEAD_US, Admission
from headrace.flows.backfill.buckets import joined_state
from headrace.flows.backfill.computing import Progress, Step, compute, silent
from headrace.flows.backfill.crew import Brief, Crew, Here, Threads
from headrace.flows.backfill.merging import merged
from headrace.flows.backfill.reading import read_in_order
from headrace.flows.backfill.site import Counts, PartOfLog, Site
from headrace.flows.backfill.sizing import buckets_of, looks_of
from headrace.flows.backfill.stage import Read, Stage
from headrace.flows.backfill.stretches import read_by_stretches
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.recording import Reading, Recorder, Summary
from headrace.flows.runner import by_source
from headrace.flows.warm import warm

BATCH = 100_000
"""Events that are decoded and judged at a time."""
STAGE = "backfill"
"""Folder beside log and online store; it goes when all is done."""


@dataclass(frozen=True)
class Asked:
    """The options of `backfill`."""

    from_us: int | None
    to_us: int | None
    repair: bool
    sample: float
    batch_size: int


def backfill(
    views: Iterable[Any],
    data: str | PathLike[str],
    *,
    from_us: int | None = None,
    to_us: int | None = None,
    repair: bool = False,
    sample: float = 1.0,
    threads: int | None = None,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> Summary:
    """Compute views over their sources' whole history, into the folder `data`, which then is as a replay
    (`headrace.flows.run`) would have left it: log, dead letters, online store and checkpoint.

    A killed backfill goes on: with the buckets that it had not computed, or with reading where it had not read all.

    Args:
        views: feature views or definitions over files, frames or iterables.
        data: a folder that no run has written to.
        from_us: the log has only rows as of later instants, microseconds; events before it count in their windows all
            the same.
        to_us: each source is read up to its first event after this instant, microseconds; a run goes on from there.
        repair: late events count at their own time, as if they had come in time, and are no dead letters: the log is
            what it would have been. With `dedup` an id counts once over the whole history, and all are in memory.
        sample: the share of the entities to compute, those of the least `headrace.stores.keys.key_number`: to compare
            with what a run wrote. Every event is judged all the same. A run must not go on from a sample.
        threads: side by side; all cores by default.
        batch_size: events that are decoded and judged at a time; values do not depend on it.
        progress: called after each batch and bucket.
        crew: other machines that do the work (`headrace.flows.spark.crew`), which find `data` and files at the same
            places; in place of `threads`.

    Raises:
        DefinitionError: no views, two of one name, or two sources of one name.
        DataError: a run has written to `data`, or a source cannot be read at all, or has no end.
        LockedError: another run writes into `data`.
    """
    began = time.perf_counter()
    asked = Asked(from_us, to_us, repair, sample, batch_size)
    tell, crew = progress or silent, crew or Threads(threads)
    sources = by_source([definition(view) for view in views])
    for source, _ in sources:
        _check(source)
    warm()
    with Recorder(Path(data), "stream") as recorder:
        if recorder.checkpoint is not None:
            raise DataError(
                f"{data} holds what a run wrote, and a backfill begins at the beginning. Go on with `headrace run`, "
                "name another folder with --data, or drop what is there with --fresh."
            )
        readings = []
        stages = []
        for source, its in sources:
            buckets = buckets_of(source)
            folder = Path(os.path.abspath(data)) / STAGE / source.name
            plan = _plan(source, its, asked, buckets, crew)
            stage = Stage(folder, plan, buckets, sample, shared=crew.load is not None)
            stages.append(stage)
            site = _site(source, its, stage, asked)
            brief = Here(site) if crew.load is None else _Brief(crew.load, folder, source.name, asked, buckets)
            readings.append(_one(site, brief, crew, recorder, tell, asked))
        reached = [reading.flow.newest_us for reading in readings if reading.flow.newest_us is not None]
        for reading in readings:
            if reached:
                reading.flow.advance(max(reached))
                recorder.write(reading, Output(online=reading.flow.rows(max(reached))))
        recorder.commit(readings, tails=True, full=True)
        summary = recorder.summary
        summary.entities = {name: n for reading in readings for name, n in reading.flow.entities.items()}
    for stage in stages:
        stage.remove()
    (Path(data) / STAGE).rmdir()
    summary.seconds = time.perf_counter() - began
    return summary


class _OneJudge:
    """Of a source whose events all belong to one part of the log.

    now_us: the wall clock, microseconds.
    """

    def __init__(self, source: Source, views: Sequence[ViewDefinition], asked: Asked, now_us: int) -> None:
        self._name, self._asked, self._now = source.name, asked, now_us
        self.flow = SourceFlow(source, views)
        self._lenient = Admission(source, repair=True) if asked.repair else None
        self.counts = Counts()
        self.end: int | None = None

    def take(self, batch: EventBatch) -> Iterator[tuple[str, EventBatch | None, list[DeadLetter]]]:
        if self._asked.to_us is not None and self.end is None:
            self.end = _beyond(batch, self._asked.to_us, self._now)
        events = batch if self.end is None else batch.take(batch.offset < self.end)
        made = self.flow.judge(events, self._now, instead=self._lenient)
        counts = self.counts
        counts.taken, counts.duplicates = counts.taken + made.taken, counts.duplicates + made.duplicates
        counts.missing.update(made.missing)
        counts.dead.update(letter.reason for letter in made.dead)
        yield self._name, made.batch, list(made.dead)

    def save(self) -> dict[str, bytes]:
        lenient = {} if self._lenient is None else {"lenient": self._lenient.save(full=True).data}
        return {"own": self.flow.judgement(), **lenient}

    def load(self, saved: Mapping[str, bytes]) -> None:
        self.flow.take_judgement(saved["own"])
        if self._lenient is not None:
            self._lenient.load([saved["lenient"]])


@dataclass(frozen=True)
class _Brief:
    """load: gives the views. folder: of the stage. source: its name."""

    load: Callable[[], Iterable[Any]]
    folder: Path
    source: str
    asked: Asked
    buckets: int

    def __call__(self) -> Site:
        views = [definition(view) for view in self.load()]
        source, its = next((source, its) for source, its in by_source(views) if source.name == self.source)
        stage = Stage(self.folder, None, self.buckets, self.asked.sample, shared=True)
        return _site(source, its, stage, self.asked)


def _site(source: Source, views: Sequence[ViewDefinition], stage: Stage, asked: Asked) -> Site:
    def judge(now_us: int) -> _OneJudge:
        return _OneJudge(source, views, asked, now_us)

    parts = {source.name: PartOfLog(stage, tuple(views))}
    return Site(source.name, source, source.schema, stage, parts, judge, asked.from_us)


def _one(site: Site, brief: Brief, crew: Crew, recorder: Recorder, tell: Progress, asked: Asked) -> Reading:
    """One source: its rows are staged in the log, and the flow of what is returned stands at the end of the source."""
    source, stage = site.read, site.stage
    (part,) = site.parts.values()
    flow = SourceFlow(source, part.views)
    if stage.read is None:
        if crew.load is None:
            stage.begin_reading()
            judge, reached = read_in_order(site, asked.batch_size, tell)
        else:
            judge, reached = read_by_stretches(site, brief, crew, asked.batch_size, tell)
        counts, judged = judge.counts, SourceFlow(source, part.views)
        judgement = judge.save()["own"]
        judged.take_judgement(judgement)
        stage.finish_reading(
            Read(
                reached.offset,
                reached.files,
                judged.newest_us,
                judged.watermark_us,
                counts.taken,
                counts.duplicates,
                dict(counts.missing),
                dict(counts.dead),
            ),
            judgement,
        )
    read = stage.read
    assert read is not None
    reading = Reading(flow, None)
    reading.offset, reading.files = read.offset, read.files
    recorder.summary.read[source.name] += read.offset
    recorder.count(source.name, read.taken, read.duplicates, read.missing)
    recorder.refused(stage.dead(), read.dead)
    if read.newest is not None and read.watermark is not None:
        flow.take_judgement(stage.admission())
        compute(site, brief, crew, tell)
        for view in part.views:
            flow.take_up(view.name, joined_state(view, stage.states(view.name)))
            _write(view, stage, recorder, reading, tell)
    return reading


def _beyond(batch: EventBatch, to_us: int, now_us: int) -> int | None:
    """The row of the first event after the instant; one that no clock has come to is not asked."""
    later = np.flatnonzero((batch.time > to_us) & (batch.time <= now_us + WALL_AHEAD_US))
    return int(batch.offset[later[0]]) if len(later) else None


def _write(view: ViewDefinition, stage: Stage, recorder: Recorder, reading: Reading, progress: Progress) -> None:
    """The view's rows go to the log, oldest first."""
    if not view.log:
        return
    done = 0
    for rows in merged(stage.rows(view.name)):
        recorder.write(reading, Output(log={view.name: rows}))
        done += rows.num_rows
        progress(Step("write", view.name, done, None))


def _plan(source: Source, views: Sequence[ViewDefinition], asked: Asked, buckets: int, crew: Crew) -> dict[str, Any]:
    """What must be the same for an interrupted backfill to be taken up again."""
    shown = {view.name: view.fingerprint() for view in views}
    return {
        "source": repr(source),
        "seen": looks_of(source),
        "views": shown,
        "from": asked.from_us,
        "to": asked.to_us,
        "repair": asked.repair,
        "buckets": buckets,
        "read": "in order" if crew.load is None else "by stretches",
    }


def _check(source: Source) -> None:
    if isinstance(source, KafkaSource):
        raise DataError(
            f"Source '{source.name}' is a KafkaSource, which has no end. Backfill from a FileSource, FrameSource or "
            "IterableSource of the same event; or give the source its history= and hand it over to the live flow: "
            "headrace backfill FILE."
        )
    if not isinstance(source, FileSource | FrameSource | IterableSource):
        raise DataError(f"Source '{source.name}' is a {type(source).__name__}, which is not read from start to end.")
