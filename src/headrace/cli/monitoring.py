"""`headrace monitor`: looks at the features of a views file and shows what was found."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from headrace.cli.loading import ViewsFile
from headrace.cli.places import LOG, part_of
from headrace.cli.show import print_json
from headrace.features.errors import HeadraceError
from headrace.features.time import instant_us
from headrace.features.views import ViewDefinition
from headrace.flows.drift import DRIFT, Drift, drifts_in
from headrace.materialize.monitoring import Limits, Reference, Report, joined, monitor_log, monitor_tables
from headrace.ops.monitor_page import page
from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.commits import parts
from headrace.stores.offline import OfflineLog


@dataclass(frozen=True)
class Request:
    """What `headrace monitor` was asked. data: of the run. served: a feature log. span: from and to, as given."""

    file: ViewsFile
    views: tuple[str, ...]
    data: str
    served: str | None
    reference: Path | None
    span: tuple[str | None, str | None]
    limits: Limits
    html: Path | None


def monitor_and_show(request: Request, *, as_json: bool) -> bool:
    """Looks, prints what was found, writes the page, and returns whether a feature is beyond a limit.

    Raises:
        HeadraceError: there is nothing to look at, or the reference cannot be used.
    """
    views = request.file.only(request.views)
    reference = None if request.reference is None else Reference(request.reference)
    since, until = (None if each is None else instant_us(each, what) for each, what in
                    zip(request.span, ("--from", "--to"), strict=True))  # fmt: skip
    drifts: list[Drift] = []
    if request.served is not None:
        report = _served(request, request.served, views, reference, since, until)
    else:
        logged = [view for view in views if view.log]
        if not logged:
            raise HeadraceError("No view here has a log (log=False). Look at what was served: --served DIR.")
        log = OfflineLog(part_of(request.data, LOG))
        if not log.manifest().parts:
            raise HeadraceError(f"There is no log at {log.place}. Run `headrace run {request.file.path.name}` first.")
        drifts = [each for each in _drifts(part_of(request.data, LOG)) if each.view in {view.name for view in views}]
        report = joined([
            monitor_log(view, log, reference, from_us=since, to_us=until, limits=request.limits) for view in logged
        ])  # fmt: skip
    if request.html is not None:
        _write(request.html, page(report, time.time_ns() // 1000, drifts))
    if as_json:
        print_json(_as_data(report, drifts))
    else:
        _show(report, drifts, request.html)
    return bool(report.alarms)


def _served(
    request: Request, place: str, views: Sequence[ViewDefinition], reference: Reference | None, since: int | None,
    until: int | None,
) -> Report:  # fmt: skip
    """What was served of these views, by service or list of features."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from headrace.serving.logged_answers import LoggedAnswers, logged_answers

    def tables(answers: LoggedAnswers) -> Any:
        for table in answers.tables():
            at = table.column("served_at").cast(pa.int64())
            inside = pc.greater(at, -(2**62) if since is None else since)
            if until is not None:
                inside = pc.and_(inside, pc.less_equal(at, until))
            yield table.filter(inside).flatten()

    answers, left = logged_answers(place, request.file.services, views, since_us=since)
    names = {view.name for view in views}
    reports = []
    for each in answers:
        features = {
            f"features.{feature.name}": (feature.view.name, feature.feature, feature.view.dtypes[feature.feature])
            for feature in each.features
            if feature.view.name in names
        }
        reports.append(
            monitor_tables(f"answers of {each.shown}", features, tables(each), reference, limits=request.limits)
        )
    if not reports:
        why = "".join(f" {shown}: {reason}." for shown, reason in left.items())
        raise HeadraceError(f"The feature log at {place} has no answers with these views.{why}")
    return joined(reports)


def _drifts(log: str | Path) -> list[Drift]:
    """What the flow's detectors found, of all parts, oldest first."""
    found = []
    for part in parts(log):
        checkpoint = read_checkpoint(log, part)
        if checkpoint is not None:
            for name, chain in checkpoint.snapshots.items():
                if name.endswith(f".{DRIFT}"):
                    found += drifts_in(chain[-1])
    return sorted(found, key=lambda each: each.at_us)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise HeadraceError(f"The page cannot be written to {path}: {error}. Make its folder first.") from error


def _as_data(report: Report, drifts: Sequence[Drift]) -> dict[str, Any]:
    features = []
    for each in report.features:
        shares = {"missing_share": each.seen.missing_share}
        if each.reference is not None:
            shares["reference_missing_share"] = each.reference.missing_share
        features.append({**asdict(each), **shares})
    return {
        "source": report.source,
        "reference": report.reference,
        "alarms": report.alarms,
        "features": features,
        "not_compared": dict(report.left),
        "drifts": [asdict(each) for each in drifts],
    }


def _show(report: Report, drifts: Sequence[Drift], html: Path | None) -> None:
    console = Console(highlight=False)
    table = Table(
        Column("feature", no_wrap=True), "rows", "missing", "median", "PSI", "KS", "", box=None, pad_edge=False
    )
    for each in report.features:
        median = "" if each.quantiles is None else f"{each.quantiles['p50']:.6g}"
        psi, ks = ("" if value is None else f"{value:.3f}" for value in (each.psi, each.ks))
        alarm = "[red]beyond a limit[/]" if each.alarms else ""
        name = f"{each.view}.{each.feature}"
        table.add_row(name, f"{each.seen.rows:,}", f"{each.seen.missing_share:.1%}", median, psi, ks, alarm)
    console.print(table)
    for each in report.features:
        for alarm in each.alarms:
            console.print(f"{each.view}.{each.feature}: {alarm}", soft_wrap=True)
    for name, why in report.left.items():
        console.print(f"{name}: not compared: {why}", soft_wrap=True)
    if drifts:
        console.print(f"{len(drifts):,} drifts found by the flow's detectors; --json lists them", soft_wrap=True)
    if html is not None:
        console.print(f"page: {html}", soft_wrap=True)
