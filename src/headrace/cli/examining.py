"""`headrace doctor`: findings as they come, a line each, and how to mend what is wrong below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from headrace.cli.flowing import flow_name
from headrace.cli.loading import ViewsFile, load
from headrace.cli.show import print_json
from headrace.features.errors import HeadraceError
from headrace.ops.checks.finding import Finding
from headrace.ops.configuration import Overrides, configuration_file, configure
from headrace.ops.doctor import examine
from headrace.ops.errors import DONE, FAILED
from headrace.ops.secrets import redact

STYLES = {"ok": "green", "warn": "bold yellow", "fail": "bold red"}


def doctor(file: Path | None, named: Path | None, options: Overrides, *, as_json: bool) -> int:
    """Examines a flow, tells the findings and returns the exit code: 1 when something is wrong."""
    console = Console(soft_wrap=True, highlight=False)
    found = []
    for finding in _findings(file, named, options):
        found.append(finding)
        if not as_json:
            console.print(_line(finding))
    wrong = sum(finding.level == "fail" for finding in found)
    doubtful = sum(finding.level == "warn" for finding in found)
    if as_json:
        print_json({"ok": not wrong, "findings": [asdict(finding) for finding in found]})
    else:
        console.print(f"{len(found)} looked at: {wrong} to mend, {doubtful} to think about")
    return FAILED if wrong else DONE


def _line(finding: Finding) -> Text:
    line = Text.assemble(
        (f"{finding.level:<5}", STYLES[finding.level]),
        (f"{finding.area:<14}", "dim"),
        (f"{finding.about}: " if finding.about else "", "bold"),
        finding.says,
    )
    if finding.mend:
        line.append(f"\n{'':19}-> {finding.mend}")
    return line


def _findings(file: Path | None, named: Path | None, options: Overrides) -> Iterator[Finding]:
    views: ViewsFile | None = None
    try:
        views = None if file is None else load(file)
    except HeadraceError as error:
        yield Finding("fail", "configuration", "views", redact(str(error)))
        return
    if views is not None:
        names = ", ".join(view.name for view in views.views)
        yield Finding("ok", "configuration", views.path.name, f"{len(views.views)} view(s): {names}")
    toml = configuration_file(file, named)
    try:
        config = configure(toml, options=options)
    except HeadraceError as error:
        yield Finding("fail", "configuration", "settings", redact(str(error)))
        return
    name = config.flow.name or (flow_name(file) if file is not None else "flow")
    group = config.flow.group or f"headrace.{name}"
    read = "no headrace.toml: variables and defaults" if toml is None else str(toml)
    yield Finding("ok", "configuration", "settings", f"{read}; flow '{name}', consumer groups '{group}.*'")
    yield from examine(config, () if views is None else views.views, name, group)
