"""Backfilling a source's views: read and judge every event, settle bucket by bucket, write the log, the online rows and
a checkpoint."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
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
from headrace.flows.backfill.computing import Progress, Spills, Step, compute, each_view, silent, spills_of
from headrace.flows.backfill.merging import merged
from headrace.flows.backfill.sizing import buckets_of, looks_of
from headrace.flows.backfill.stage import Read, Stage
from headrace.flows.batch import EventBatch
from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.read import batches
from headrace.flows.recording import Reading, Recorder, Summary
from headrace.flows.runner import by_source
from headrace.flows.warm import warm
from headrace.stores.deadletters import dead_letter_table

BATCH = 100_000
"""Events that are decoded and judged at a time."""
STAGE = "backfill"
"""Folder beside log and online store; it goes when all is done."""


@dataclass(frozen=True)
class _Asked:
    """The options of `backfill`."""

    from_us: int | None
    to_us: int | None
    repair: bool
    sample: float
    threads: int | None
    batch_size: int
    progress: Progress


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

    Raises:
        DefinitionError: no views, two of one name, or two sources of one name.
        DataError: a run has written to `data`, or a source cannot be read at all, or has no end.
        LockedError: another run writes into `data`.
    """
    began = time.perf_counter()
    asked = _Asked(from_us, to_us, repair, sample, threads, batch_size, progress or silent)
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
            stage = Stage(Path(data) / STAGE / source.name, _plan(source, its, asked, buckets), buckets, sample)
            stages.append(stage)
            readings.append(_one(source, its, stage, recorder, asked))
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


def _one(source: Source, views: Sequence[ViewDefinition], stage: Stage, recorder: Recorder, asked: _Asked) -> Reading:
    """One source: its rows are staged in the log, and the flow of what is returned stands at the end of the source."""
    flow = SourceFlow(source, views)
    spills = spills_of(stage, source.schema, views)
    if stage.read is None:
        stage.begin_reading()
        _read(source, flow, stage, spills, asked)
    read = stage.read
    assert read is not None
    reading = Reading(flow, None)
    reading.offset, reading.files = read.offset, read.files
    recorder.summary.read[source.name] += read.offset
    recorder.count(source.name, read.taken, read.duplicates, read.missing)
    recorder.refused(stage.dead(), read.dead)
    if read.newest is not None and read.watermark is not None:
        flow.take_judgement(stage.admission())
        staged = each_view(views, stage, spills, read.newest, read.watermark)
        compute(staged, asked.from_us, asked.threads, asked.progress)
        for view in views:
            flow.take_up(view.name, joined_state(view, stage.states(view.name)))
            _write(view, stage, recorder, reading, asked.progress)
    return reading


def _read(source: Source, flow: SourceFlow, stage: Stage, spills: Spills, asked: _Asked) -> None:
    """Every event of the source is judged, and put into its buckets."""
    lenient = Admission(source, repair=True) if asked.repair else None
    taken = duplicates = offset = 0
    missing: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    files: tuple[str, ...] = ()
    with stage.refusing() as refuse:
        for part in batches(source, asked.batch_size):
            now = time.time_ns() // 1000
            end = None if asked.to_us is None else _beyond(part.batch, asked.to_us, now)
            events = part.batch if end is None else part.batch.take(part.batch.offset < end)
            made = flow.judge(events, now, instead=lenient)
            letters = [*(letter for letter in part.dead if end is None or letter.offset < end), *made.dead]
            if letters:
                refuse(dead_letter_table([letter.record() for letter in letters]))
                dead.update(letter.reason for letter in letters)
            taken, duplicates = taken + made.taken, duplicates + made.duplicates
            missing.update(made.missing)
            if made.batch is not None and len(made.batch):
                for spill in spills.values():
                    spill.add(made.batch)
            offset, files = part.progress.offset, part.progress.files
            asked.progress(Step("read", source.name, part.progress.done, part.progress.total))
            if end is not None:
                offset = end
                break
    for spill in spills.values():
        spill.close()
    read = Read(offset, files, flow.newest_us, flow.watermark_us, taken, duplicates, dict(missing), dict(dead))
    stage.finish_reading(read, flow.judgement())


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


def _plan(source: Source, views: Sequence[ViewDefinition], asked: _Asked, buckets: int) -> dict[str, Any]:
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
