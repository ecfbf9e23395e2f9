"""`headrace verify`: runs the comparisons of a views file and shows what they found."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headrace.cli.loading import ViewsFile
from headrace.cli.places import LOG, Online, online_of, part_of
from headrace.cli.show import print_json
from headrace.features.errors import HeadraceError
from headrace.features.stream_source import StreamSource
from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition
from headrace.materialize.comparing import Check
from headrace.materialize.verifying import check_log, check_online
from headrace.ops.settings import Configuration
from headrace.stores.offline import OfflineLog
from headrace.stores.opening import open_online

REPLAYED = ("file", "frame")
"""Kinds of sources that can be read again from their beginning."""
STREAMS = "streams"
"""The folder in which views over streams are computed anew."""


@dataclass(frozen=True)
class Request:
    """What `headrace verify` was asked; `share` is of the entities, 0 to 1. served: the feature log, None: none."""

    file: ViewsFile
    views: tuple[str, ...]
    config: Configuration
    share: float
    recompute: bool
    extra: bool
    served: str | None


def share_of(text: str) -> float:
    """A share from words.

    >>> share_of("5%"), share_of("0.01")
    (0.05, 0.01)
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise HeadraceError(f"--sample is {text!r}, expected a share of the entities such as 1% or 0.01, at most 100%.")
    return share


def verify_and_show(request: Request, *, as_json: bool) -> bool:
    """Compares, prints what was found, and returns whether anything differs.

    Raises:
        HeadraceError: there is no log or no online store, or a place holds other definitions.
    """
    views = [view for view in request.file.only(request.views) if view.log]
    if not views:
        raise HeadraceError("No view here has a log (log=False), so there is nothing to compare with.")
    data = request.config.offline.data
    log = OfflineLog(part_of(data, LOG))
    if not log.manifest().parts:
        raise HeadraceError(f"There is no log at {log.place}. Run `headrace run {request.file.path.name}` first.")
    online = _online(request)
    checks: list[Check] = []
    store = open_online(online.place, project=online.project, layout=online.layout, read_only=True)
    try:
        checks += [check_online(view, store, log, share=request.share, extra=request.extra) for view in views]
    finally:
        store.close()
    left: dict[str, str] = {}
    if request.recompute:
        checks += _recomputed(request, views, log, left)
    unserved: dict[str, str] = {}
    if request.served is not None:
        checks += _served(request, request.served, views, log, unserved)
    if as_json:
        print_json(
            {
                "share": request.share,
                "checks": [_as_data(check) for check in checks],
                "not_recomputed": left,
                "not_compared": unserved,
            }
        )
    else:
        _show(checks, left, unserved)
    return any(check.differences for check in checks)


def _online(request: Request) -> Online:
    online = request.config.online
    if online.url is not None:
        return Online(online.url, online.project, online.layout)
    return online_of(request.config.offline.data, request.file.path, None)


def _recomputed(
    request: Request, views: Sequence[ViewDefinition], log: OfflineLog, left: dict[str, str]
) -> list[Check]:
    """The log beside what comes out anew; `left` gets the views of which nothing does, and why."""
    checks = []
    with tempfile.TemporaryDirectory(prefix="headrace-verify-") as folder:
        begins = _computed_anew(request, views, folder, left)
        for view in views:
            over = view.source.kind == "stream"
            other = OfflineLog((Path(folder) / STREAMS if over else Path(folder)) / LOG)
            if view.name in begins and view.name in other.manifest().views:
                checks.append(check_log(view, log, other, share=request.share, from_us=begins[view.name]))
    return checks


