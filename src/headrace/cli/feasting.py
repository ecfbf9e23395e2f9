"""`headrace feast`: the plan of some files and a Feast repository, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from headrace.cli.flowing import configured
from headrace.cli.loading import load
from headrace.cli.places import LOG, is_url, part_of
from headrace.cli.show import print_json
from headrace.features.errors import DefinitionError
from headrace.features.views import ViewDefinition
from headrace.stores.layout import row_layout
from headrace.stores.offline import OfflineLog

if TYPE_CHECKING:
    from headrace.materialize.feast.planning import Change, Difference, Plan

_SIGNS = {"add": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}


def planned(files: Sequence[Path], repo: Path, data: str | None, log: str | None) -> tuple[Plan, Any]:
    """What would change, and Feast's store to change it in.

    Raises:
        HeadraceError: as `load` and `headrace.materialize.feast.planning.plan`.
    """
    names = [file.name for file in files]
    if len(set(names)) < len(names):
        raise DefinitionError(
            f"Two files are named {max(names, key=names.count)}; what each defines is remembered by its file's name. "
            "Rename one of them."
        )
    loaded = [load(file) for file in files]
    root = part_of(configured(files[0], None, {"offline": {"data": data}}).offline.data, LOG) if log is None else log
    place = str(root) if is_url(root) else str(Path(root).resolve())
    from headrace.materialize.feast.planning import plan

    return plan(
        repo,
        {each.path.name: each.views for each in loaded},
        {each.path.name: each.services for each in loaded},
        log=place,
        notes=_unlike([view for each in loaded for view in each.views], place),
    )


def _unlike(views: Sequence[ViewDefinition], place: str) -> list[str]:
    """What the log lacks: Feast reads of it only what a flow of these definitions has written."""
    held = OfflineLog(place if is_url(place) else Path(place)).manifest().views
    notes = []
    for view in views:
        if view.log and view.name not in held:
            notes.append(
                f"{view.name}: the log at {place} has no rows of it yet; Feast reads nothing before a flow writes"
            )
        elif view.log and (differences := held[view.name].layout.differences(row_layout(view))):
            notes.append(f"{view.name}: the log is of another definition: {'; '.join(differences)}; run its flow")
    return notes


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """On stdout: a line per object, below it what is added, changed and removed of it."""
    if as_json:
        print_json({"project": plan.project, "changes": [*map(_data, plan.changes)], "notes": list(plan.notes)})
        return
    console = Console(soft_wrap=True, highlight=False)
    for change in plan.changes:
        sign, color = _SIGNS[change.action]
        console.print(Text(f"{sign} {change.kind} {change.name}", style=f"bold {color}"))
        for each in change.differences:
            console.print(_line(each))
    for note in plan.notes:
        console.print(Text(f"! {note}"))
    count = {action: sum(change.action == action for change in plan.changes) for action in _SIGNS}
    told = f"{count['add']} to add, {count['change']} to change, {count['remove']} to remove"
    console.print(f"Project {plan.project}: {told if plan.changes else 'nothing to change'}.")


def _line(each: Difference) -> Text:
    if each.before is None:
        return Text(f"    + {each.fact}: {each.after}", style="green")
    if each.after is None:
        return Text(f"    - {each.fact}: {each.before}", style="red")
    return Text(f"    ~ {each.fact}: {each.before} -> {each.after}", style="yellow")


def _data(change: Change) -> dict[str, Any]:
    differences = [{"fact": each.fact, "before": each.before, "after": each.after} for each in change.differences]
    return {"action": change.action, "kind": change.kind, "name": change.name, "differences": differences}
