"""`headrace materialize`: fills an online store from a log, with a bar for each view, and tells what it did."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from headrace.cli.bars import Reached
from headrace.cli.loading import ViewsFile
from headrace.cli.places import LOG, Online, online_of, part_of
from headrace.cli.show import print_json, show_figures
from headrace.features.errors import HeadraceError
from headrace.features.time import format_instant, instant_us
from headrace.features.views import ViewDefinition
from headrace.materialize.online import Filled, Step, fill, plan_fill
from headrace.ops.errors import DONE, INTERRUPTED
from headrace.ops.secrets import redact
from headrace.ops.settings import Configuration
from headrace.stores.errors import MissingStoreError, UnreachableError
from headrace.stores.memory import MemoryStore
from headrace.stores.offline import OfflineLog
from headrace.stores.online import PositionedStore
from headrace.stores.opening import open_online


@dataclass(frozen=True)
class Request:
    """What `headrace materialize` was asked.

    Attributes:
        views: names of views; none: all that have a log. log: where it is; None: in the data folder.
        from_us, to_us, everything, memory: as in `headrace.materialize.online.fill`.
    """

    file: ViewsFile
    views: tuple[str, ...]
    config: Configuration
    log: str | None
    from_us: int | None
    to_us: int | None
    everything: bool
    memory: str

    @property
    def chosen(self) -> tuple[ViewDefinition, ...]:
        """The views to fill. Raises HeadraceError where one has no log."""
        chosen = self.file.only(self.views)
        without = [view.name for view in chosen if not view.log]
        if not self.views:
            chosen = tuple(view for view in chosen if view.log)
        if without and (self.views or not chosen):
            raise HeadraceError(
                f"View '{without[0]}' has no log (log=False), so there is nothing to fill a store from. Let the flow "
                "write its rows again: `headrace run` notices a store that lost them."
            )
        return chosen

    @property
    def online(self) -> Online:
        """The store to fill: the one that was named, or that of the run."""
        online = self.config.online
        if online.url is not None:
            return Online(online.url, online.project, online.layout)
        found = online_of(self.config.offline.data, self.file.path, None)
        return Online(found.place, online.project, found.layout)

    def open_log(self) -> OfflineLog:
        """The log. Raises HeadraceError where there is none."""
        data = self.config.offline.data
        log = OfflineLog(part_of(data, LOG) if self.log is None else self.log)
        if not log.manifest().parts:
            where = f"--data {data}" if self.log is None else f"--log {self.log}"
            raise HeadraceError(
                f"There is no log at {log.place} ({where}). Name the folder or URL that a flow wrote: --data or --log."
            )
        return log


def until_us(text: str) -> int:
    """The instant that `--to` says, microseconds. Raises DefinitionError for what is no instant with a zone."""
    return time.time_ns() // 1000 if text == "now" else instant_us(text, "--to")


def fill_and_show(request: Request, *, dry_run: bool, quiet: bool, as_json: bool) -> int:
    """Fills the store, or says what that would do; returns the exit code.

    Raises:
        HeadraceError: as `fill`, or there is no log or no store.
    """
    if re.fullmatch(r"\d+(\.\d+)?\s*[KMGT]i?B", request.memory, re.IGNORECASE) is None:
        raise HeadraceError(f"--memory is {request.memory!r}, expected a size such as 512MB or 2GB.")
    views, online, log = request.chosen, request.online, request.open_log()
    clock = log.manifest().clock
    # Rows of a replay are of instants long past: they would expire as they are written.
    expire = clock is None or clock.kind == "wall"
    if dry_run:
        with _opened(online, expire, read_only=True) as store:
            planned = plan_fill(store, views, log=log, **_range(request))
        _show("Would write", planned, online, log, as_json, planned_only=True)
        return DONE
    with _opened(online, expire) as store, _shown(quiet) as progress:
        try:
            filled = fill(store, views, log=log, progress=progress, **_range(request))
        except KeyboardInterrupt:
            Console(stderr=True).print("Stopped; the next run goes on from here.")
            return INTERRUPTED
        except UnreachableError as error:
            raise HeadraceError(f"{error} What was written stays; the same command goes on from there.") from error
    nothing = not any(each.entities for each in filled)
    _show("Nothing new" if nothing else "Done", filled, online, log, as_json, planned_only=False)
    return DONE


def _range(request: Request) -> dict[str, Any]:
    return {
        "from_us": request.from_us,
        "to_us": request.to_us,
        "everything": request.everything,
        "memory": request.memory,
    }


@contextmanager
def _opened(online: Online, expire: bool, *, read_only: bool = False) -> Iterator[PositionedStore]:
    store: PositionedStore
    try:
        store = open_online(
            online.place, project=online.project, layout=online.layout, expire=expire, read_only=read_only
        )
    except MissingStoreError:  # only a store to be read must be there
        store = MemoryStore()
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[Step], None] | None]:
    if quiet:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Done(), _Speed(), Reached(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(step: Step) -> None:
            if step.view not in tasks:
                tasks[step.view] = bars.add_task(step.view, total=None)
            reached = "" if step.reached_us is None else format_instant(step.reached_us)[:16]
            bars.update(tasks[step.view], completed=step.done, total=step.total, reached=reached)

        yield progress


class _Done(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed):,}/{int(task.total or 0):,}")


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="dim")


def _show(
    title: str, filled: Sequence[Filled], online: Online, log: OfflineLog, as_json: bool, *, planned_only: bool
) -> None:
    place = redact(str(online.place))
    if as_json:
        print_json({"views": [_as_data(each, planned_only) for each in filled], "online": place, "log": str(log.place)})
        return
    lines = {each.view: _told(each, planned_only) for each in filled}
    provisional = [each for each in filled if each.settled_us is None or each.settled_us <= each.to_us]
    if provisional:
        settled = min((each.settled_us for each in provisional if each.settled_us is not None), default=None)
        until = "nothing yet" if settled is None else f"up to {format_instant(settled)}"
        lines["settled"] = f"{until}; rows after that can still change, and the next run writes them again"
    show_figures(title, {**lines, "online store": place, "log": str(log.place)})


def _told(each: Filled, planned_only: bool) -> str:
    since = ""
    if each.after_us is not None:
        since = f" that changed since {format_instant(each.after_us)}{', where the last run came to' * each.went_on}"
    entities = f"{each.entities:,} entities{since}, as of {format_instant(each.to_us)}"
    if planned_only:
        return entities
    newer = each.entities - each.written
    kept = f"; the store has {newer:,} newer" if newer else ""
    speed = f" ({each.entities / each.seconds:,.0f}/s)" if each.seconds and each.entities else ""
    return f"{entities}, in {each.seconds:.1f} s{speed}{kept}"


def _as_data(each: Filled, planned_only: bool) -> dict[str, Any]:
    found = {
        "view": each.view,
        "from": None if each.after_us is None else format_instant(each.after_us),
        "to": format_instant(each.to_us),
        "went_on": each.went_on,
        "settled": None if each.settled_us is None else format_instant(each.settled_us),
        "entities": each.entities,
    }
    return found if planned_only else {**found, "written": each.written, "seconds": round(each.seconds, 3)}
