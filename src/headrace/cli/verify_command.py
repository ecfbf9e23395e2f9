"""The command `headrace verify`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headrace.cli.options import AsJson, ConfigFile, ViewsPath, WrittenData

DIFFERENT = 3
"""Exit code where values differ."""


def verify(
    file: ViewsPath,
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[VIEW]...", help="These only.", show_default="all")
    ] = None,
    sample: Annotated[
        str,
        typer.Option("--sample", metavar="SHARE", help="Of the entities, such as 1% or 0.01; the same ones each time."),
    ] = "1%",
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute/--no-recompute", help="Compute the sample anew from the source: files, frames, topics."
        ),
    ] = True,
    extra: Annotated[
        bool, typer.Option("--extra", help="Look for online rows that the log does not have; goes through all keys.")
    ] = False,
    data: WrittenData = None,
    online: Annotated[
        str | None,
        typer.Option("--online", metavar="DIR|URL", help="The online store.", show_default="that of the run"),
    ] = None,
    served: Annotated[
        str | None,
        typer.Option(
            "--served", metavar="DIR|URL", help="A feature log: compare answers, too.", show_default="that of [serve]"
        ),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare what lies online, in the log, what was served, and what comes out when it is computed anew, for a sample.

    It says per feature how many values differ and by how much, and which rows are missing or too many. A flow may run
    meanwhile: an entity with events that the log does not have yet is left undecided. The exit code is 3 where anything
    differs, 0 where nothing does: run it on a schedule.

    - `headrace verify views.py --sample 5%`
    """
    from headrace.cli.loading import load
    from headrace.cli.verifying import Request, share_of, verify_and_show
    from headrace.ops.configuration import configuration_file, configure

    loaded = load(file)
    options: dict[str, dict[str, Any]] = {"online": {"url": online}, "offline": {"data": data}}
    settings = configure(configuration_file(file, config), options=options)
    feature_log = served or settings.serve.feature_log
    request = Request(loaded, tuple(only or ()), settings, share_of(sample), recompute, extra, feature_log)
    if verify_and_show(request, as_json=as_json):
        raise typer.Exit(DIFFERENT)
