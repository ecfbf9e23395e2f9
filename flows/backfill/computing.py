"""The buckets of staged events, several at a time, whatever part of a log they belong to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from headrace.features.views import ViewDefinition
from headrace.flows.backfill.buckets import settle_bucket
from headrace.flows.backfill.crew import Brief, Crew
from headrace.flows.backfill.site import Site
from headrace.flows.saving import Position
from headrace.flows.shard import BEGINNING

Phase = Literal["read", "judge", "share", "compute", "write", "commit"]


@dataclass(frozen=True)
class Step:
    """How far a backfill is: for a progress bar.

    phase: reading events of `what` (a source), judging them and sharing them out where that is done by several
    machines, computing or writing rows of `what` (a view), committing the parts of a live flow's log. done of total:
    bytes or rows of the source, stretches of it, buckets, rows, or parts; total is None where nobody knows.
    """

    phase: Phase
    what: str
    done: int
    total: int | None


Progress = Callable[[Step], None]


@dataclass(frozen=True)
class Settle:
    """The job of one bucket of a part's view."""

    part: str
    view: str
    bucket: int

    def __call__(self, site: Site) -> None:
        its = site.parts[self.part]
        stage, read = its.stage, its.stage.read
        view = next(view for view in its.views if view.name == self.view)
        if stage.done(self.view, self.bucket):
            return
        assert read is not None
        assert read.newest is not None
        position = position_of(view, read.newest, read.watermark)
        spill = site.spills(self.part)[view.entity.keys]
        portions = spill.portions(self.bucket, position.settled, view.log_every_us)
        rows = stage.writing(self.view, self.bucket)
        state = settle_bucket(view, portions, position, site.from_us, rows)
        stage.keep(self.view, self.bucket, state, rows)


def compute(site: Site, brief: Brief, crew: Crew, progress: Progress) -> None:
    """Every bucket that is not done, of the parts to which any event was let in."""
    by_view: dict[str, list[Settle]] = {}
    for name, part in site.parts.items():
        read = part.stage.read
        if read is None or read.newest is None:
            continue
        spills = site.spills(name)
        for view in part.views:
            spill = spills[view.entity.keys]
            its = [Settle(name, view.name, bucket) for bucket in range(part.stage.buckets) if spill.has(bucket)]
            by_view.setdefault(view.name, []).extend(its)
    for name, jobs in by_view.items():
        left = [job for job in jobs if not site.parts[job.part].stage.done(name, job.bucket)]
        before, total = len(jobs) - len(left), len(jobs)

        def told(done: int, name: str = name, before: int = before, total: int = total) -> None:
            progress(Step("compute", name, before + done, total))

        crew.do(brief, left, told)


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
