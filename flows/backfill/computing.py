"""The buckets of staged events, several at a time, whatever part of a log they belong to."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal

from headrace.features.events import EventSchema
from headrace.features.views import ViewDefinition
from headrace.flows.backfill.buckets import settle_bucket
from headrace.flows.backfill.stage import Spill, Stage
from headrace.flows.saving import Position
from headrace.flows.shard import BEGINNING

Phase = Literal["read", "compute", "write"]
Spills = dict[tuple[str, ...], Spill]
"""By entity keys, one for all views of that entity."""


@dataclass(frozen=True)
class Step:
    """How far a backfill is: for a progress bar.

    phase: reading events of `what` (a source), computing or writing rows of `what` (a view). done of total: bytes or
    rows of the source, buckets, or rows; total is None where nobody knows.
    """

    phase: Phase
    what: str
    done: int
    total: int | None


Progress = Callable[[Step], None]


@dataclass(frozen=True)
class Staged:
    """One view's events of a part of the log. position: where its flow stands."""

    view: ViewDefinition
    stage: Stage
    spill: Spill
    position: Position


def compute(staged: Iterable[Staged], from_us: int | None, threads: int | None, progress: Progress) -> None:
    """Every bucket that is not done.

    Args:
        from_us: only log rows as of later instants, microseconds. threads: side by side; all cores by default.
    """

    def work(at: Staged, bucket: int) -> None:
        name, stage = at.view.name, at.stage
        if not stage.done(name, bucket) and at.spill.has(bucket):
            portions = at.spill.portions(bucket, at.position.settled, at.view.log_every_us)
            stage.keep(
                name, bucket, settle_bucket(at.view, portions, at.position, from_us, stage.writing(name, bucket))
            )

    by_view: dict[str, list[Staged]] = {}
    for each in staged:
        by_view.setdefault(each.view.name, []).append(each)
    for name, its in by_view.items():
        total = sum(at.stage.buckets for at in its)
        with ThreadPoolExecutor(threads or os.cpu_count() or 1, "headrace-backfill") as pool:
            jobs = [pool.submit(work, at, bucket) for at in its for bucket in range(at.stage.buckets)]
            try:
                for done, job in enumerate(as_completed(jobs), 1):
                    job.result()
                    progress(Step("compute", name, done, total))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def spills_of(stage: Stage, schema: EventSchema, views: Sequence[ViewDefinition]) -> Spills:
    """Where the events of these views are put."""
    columns: dict[tuple[str, ...], dict[str, None]] = {}
    for view in views:
        columns.setdefault(view.entity.keys, dict.fromkeys(view.entity.keys)).update(dict.fromkeys(view.event_columns))
    return {keys: stage.spill(schema, keys, tuple(names)) for keys, names in columns.items()}


def position_of(view: ViewDefinition, newest: int, watermark: int | None) -> Position:
    """Where a view stands once everything was read; without a watermark nothing has settled."""
    if watermark is None:
        return Position(newest, BEGINNING, BEGINNING)
    upto = watermark - 1
    if view.log_every_us is not None:
        upto = upto // view.log_every_us * view.log_every_us
    return Position(newest, watermark, upto)


def silent(step: Step) -> None:
    """Nobody looks."""


def each_view(views: Sequence[ViewDefinition], stage: Stage, spills: Spills, newest: int, watermark: int | None
              ) -> Iterator[Staged]:  # fmt: skip
    """The views of one part of the log."""
    for view in views:
        yield Staged(view, stage, spills[view.entity.keys], position_of(view, newest, watermark))
