"""`headrace run`: a replay with a progress bar, and what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from headrace.cli.bars import Reached
from headrace.cli.loading import ViewsFile
from headrace.cli.project import DATA, forget, remember
from headrace.cli.show import print_json, show_figures
from headrace.features.errors import HeadraceError
from headrace.features.streams import Flow
from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition
from headrace.flows.changes import OnChange
from headrace.flows.read import BATCH_SIZE
from headrace.flows.recording import LOG, ONLINE, Summary
from headrace.flows.runner import Step, run
from headrace.flows.snapshot import SnapshotError
from headrace.flows.warm import is_warm, warm
from headrace.flows.worker.settings import FlowSettings
from headrace.ops.errors import DONE, INTERRUPTED
from headrace.ops.secrets import redact
from headrace.ops.settings import Configuration
from headrace.stores.errors import SchemaMismatchError


def replay_and_show(
    file: ViewsFile,
    parts: Sequence[ViewDefinition | Flow],
    config: Configuration,
    *,
    live: bool,
    fresh: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Runs views and flows, prints what the run did and returns the exit code.

    Raises:
        HeadraceError: as `replay`, or the data are to go to an object store.
    """
    if "://" in config.offline.data:
        raise HeadraceError(
            f"A replay writes into a folder, and its data are to go to {config.offline.data}. Name one with --data."
        )
    data, size = Path(config.offline.data), config.flow.batch_size or BATCH_SIZE
    change = config.flow.on_change
    summary = replay(file, parts, data, batch_size=size, live=live, fresh=fresh, quiet=quiet, on_change=change)
    if as_json:
        print_json(as_data(summary, str(data)))
    else:
        print_run(summary, [each for each in parts if not isinstance(each, Flow)], data)
    return INTERRUPTED if summary.stopped else DONE


def replay(
    file: ViewsFile,
    parts: Sequence[ViewDefinition | Flow],
    data: Path,
    *,
    batch_size: int,
    live: bool,
    fresh: bool,
    quiet: bool,
    on_change: OnChange = "refuse",
) -> Summary:
    """Runs views and flows into the data folder and shows how far it is on stderr.

    Raises:
        HeadraceError: as `run`; where the folder holds another definition of a view, with the way out.
    """
    if fresh:
        forget(data)
    remember(data, file)
    console = Console(stderr=True)
    with _shown(console, quiet) as progress:
        try:
            return run(parts, data, live=live, batch_size=batch_size, on_change=on_change, progress=progress)
        except (SnapshotError, SchemaMismatchError) as error:
            raise HeadraceError(
                f"{error} On the command line: headrace run {file.path.name} --on-change start, or backfill. To replay "
                f"from the beginning into {data}, and drop what is there: headrace run {file.path.name} --fresh"
            ) from error


def compiled(console: Console) -> None:
    """Sees to it that the kernels are there, with a word if it takes long."""
    if not is_warm():
        with console.status("compiling kernels, once after an installation (about half a minute)"):
            warm()


@contextmanager
def _shown(console: Console, quiet: bool) -> Iterator[Any]:
    if quiet:
        yield None
        return
    compiled(console)
    columns = (TextColumn("{task.description}"), BarColumn(), _Done(), _Speed(), Reached(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(step: Step) -> None:
            if step.source not in tasks:
                tasks[step.source] = bars.add_task(step.source, total=step.total)
            events = step.summary.read[step.source]
            reached = "" if step.newest_us is None else format_instant(step.newest_us)[:16]
            bars.update(tasks[step.source], completed=step.done, total=step.total, events=events, reached=reached)

        yield progress


class _Done(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields.get('events', 0):,} events")


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed
        return Text(f"{task.fields.get('events', 0) / seconds:,.0f}/s" if seconds else "", style="dim")


def as_data(summary: Summary, data: str) -> dict[str, Any]:
    """The summary for `--json`."""
    return {
        "read": dict(summary.read),
        "taken": summary.taken,
        "dead": dict(summary.dead),
        "duplicates": summary.duplicates,
        "online_rows": dict(summary.online_rows),
        "log_rows": dict(summary.log_rows),
        "tail_rows": dict(summary.tail_rows),
        "entities": summary.entities,
        "given": dict(summary.given),
        "seconds": round(summary.seconds, 3),
        "stopped": summary.stopped,
        "data": data,
    }


def print_run(summary: Summary, views: Sequence[ViewDefinition], data: Path) -> None:
    """What a run did and where it left it."""
    read = sum(summary.read.values())
    lines = _figures(summary, views)
    lines["online store"] = str(data / ONLINE)
    lines["log"] = str(data / LOG)
    if summary.dead:
        lines["dead letters"] = str(data / LOG / "dead_letters")
    title = "Stopped; the next run goes on from here" if summary.stopped else "Done"
    if not read and not summary.stopped:
        title = "Nothing new since the last run; --fresh replays from the beginning"
    show_figures(title, {**lines, **_question(views, str(data))})


def print_flow(summary: Summary, views: Sequence[ViewDefinition], settings: FlowSettings) -> None:
    """What a worker of a live flow did and where it left it."""
    lines = _figures(summary, views)
    lines["online store"] = redact(settings.online or f"{settings.data}/{ONLINE}")
    lines["log"] = f"{settings.data}/{LOG}"
    title = "Stopped; the next run goes on from here" if summary.stopped else "Done"
    show_figures(title, {**lines, **_question(views, settings.data)})


def _question(views: Sequence[ViewDefinition], data: str) -> dict[str, str]:
    if not views:
        return {}
    keys = " ".join(f"{key}=..." for key in views[0].entity.keys)
    return {"ask": f"headrace get {views[0].name} {keys}" + (f" --data {data}" if data != str(DATA) else "")}


def _figures(summary: Summary, views: Sequence[ViewDefinition]) -> dict[str, str]:
    read = sum(summary.read.values())
    speed = f" ({read / summary.seconds:,.0f}/s)" if summary.seconds else ""
    lines = {"events read": f"{read:,} in {summary.seconds:.1f} s{speed}", "taken": f"{summary.taken:,}"}
    if summary.duplicates:
        lines["duplicates"] = f"{summary.duplicates:,} seen before, dropped"
    for reason, count in sorted(summary.dead.items()):
        lines[f"dead: {reason}"] = f"{count:,}"
    for where, count in sorted(summary.drifts.items()):
        lines[f"drift: {where}"] = f"{count:,}"
    for view in views:
        name = view.name
        lines[name] = f"{summary.online_rows[name]:,} online rows, {summary.log_rows[name]:,} settled in the log"
        if summary.tail_rows[name]:
            lines[name] += f" and {summary.tail_rows[name]:,} provisional"
        lines[name] += f"; {summary.entities.get(name, 0):,} entities in memory"
    for step, rows in summary.given.items():
        lines[step] = f"{rows:,} row{'' if rows == 1 else 's'}"
    return lines
