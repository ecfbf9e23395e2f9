"""The command `headrace materialize` and its options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headrace.cli.options import AsJson, ConfigFile, Layout, Project, Quiet, ViewsPath, WrittenData


def materialize(
    file: ViewsPath,
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VIEW]...", help="Names of feature views.", show_default="all that have a log"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Only entities that changed after this instant (2026-01-01T09:00Z).",
            show_default="where the last run came to",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME|now",
            help="As of this instant; now: what has expired since the flow stood is written, too.",
            show_default="where the flow stands",
        ),
    ] = None,
    online: Annotated[
        str | None,
        typer.Option("--online", metavar="DIR|URL", help="The online store to fill.", show_default="that of the run"),
    ] = None,
    project: Project = None,
    layout: Layout = None,
    data: WrittenData = None,
    log: Annotated[
        str | None,
        typer.Option("--log", metavar="DIR|URL", help="The log to read.", show_default="that of the data folder"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Write every entity, also what an earlier run has written.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many entities would be written, and write nothing.")
    ] = False,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="Of DuckDB; what is more goes to the disk.")
    ] = "512MB",
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fill an online store from the log: of every entity the newest row.

    For a store that was lost, moved or left behind, or that no flow writes to. A later run writes what changed since;
    one that was stopped or killed goes on where it was. A flow may write meanwhile: an older row never covers a newer.

    - `headrace materialize views.py --online redis://localhost:6379/0`
    - `headrace materialize views.py driver_activity --to 2026-01-01T09:00Z --online then`
    """
    from headrace.cli.loading import load
    from headrace.cli.materializing import Request, fill_and_show, until_us
    from headrace.features.time import instant_us
    from headrace.ops.configuration import configuration_file, configure
    from headrace.ops.errors import DONE

    loaded = load(file)
    options: dict[str, dict[str, Any]] = {
        "online": {"url": online, "project": project, "layout": layout},
        "offline": {"data": data},
    }
    request = Request(
        file=loaded,
        views=tuple(only or ()),
        config=configure(configuration_file(file, config), options=options),
        log=log,
        from_us=None if since is None else instant_us(since, "--from"),
        to_us=None if until is None else until_us(until),
        everything=everything,
        memory=memory,
    )
    code = fill_and_show(request, dry_run=dry_run, quiet=quiet, as_json=as_json)
    if code != DONE:
        raise typer.Exit(code)