def _computed_anew(
    request: Request, views: Sequence[ViewDefinition], folder: str, left: dict[str, str]
) -> dict[str, int | None]:
    """Makes a log of the sample in `folder`. By view, the instant up to which it does not count."""
    begins: dict[str, int | None] = {}
    again = [view for view in views if view.source.kind in REPLAYED]
    over = [view for view in views if view.source.kind == "stream" and _can_be_replayed(view)]
    if again:
        from headrace.flows.backfill import backfill

        backfill(again, folder, sample=request.share)
        begins.update(dict.fromkeys((view.name for view in again), None))
    if over:
        from headrace.flows.graph.viewing import without_sinks
        from headrace.flows.runner import run

        run(without_sinks(over), Path(folder) / STREAMS)
        begins.update(dict.fromkeys((view.name for view in over), None))
    live = [view for view in views if view.source.kind == "kafka"]
    if live:
        from headrace.cli.flowing import flow_settings
        from headrace.flows.worker.recomputing import recompute

        made = recompute(live, flow_settings(request.file, request.config), folder, share=request.share)
        begins.update(made.begins)
        left.update(made.left)
    left.update({view.name: _why_left(view) for view in views if view not in (*again, *over, *live)})
    return begins


def _why_left(view: ViewDefinition) -> str:
    """Why nobody computes a view anew."""
    if any(root.kind == "kafka" for root in view.source.roots):
        return "its rows come out of the steps of a flow over topics, which are not run again"
    return "its source cannot be read again"


def _can_be_replayed(view: ViewDefinition) -> bool:
    """Whether all sources of the flow of a view over a stream can be read again."""
    assert isinstance(view.source, StreamSource)
    return all(source.kind in REPLAYED for source in view.source.stream.flow.sources)


def _served(
    request: Request, place: str, views: Sequence[ViewDefinition], log: OfflineLog, unserved: dict[str, str]
) -> list[Check]:
    """The answers of a feature log beside the log; `unserved` gets those that cannot be compared, and why."""
    from headrace.materialize.served import check_served
    from headrace.serving.logged_answers import logged_answers

    answers, others = logged_answers(place, request.file.services, views)
    unserved.update(others)
    checks = []
    names = {view.name for view in views}
    for each in answers:
        features = [feature for feature in each.features if feature.view.name in names]
        checks += check_served(features, each.tables(), log, share=request.share, place=f"served ({each.shown})")
    thinned = {feature.view.name for each in answers for feature in each.features if feature.view.log_every_us}
    unserved.update(dict.fromkeys(sorted(thinned), "its log is thinned (log_every) and does not say what was between"))
    if not answers and not others:
        unserved[place] = "no answers are there"
    return checks


def _as_data(check: Check) -> dict[str, Any]:
    return {**asdict(check), "differences": check.differences}


def _show(checks: Sequence[Check], not_recomputed: Mapping[str, str], unserved: Mapping[str, str]) -> None:
    console = Console(highlight=False)
    for check in checks:
        found = f"{check.entities:,} entities, {check.rows:,} rows"
        if check.undecided:
            found += f", {check.undecided:,} undecided (newer than the log)"
        if check.behind:
            found += f", {check.behind:,} a moment behind"
        if check.maybe_later:
            found += f", {check.maybe_later:,} that events may have come after"
        if check.from_us is not None:
            found += f", after {format_instant(check.from_us)}"
        verdict = "[green]equal[/]" if not check.differences else f"[red]{check.differences:,} differences[/]"
        console.print(f"{check.view}: {check.places[0]} beside {check.places[1]}: {found}: {verdict}", soft_wrap=True)
        if check.missing or check.extra:
            console.print(f"    missing {check.missing:,}, extra {check.extra:,}: {check.example}", soft_wrap=True)
        wrong = {name: each for name, each in check.features.items() if each.mismatched}
        if wrong:
            table = Table("feature", "compared", "differ", "largest difference", "such as", box=None, pad_edge=False)
            for name, each in wrong.items():
                largest = "" if each.largest is None else f"{each.largest:.6g}"
                table.add_row(name, f"{each.compared:,}", f"{each.mismatched:,}", largest, each.example)
            console.print(table)
    for name, why in not_recomputed.items():
        console.print(f"{name}: not computed anew: {why}", soft_wrap=True)
    for name, why in unserved.items():
        console.print(f"{name}: answers not compared: {why}", soft_wrap=True)
