"""`headrace run`: a replay with a progress bar, and what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from headrace.cli.loading import ViewsFile
from headrace.cli.project import DATA, forget, remember
from headrace.cli.show import show_figures
from headrace.features.errors import HeadraceError
from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition
from headrace.flows.recording import LOG, ONLINE, Summary
from headrace.flows.runner import Step, run
from headrace.flows.snapshot import SnapshotError
from headrace.flows.warm import is_warm, warm
from headrace.stores.errors import SchemaMismatchError


def replay(
    file: ViewsFile,
    views: Sequence[ViewDefinition],
    data: Path,
    *,
    batch_size: int,
    live: bool,
    fresh: bool,
    quiet: bool,
) -> Summary:
    """Runs the views into the data folder and shows how far it is on stderr.

    Raises:
        HeadraceError: as `run`; where the folder holds another definition of a view, with the way out.
    """
    if fresh:
        forget(data)
    remember(data, file)
    console = Console(stderr=True)
    with _shown(console, quiet) as progress:
        try:
            return run(views, data, live=live, batch_size=batch_size, progress=progress)
        except (SnapshotError, SchemaMismatchError) as error:
            raise HeadraceError(
                f"{error} To replay from the beginning into {data}, and drop what is there: "
                f"headrace run {file.path.name} --fresh"
            ) from error


@contextmanager
def _shown(console: Console, quiet: bool) -> Iterator[Any]:
    if quiet:
        yield None
        return
    if not is_warm():
        with console.status("compiling kernels, once after an installation (about half a minute)"):
            warm()
    columns = (TextColumn("{task.description}"), BarColumn(), _Done(), _Speed(), _Reached(), TimeElapsedColumn())
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


class _Reached(ProgressColumn):
    """The event time up to which the source has been read."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("reached", ""), style="cyan")


def as_data(summary: Summary, data: Path) -> dict[str, Any]:
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
        "seconds": round(summary.seconds, 3),
        "stopped": summary.stopped,
        "data": str(data),
    }


def print_run(summary: Summary, views: Sequence[ViewDefinition], data: Path) -> None:
    """What a run did and where it left it."""
    read = sum(summary.read.values())
    speed = f" ({read / summary.seconds:,.0f}/s)" if summary.seconds else ""
    lines = {"events read": f"{read:,} in {summary.seconds:.1f} s{speed}", "taken": f"{summary.taken:,}"}
    if summary.duplicates:
        lines["duplicates"] = f"{summary.duplicates:,} seen before, dropped"
    for reason, count in sorted(summary.dead.items()):
        lines[f"dead: {reason}"] = f"{count:,}"
    for view in views:
        name = view.name
        lines[name] = f"{summary.online_rows[name]:,} online rows, {summary.log_rows[name]:,} settled in the log"
        if summary.tail_rows[name]:
            lines[name] += f" and {summary.tail_rows[name]:,} provisional"
        lines[name] += f"; {summary.entities.get(name, 0):,} entities in memory"
    lines["online store"] = str(data / ONLINE)
    lines["log"] = str(data / LOG)
    if summary.dead:
        lines["dead letters"] = str(data / LOG / "dead_letters")
    title = "Stopped; the next run goes on from here" if summary.stopped else "Done"
    if not read and not summary.stopped:
        title = "Nothing new since the last run; --fresh replays from the beginning"
    keys = " ".join(f"{key}=..." for key in views[0].entity.keys)
    lines["ask"] = f"headrace get {views[0].name} {keys}" + (f" --data {data}" if data != DATA else "")
    show_figures(title, lines)
