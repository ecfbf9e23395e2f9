"""`headrace prepare`: a bar for each part, and what was prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from headrace.cli.flowing import flow_settings
from headrace.cli.loading import ViewsFile
from headrace.cli.show import print_json
from headrace.features.views import ViewDefinition
from headrace.flows.worker.preparing import PreparedPart, prepare
from headrace.ops.errors import DONE, INTERRUPTED
from headrace.ops.settings import Configuration


@dataclass(frozen=True)
class Request:
    """What `headrace prepare` was asked."""

    file: ViewsFile
    views: Sequence[ViewDefinition]
    config: Configuration


def prepare_and_show(request: Request, *, quiet: bool, as_json: bool) -> int:
    """Prepares, prints what was done and returns the exit code.

    Raises:
        HeadraceError: as `headrace.flows.worker.preparing.prepare`.
    """
    console = Console(stderr=True)
    try:
        with _shown(console, quiet) as progress:
            parts = prepare(request.views, flow_settings(request.file, request.config), progress=progress)
    except KeyboardInterrupt:
        console.print("Stopped; parts that were ready stay so, and the next `headrace prepare` goes on from them.")
        return INTERRUPTED
    if as_json:
        print_json({"parts": [asdict(part) for part in parts]})
    else:
        _show(request.file.path.name, parts)
    return DONE


def _show(file: str, parts: Sequence[PreparedPart]) -> None:
    console = Console(highlight=False)
    if not parts:
        console.print("Nothing to prepare: no part of the flow that has a checkpoint lacks state of these views.")
        return
    for part in parts:
        console.print(
            f"{part.part}: {', '.join(part.views)}: {part.read:,} messages read, {part.nbytes:,} bytes of state",
            soft_wrap=True,
        )
    console.print(f"Ready. Restart the flow: headrace run {file} --on-change backfill", soft_wrap=True)


@contextmanager
def _shown(console: Console, quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    if quiet:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(part: str, read: int, total: int) -> None:
            if part not in tasks:
                tasks[part] = bars.add_task(f"reading {part}", total=total)
            bars.update(tasks[part], completed=read, total=max(total, read))

        yield progress
