"""The commands `headrace feast plan` and `headrace feast apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import AsJson
from headrace.cli.project import DATA

feast_app = typer.Typer(
    help="""Headrace's views in a Feast repository: what would change there, and changing it.

    Entities, the offline log as FileSource, the stream as PushSource, feature views and feature services. What others
    have put into the repository is never changed.
    """,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

CHANGES = 3
"""Exit code of `headrace feast plan --check` when something would change; 1 is an error, 2 a wrong command line."""

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Python files with your feature views.", show_default=False)
]
Repo = Annotated[
    Path, typer.Option("--repo", metavar="DIR", help="Folder of the Feast repository, with its feature_store.yaml.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="DIR|URL", envvar="HEADRACE_DATA", help="Where `headrace run` writes.", show_default=str(DATA)
    ),
]
Log = Annotated[
    str | None,
    typer.Option("--log", metavar="DIR|URL", help="The offline log.", show_default="that of the data folder"),
]


@feast_app.command()
def plan(
    files: Files,
    repo: Repo = Path("."),
    data: Data = None,
    log: Log = None,
    check: Annotated[
        bool, typer.Option("--check", help=f"Exit code {CHANGES} when something would change, for CI.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what `headrace feast apply` would change: added, changed feature by feature, removed. Changes nothing.

    - `headrace feast plan views.py --repo feature_repo`
    """
    from headrace.cli.feasting import planned, show_plan

    found, _ = planned(files, repo, data, log)
    show_plan(found, as_json=as_json)
    if check and found.changes:
        raise typer.Exit(CHANGES)


@feast_app.command()
def apply(
    files: Files,
    repo: Repo = Path("."),
    data: Data = None,
    log: Log = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register the views and services of files in a Feast repository. Shows the plan and asks first.

    Doing it again changes nothing. What a file had registered and has no longer is removed from the registry; rows in
    the online store and the log stay.

    - `headrace feast apply views.py --repo feature_repo`
    """
    from headrace.cli.feasting import planned, show_plan
    from headrace.features.errors import HeadraceError

    if as_json and not yes:
        raise HeadraceError("--json asks no questions. Add --yes, or look first with `headrace feast plan --json`.")
    found, store = planned(files, repo, data, log)
    show_plan(found, as_json=as_json)
    if not found.changes:
        return
    if not yes and not typer.confirm("Apply?", default=False, err=True):
        raise typer.Exit(1)
    from headrace.materialize.feast.planning import apply_plan

    apply_plan(found, store)
    if not as_json:
        typer.echo(f"Applied to project {found.project}.")
