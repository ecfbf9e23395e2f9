"""The command `headrace advise`."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import AsJson, ConfigFile, ViewsPath


def advise(
    file: ViewsPath,
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]...", help="Names of sources.", show_default="all")
    ] = None,
    target: Annotated[
        float, typer.Option("--target", metavar="SHARE", min=0.0, max=1.0, help="Share of events that may be late.")
    ] = 0.001,
    also: Annotated[
        list[str] | None,
        typer.Option("--lateness", metavar="TIME", help="A choice to judge as well, such as 45s; may be repeated."),
    ] = None,
    rows: Annotated[
        int,
        typer.Option("--rows", min=1, help="Rows to read: the first of a file or frame, the newest of a topic."),
    ] = 1_000_000,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure how late the events of a source come and recommend its `lateness`.

    For each choice: the events that would go to dead letter, judged partition by partition as a run judges them, how
    long the log would take to settle, and how many events would wait for it. Nothing is written.

    - `headrace advise views.py`
    - `headrace advise views.py rides --target 0.0001 --lateness 45s`
    """
    from headrace.cli.advising import advise_and_show
    from headrace.cli.loading import load
    from headrace.features.time import duration_us
    from headrace.ops.configuration import configuration_file, configure

    advise_and_show(
        load(file),
        tuple(only or ()),
        overrides=configure(configuration_file(file, config), options={}).kafka,
        target=target,
        also=[duration_us(each, "--lateness") for each in also or ()],
        rows=rows,
        as_json=as_json,
    )
