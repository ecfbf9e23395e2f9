"""The command `headrace prepare`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headrace.cli.options import AsJson, ConfigFile, Quiet, ViewsPath, WrittenData


def prepare(
    file: ViewsPath,
    only: Annotated[
        list[str] | None,
        typer.Option("--view", metavar="VIEW", help="As of `headrace run`; may be repeated.", show_default="all"),
    ] = None,
    data: WrittenData = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Read the history of what is new in a changed file, beside the live flow that still runs with the old one.

    The flow goes on meanwhile, and its rows stay fresh. When this is done, restart it with the changed file and
    `--on-change backfill`: it reads only what came since, and shows the change at once. Again is fine: it goes on from
    what the last preparation has read.

    - `headrace prepare views.py`
    - `headrace run views.py --on-change backfill`
    """
    from headrace.cli.flowing import configured, is_live
    from headrace.cli.loading import load
    from headrace.cli.preparing import Request, prepare_and_show
    from headrace.ops.errors import DONE

    loaded = load(file)
    chosen = loaded.only(only or ())
    is_live(chosen, file.name)
    options: dict[str, dict[str, Any]] = {"offline": {"data": data}}
    code = prepare_and_show(Request(loaded, chosen, configured(file, config, options)), quiet=quiet, as_json=as_json)
    if code != DONE:
        raise typer.Exit(code)
