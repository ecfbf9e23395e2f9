"""The commands of `headrace`: what each takes, in the order a newcomer meets them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from headrace.cli.advise_command import advise
from headrace.cli.backfill_command import backfill
from headrace.cli.failing import told
from headrace.cli.feast_command import feast_app
from headrace.cli.materialize_command import materialize
from headrace.cli.monitor_command import monitor
from headrace.cli.options import AsJson, ViewsPath
from headrace.cli.prepare_command import prepare
from headrace.cli.project import DATA, asked_view
from headrace.cli.run_command import run
from headrace.cli.serve_command import serve
from headrace.cli.size_command import size
from headrace.cli.verify_command import verify
from headrace.version import VERSION

GUIDE = """Features for machine learning from event streams: define them in a Python file, replay them, ask for them.

**Start here**

    headrace init rides              a project that runs as it is
    cd rides
    headrace views views.py          what it defines, and how exact it is
    headrace run views.py            replays its events into ./headrace-data
    headrace get driver_activity driver_id=1
    headrace get driver_activity driver_id=1 --at 2026-01-01T09:00Z
    headrace history driver_activity driver_id=1
    headrace serve views.py          answers lookups over HTTP

A value falls as time passes with no new event, and a question about the past sees nothing from after it. Every command
explains itself: `headrace run --help`.
"""


class Commands(typer.core.TyperGroup):
    """Runs a command and tells its errors without a traceback. `--debug` may stand anywhere."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--debug"] * ("--debug" in args) + [word for word in args if word != "--debug"])

    def invoke(self, ctx: Any) -> Any:
        with told(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    help=GUIDE,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataFolder = Annotated[
    str,
    typer.Option(
        "--data", metavar="DIR|URL", envvar="HEADRACE_DATA", help="Where the log, checkpoints and online store are."
    ),
]
ViewName = Annotated[str, typer.Argument(metavar="VIEW", help="Name of a feature view.", show_default=False)]
Keys = Annotated[
    list[str], typer.Argument(metavar="KEY=VALUE", help="The entity, by all of its keys.", show_default=False)
]
FromFile = Annotated[
    Path | None,
    typer.Option(
        "--file", help="File that defines the view.", show_default="that of the last run into the data folder"
    ),
]


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"headrace {VERSION}")
        raise typer.Exit


