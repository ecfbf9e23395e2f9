"""`headrace backfill`: a bar for each phase, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from headrace.cli.flowing import flow_settings
from headrace.cli.loading import Shipped, ViewsFile
from headrace.cli.project import forget, remember
from headrace.cli.replaying import as_data, compiled, print_run
from headrace.cli.show import print_json
from headrace.features.errors import HeadraceError, did_you_mean
from headrace.features.kafka_source import KafkaSource
from headrace.features.sources import FileSource
from headrace.features.views import ViewDefinition
from headrace.flows.backfill import Step, backfill
from headrace.flows.backfill.crew import Crew
from headrace.flows.recording import Summary
from headrace.flows.spark.settings import SparkSettings
from headrace.flows.worker.settings import FlowSettings
from headrace.ops.errors import DONE, INTERRUPTED
from headrace.ops.settings import Configuration

PHASES = {
    "read": "reading",
    "judge": "judging",
    "share": "sharing out",
    "compute": "computing",
    "write": "writing",
    "commit": "committing",
}


@dataclass(frozen=True)
class Request:
    """What `headrace backfill` was asked; from_us, to_us, repair, allow_gap and threads as of the functions that do it.

    config: of the flow, where the views are over Kafka. spark: how Spark is reached, where it does the work. history:
    as given to `with_history`.
    """

    file: ViewsFile
    views: Sequence[ViewDefinition]
    data: Path
    from_us: int | None
    to_us: int | None
    repair: bool
    allow_gap: bool
    threads: int | None
    config: Configuration | None
    spark: SparkSettings | None = None
    history: tuple[str, ...] = ()

    @property
    def settings(self) -> FlowSettings | None:
        """Of the live flow that goes on; None: there is none."""
        return None if self.config is None else flow_settings(self.file, self.config)


def backfill_and_show(request: Request, *, fresh: bool, quiet: bool, as_json: bool) -> int:
    """Backfills, prints what was done and returns the exit code.

    Raises:
        HeadraceError: as `backfill`.
    """
    settings = request.settings
    data = request.data if settings is None else Path(settings.data)
    if settings is not None and fresh:
        from headrace.flows.worker.forgetting import forget as forget_flow

        forget_flow(request.views, settings)
    if fresh:
        forget(data)
    if settings is None:
        remember(data, request.file)
    console = Console(stderr=True)
    with _shown(console, quiet) as progress:
        try:
            summary = _backfill(request, settings, progress)
        except KeyboardInterrupt:
            console.print("Stopped; the next backfill of the same views and files goes on with what is left.")
            return INTERRUPTED
    if as_json:
        print_json(as_data(summary, str(data)))
    else:
        print_run(summary, request.views, data)
    return DONE


def _backfill(request: Request, settings: FlowSettings | None, progress: Callable[[Step], None] | None) -> Summary:
    if request.spark is None:
        return _done(request, settings, progress, None)
    from headrace.flows.spark.crew import SparkCrew

    load = _Chosen(Shipped.of(request.file, request.views, ()), request.history)
    with SparkCrew(request.spark, load) as crew:
        return _done(request, settings, progress, crew)


def _done(
    request: Request,
    settings: FlowSettings | None,
    progress: Callable[[Step], None] | None,
    crew: Crew | None,
) -> Summary:
    if settings is None:
        return backfill(
            request.views,
            request.data,
            from_us=request.from_us,
            to_us=request.to_us,
            repair=request.repair,
            threads=request.threads,
            progress=progress,
            crew=crew,
        )
    from headrace.flows.backfill.handover import hand_over

    return hand_over(
        request.views,
        settings,
        from_us=request.from_us,
        to_us=request.to_us,
        repair=request.repair,
        allow_gap=request.allow_gap,
        threads=request.threads,
        progress=progress,
        crew=crew,
    )


@dataclass(frozen=True)
class _Chosen:
    """Gives the views in another process. history: as given to `with_history`."""

    shipped: Shipped
    history: tuple[str, ...]

    def __call__(self) -> tuple[ViewDefinition, ...]:
        return with_history(self.shipped(), self.history)


def with_history(views: Sequence[ViewDefinition], given: Sequence[str]) -> tuple[ViewDefinition, ...]:
    """The views, with other files as the history of their sources.

    given: "SOURCE=FILES", a path or a pattern each.

    Raises:
        HeadraceError: no such words, or no source over Kafka has the name.
    """
    said: dict[str, str] = {}
    for each in given:
        name, equals, files = each.partition("=")
        if not equals or not files:
            raise HeadraceError(
                f"--history {each}: expected the name of a source and its files, as in rides=old/*.parquet"
            )
        said[name] = files
    names = dict.fromkeys(view.source.name for view in views if isinstance(view.source, KafkaSource))
    for name in said:
        if name not in names:
            raise HeadraceError(
                f"--history {name}=...: no view reads a Kafka source '{name}'{did_you_mean(name, names)} "
                f"Sources: {', '.join(names) or 'none'}."
            )
    made: dict[str, KafkaSource] = {}
    for view in views:
        source = view.source
        if source.name in said and source.name not in made and isinstance(source, KafkaSource):
            made[source.name] = copy(source)
            past = FileSource(said[source.name], source.event, name=f"{source.name}-history")
            object.__setattr__(made[source.name], "history", past)
    return tuple(replace(view, source=made.get(view.source.name, view.source)) for view in views)


@contextmanager
def _shown(console: Console, quiet: bool) -> Iterator[Callable[[Step], None] | None]:
    if quiet:
        yield None
        return
    compiled(console)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}

        def progress(step: Step) -> None:
            at = step.phase, step.what
            if at not in tasks:
                tasks[at] = bars.add_task(f"{PHASES[step.phase]} {step.what}", total=step.total, done="")
            done = f"{step.done:,} rows" if step.phase == "write" else ""
            bars.update(tasks[at], completed=step.done, total=step.total, done=done)

        yield progress
