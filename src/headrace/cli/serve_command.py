"""The command `headrace serve` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.options import ConfigFile, Layout, Project
from headrace.cli.project import DATA
from headrace.cli.words import given_words, wrong_for_good

# What a worker process is told by its supervisor instead.
NOT_PASSED_ON = {"file", "host", "port", "workers", "log_format"}


def serve(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Python file with your feature views and services.", show_default=False),
    ],
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on.", show_default="127.0.0.1: this machine only")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="0: any free one.", show_default="6566")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that share the port.", show_default="1")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR|URL",
            envvar="HEADRACE_DATA",
            help="Where `headrace run` keeps an embedded online store.",
            show_default=str(DATA),
        ),
    ] = None,
    online: Annotated[
        str | None,
        typer.Option("--online", metavar="URL", help="The online store to read.", show_default="that of the run"),
    ] = None,
    project: Project = None,
    layout: Layout = None,
    feast_statuses: Annotated[
        bool, typer.Option("--feast-statuses", help="Statuses as Feast's own server gives them.")
    ] = False,
    tls_cert: Annotated[
        str | None,
        typer.Option("--tls-cert", metavar="PEM", help="Certificate chain: HTTPS.", show_default="HTTP"),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", metavar="PEM", help="Its private key.", show_default=False)
    ] = None,
    config: ConfigFile = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            "--log-format", metavar="text|json", help="Of log lines on stderr.", show_default="text on a terminal"
        ),
    ] = None,
) -> None:
    """Serve a file's views and services over HTTP: lookups for model servers, in any language, and for Feast's clients.

    It reads the online store that `headrace run` writes, until Ctrl-C or SIGTERM, which lets requests end.

    - `headrace serve views.py`
    - `headrace serve views.py --online redis://localhost:6379/0 --workers 4`

    Settings come from these options, then from variables HEADRACE_SERVE_..., then from `[serve]` of `headrace.toml`.
    API keys stand in the variable HEADRACE_SERVE_API_KEYS.
    """
    from headrace.cli.loading import load
    from headrace.cli.serving import Serving, serve_lookups
    from headrace.ops.configuration import configuration_file, configure
    from headrace.ops.errors import DONE

    with wrong_for_good():
        loaded = load(file)
    options: dict[str, dict[str, Any]] = {
        "serve": {
            "host": host,
            "port": port,
            "workers": workers,
            "statuses": "feast" if feast_statuses else None,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
        },
        "online": {"url": online, "project": project, "layout": layout},
        "offline": {"data": data},
        "log": {"format": log_format},
    }
    settings = configure(configuration_file(file, config), options=options)
    code = serve_lookups(Serving(loaded, settings, tuple(given_words(context, NOT_PASSED_ON))))
    if code != DONE:
        raise typer.Exit(code)