@app.callback()
def top(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """What every command has; `Commands` reads `debug`."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write it.", show_default="here")] = Path(
        "."
    ),
) -> None:
    """Write a starter project: feature views, a day of events, tests and a README.

    It runs as it is; change it into yours.
    """
    from headrace.cli.starter import write_starter

    for path in write_starter(folder):
        typer.echo(f"wrote {path}")
    step = "" if folder == Path(".") else f"cd {folder} && "
    typer.echo(f"Next: {step}headrace run views.py")


@app.command()
def views(file: ViewsPath, as_json: AsJson = False) -> None:
    """Show the feature views of a file: what each feature computes, over which window, how exactly; its services."""
    from headrace.cli.loading import load
    from headrace.cli.show import print_json, service_as_data, view_as_data

    found = load(file)
    if as_json:
        print_json([*map(view_as_data, found.views), *map(service_as_data, found.services)])
    else:
        typer.echo("\n\n".join([*(view.describe() for view in found.views), *map(str, found.services)]))


@app.command()
def graph(
    file: ViewsPath,
    svg: Annotated[
        Path | None,
        typer.Option(
            "--svg", metavar="OUT", help="Write an SVG picture there instead.", show_default="Mermaid on stdout"
        ),
    ] = None,
) -> None:
    """Draw what a file computes: sources, steps of flows, views, and where rows go.

    As a Mermaid flowchart, which GitHub and most editors show as a picture in a Markdown block of the language
    `mermaid`; or as an SVG file.
    """
    from headrace.cli.graphing import mermaid, picture
    from headrace.cli.loading import load

    shown = picture(load(file, or_flows=True))
    if svg is None:
        typer.echo(mermaid(shown))
        return
    from headrace.cli.svg import svg as drawn

    try:
        svg.write_text(drawn(shown), encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(
            f"{svg} cannot be written: {error.strerror}. Name a file in a folder that is there."
        ) from None
    typer.echo(f"wrote {svg}")


app.command()(run)
app.command()(backfill)
app.command()(serve)
app.command()(materialize)
app.add_typer(feast_app, name="feast")
app.command()(prepare)
app.command()(verify)
app.command()(monitor)
app.command()(advise)
app.command()(size)


@app.command()
def get(
    view: ViewName,
    keys: Keys,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Ask as of this instant (2026-01-01T09:00Z).", show_default="now"),
    ] = None,
    data: DataFolder = str(DATA),
    online: Annotated[
        str | None,
        typer.Option("--online", metavar="URL", help="The online store to ask.", show_default="that of the run"),
    ] = None,
    file: FromFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one entity's features: value, status and freshness.

    Now from the online store, as a model server would; with --at from the log, what serving would have said then.

    - `headrace get driver_activity driver_id=7`
    - `headrace get driver_activity driver_id=7 --at 2026-01-01T09:00Z`
    """
    from headrace.cli.answering import as_of
    from headrace.cli.places import now, online_of
    from headrace.cli.questions import entity_keys
    from headrace.cli.show import show_vector

    asked = asked_view(data, file, view)
    entity = entity_keys(asked, keys)
    vector = now(asked, entity, online_of(data, file, online)) if at is None else as_of(asked, entity, at, data)
    show_vector(asked, vector, as_json=as_json)


@app.command()
def history(
    view: ViewName,
    keys: Keys,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Only rows after this instant.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only rows up to this instant.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="The newest so many rows; 0: all.")] = 20,
    data: DataFolder = str(DATA),
    file: FromFile = None,
    as_json: AsJson = False,
) -> None:
    """Show how one entity's features came about: a row for each instant at which one changed, by an event or by time.

    - `headrace history driver_activity driver_id=7 --from 2026-01-01T08:00Z --to 2026-01-01T09:00Z`
    """
    from headrace.cli.answering import history as rows_of
    from headrace.cli.questions import entity_keys
    from headrace.cli.show import show_history
    from headrace.features.time import instant_us

    asked = asked_view(data, file, view)
    entity = entity_keys(asked, keys)
    start = None if since is None else instant_us(since, "--from")
    end = None if until is None else instant_us(until, "--to")
    found = rows_of(asked, entity, data, from_us=start, to_us=end, limit=limit)
    show_history(asked, entity, found, as_json=as_json)


@app.command()
def dead(
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="The newest so many; 0: all.")] = 20,
    data: DataFolder = str(DATA),
    as_json: AsJson = False,
) -> None:
    """Show the events that could not be taken, each with its reason."""
    from headrace.cli.answering import dead_letters
    from headrace.cli.show import show_dead

    show_dead(*dead_letters(data, limit), as_json=as_json)


@app.command()
def checkpoints(
    part: Annotated[
        str | None,
        typer.Argument(metavar="[PART]", help="Show what this one holds; its state is checked.", show_default="all"),
    ] = None,
    data: DataFolder = str(DATA),
    as_json: AsJson = False,
) -> None:
    """Show where a run goes on after a restart: a line per part, or all that one part holds.

    A flow from Kafka has a part for each partition, a run on one machine has one.

    - `headrace checkpoints`
    - `headrace checkpoints rides-0003`
    """
    from headrace.cli.checkpoints import checkpoints as show

    show(data, part, as_json=as_json)


@app.command()
def doctor(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Python file with your feature views.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="TOML", help="Configuration file.", show_default="headrace.toml beside FILE, or here"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR|URL", help="Where the flow writes.", show_default=str(DATA)),
    ] = None,
    online: Annotated[
        str | None,
        typer.Option("--online", metavar="URL", help="The online store.", show_default="embedded"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examine a live flow: packages, settings, data folder, Kafka and its topics, Redis. Says what to mend.

    It looks at a sample of messages as the flow would read them: can they be read, are they keyed as the source says?
    The exit code is 1 when something must be mended.
    """
    from headrace.cli.examining import doctor as examined

    code = examined(file, config, {"online": {"url": online}, "offline": {"data": data}}, as_json=as_json)
    if code:
        raise typer.Exit(code)


@app.command()
def demo() -> None:
    """New York's flights of 2013 as a stream: features of delays, a model with and without them, a figure, lookups."""
    from headrace.demo import main

    main()
