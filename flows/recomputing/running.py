"""Answers from a source's raw events: every event is read and judged; those of entities that are asked about are kept,
and computed bucket by bucket."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headrace.features.sources import Source
from headrace.features.views import ViewDefinition
from headrace.flows.admission import Admission
from headrace.flows.backfill import Step
from headrace.flows.backfill.sizing import buckets_of
from headrace.flows.backfill.stage import Spill
from headrace.flows.batch import EventBatch
from headrace.flows.lanes import FOREVER
from headrace.flows.read import batches
from headrace.flows.recomputing.answers import Answers
from headrace.flows.recomputing.arrivals import Arrivals, arrival_of
from headrace.flows.recomputing.asof import as_of, bucket_of
from headrace.flows.recomputing.judging import Judges
from headrace.flows.recomputing.known import as_known
from headrace.flows.recomputing.questions import Questions
from headrace.flows.warm import warm
from headrace.stores.layout import row_layout

BATCH = 100_000
"""Events that are decoded and judged at a time."""
Progress = Callable[[Step], None]


@dataclass(frozen=True)
class Recomputation:
    """What is asked of one source.

    Attributes:
        source: judges the events: lateness, dedup and the like. events: the source that they are read from.
        views: over `source`. questions: by the key columns of the views' entities.
        arrival: the column of `events` that says when each arrived, for answers as known then; None: only corrected.
        repair: late events count at their own time.
        partition: the column of `events` that says by which partition each came; None: all by one.
    """

    source: Source
    events: Source
    views: Sequence[ViewDefinition]
    questions: Mapping[tuple[str, ...], Questions]
    arrival: str | None = None
    repair: bool = False
    partition: str | None = None


@dataclass
class Recomputed:
    """Answers by view name: corrected, and the others of those questions whose answer may have been another then.

    dead: events that were not let in, by reason. read: rows of the source.
    """

    corrected: dict[str, Answers] = field(default_factory=dict)
    known: dict[str, Answers] = field(default_factory=dict)
    dead: Counter[str] = field(default_factory=Counter)
    read: int = 0


def recompute(asked: Recomputation, folder: Path, threads: int | None, progress: Progress) -> Recomputed:
    """Answer all questions.

    Args:
        folder: made, for files of about the size of the events in question; the caller removes it.
        threads: buckets side by side; all cores by default.

    Raises:
        DataError: the source cannot be read at all.
    """
    warm()
    folder.mkdir(parents=True)
    made = Recomputed()
    spills = _spills(asked, folder)
    arrivals = None
    if asked.arrival is not None:
        arrivals = Arrivals(folder / "arrivals", asked.source, asked.arrival, asked.partition)
    if any(questions.latest is not None for questions in asked.questions.values()):
        _read(asked, spills, arrivals, made, progress)
    for spill in spills.values():
        spill.close()
    if arrivals is not None:
        arrivals.finish()
    for view in asked.views:
        layout = row_layout(view)
        made.corrected[view.name] = Answers(folder / f"corrected-{view.name}", layout)
        if arrivals is not None:
            made.known[view.name] = Answers(folder / f"known-{view.name}", layout)
        _compute(view, asked, spills[view.entity.keys], arrivals, made, threads, progress)
    return made


def _read(
    asked: Recomputation,
    spills: Mapping[tuple[str, ...], Spill],
    arrivals: Arrivals | None,
    made: Recomputed,
    progress: Progress,
) -> None:
    """Every event is judged; those of entities in question go to their buckets."""
    judges = Judges(lambda: Admission(asked.source, repair=asked.repair), asked.partition)
    for part in batches(asked.events, BATCH):
        kept, dead = judges.take(part.batch, time.time_ns() // 1000)
        made.dead.update(letter.reason for letter in part.dead)
        made.dead.update(dead)
        made.read = part.progress.offset
        if arrivals is not None:
            arrivals.add(part.batch, part.progress.offset)
            kept = _all_of(part.batch, kept)
        if len(kept):
            begins = kept.effective
            if arrivals is not None:
                begins = np.minimum(begins, arrival_of(kept, arrivals.column))
            for keys, questions in asked.questions.items():
                if questions.latest is not None:
                    concerned = kept.take(questions.concern(kept) & (begins <= questions.latest))
                    if len(concerned):
                        spills[keys].add(concerned)
        progress(Step("read", asked.source.name, part.progress.done, part.progress.total))


def _all_of(batch: EventBatch, taken: EventBatch) -> EventBatch:
    """The batch, with those of it that were not taken effective at `FOREVER`."""
    effective = np.full(len(batch), FOREVER)
    effective[np.searchsorted(batch.offset, taken.offset)] = taken.effective
    return batch.counting_from(effective)


def _compute(
    view: ViewDefinition,
    asked: Recomputation,
    spill: Spill,
    arrivals: Arrivals | None,
    made: Recomputed,
    threads: int | None,
    progress: Progress,
) -> None:
    """Every bucket of a view, several at a time."""
    questions, buckets = asked.questions[view.entity.keys], buckets_of(asked.events)
    corrected, known = made.corrected[view.name], made.known.get(view.name)

    def work(number: int) -> None:
        its = questions.bucket(number)
        events = None if its is None else spill.bucket(number)
        if its is None or events is None:
            return
        bucket = bucket_of(view, events, its)
        found = as_of(bucket)
        corrected.put(found.rows, found.which, its.portion, its.row)
        if arrivals is not None and known is not None:
            then = as_known(bucket, events, arrivals)
            known.put(then.found.rows, then.found.which, its.portion[then.which], its.row[then.which])

    with ThreadPoolExecutor(threads or os.cpu_count() or 1, "headrace-recompute") as pool:
        jobs = [pool.submit(work, number) for number in range(buckets)]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                progress(Step("compute", view.name, done, buckets))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for answers in (corrected, known):
        if answers is not None:
            answers.close()


def _spills(asked: Recomputation, folder: Path) -> dict[tuple[str, ...], Spill]:
    """By entity keys, one for all views of that entity."""
    columns: dict[tuple[str, ...], dict[str, None]] = {}
    for view in asked.views:
        columns.setdefault(view.entity.keys, dict.fromkeys(view.entity.keys)).update(dict.fromkeys(view.event_columns))
    if asked.arrival is not None:
        for names in columns.values():
            names[asked.arrival] = None
    count = buckets_of(asked.events)
    schema = asked.events.schema
    return {
        keys: Spill(folder / f"events-{'-'.join(keys)}", schema, keys, tuple(names), count, 1.0)
        for keys, names in columns.items()
    }
