"""Options and arguments that several commands take, each with one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.project import DATA

ViewsPath = Annotated[
    Path, typer.Argument(metavar="FILE", help="Python file with your feature views.", show_default=False)
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="TOML", help="Configuration file.", show_default="headrace.toml beside FILE, or here"
    ),
]
WrittenData = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="DIR|URL", envvar="HEADRACE_DATA", help="Where `headrace run` wrote.", show_default=str(DATA)
    ),
]
Project = Annotated[
    str | None, typer.Option("--project", help="Namespace of the rows, Feast's project.", show_default="headrace")
]
Layout = Annotated[
    str | None, typer.Option("--layout", metavar="feast|packed", help="Of rows in Redis.", show_default="feast")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON.")]

SPARK = "On Spark"
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine", metavar="workers|spark", help="What computes it.", show_default="workers", rich_help_panel=SPARK
    ),
]
Master = Annotated[
    str | None,
    typer.Option(
        "--master",
        help="As of spark-submit: local[2], spark://host:7077.",
        show_default="local[*]",
        rich_help_panel=SPARK,
    ),
]
SparkConf = Annotated[
    list[str] | None,
    typer.Option("--spark-conf", metavar="NAME=VALUE", help="Of Spark's own; may be repeated.", rich_help_panel=SPARK),
]
