"""The command `headrace monitor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.options import AsJson, ConfigFile, ViewsPath, WrittenData

ALARM = 3
"""Exit code where a feature is beyond a limit."""


def monitor(
    file: ViewsPath,
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[VIEW]...", help="These only.", show_default="all")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", metavar="PARQUET", help="The training set to compare with; columns named like features."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Rows after this instant.", show_default="all")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Rows up to this instant.", show_default="all")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures, too.")
    ] = None,
    psi: Annotated[
        float, typer.Option("--psi", metavar="LIMIT", help="Alarm where the population stability index is larger.")
    ] = 0.25,
    ks: Annotated[
        float | None,
        typer.Option(
            "--ks", metavar="LIMIT", help="Alarm where the Kolmogorov-Smirnov statistic is larger.", show_default="none"
        ),
    ] = None,
    missing: Annotated[
        float,
        typer.Option(
            "--missing", metavar="LIMIT", help="Alarm where the missing share is larger by this than the reference's."
        ),
    ] = 0.1,
    data: WrittenData = None,
    served: Annotated[
        str | None,
        typer.Option("--served", metavar="DIR|URL", help="Look at the answers of a feature log, not at the log."),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Look at the values of features: how many are missing, how they are distributed, and whether they have moved away
    from those of the training set.

    It looks at the settled log, or with --served at what models were given. The exit code is 3 where a feature is
    beyond a limit, 0 where none is: run it on a schedule.

    - `headrace monitor views.py --reference training.parquet --html report.html`
    """
    from headrace.cli.loading import load
    from headrace.cli.monitoring import Request, monitor_and_show
    from headrace.materialize.monitoring import Limits
    from headrace.ops.configuration import configuration_file, configure

    loaded = load(file)
    options: dict[str, dict[str, Any]] = {"offline": {"data": data}}
    place = configure(configuration_file(file, config), options=options).offline.data
    limits = Limits(psi=psi, ks=ks, missing=missing)
    request = Request(loaded, tuple(only or ()), place, served, reference, (since, until), limits, html)
    if monitor_and_show(request, as_json=as_json):
        raise typer.Exit(ALARM)
