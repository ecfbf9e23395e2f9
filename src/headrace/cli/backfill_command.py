"""The command `headrace backfill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.options import AsJson, ConfigFile, Engine, Master, Quiet, SparkConf, ViewsPath
from headrace.cli.project import DATA


def backfill(
    file: ViewsPath,
    only: Annotated[
        list[str] | None,
        typer.Option("--view", metavar="VIEW", help="Compute this view only; may be repeated.", show_default="all"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            envvar="HEADRACE_DATA",
            help="Where the log, the checkpoint and the online store are made.",
            show_default=str(DATA),
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="The log has rows as of later instants only; earlier events count in their windows all the same.",
            show_default="the beginning",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME",
            help="What comes after it is left for `headrace run`; of a history, it is whole up to there.",
            show_default="the end",
        ),
    ] = None,
    history: Annotated[
        list[str] | None,
        typer.Option(
            "--history",
            metavar="SOURCE=FILES",
            help="Files with the events from before a topic, instead of the source's history=; may be repeated.",
            show_default="the source's",
        ),
    ] = None,
    allow_gap: Annotated[
        bool,
        typer.Option("--allow-gap", help="Go on although a topic has lost events that the history may not have."),
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Late events count at their own time instead of being dead letters.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Side by side.", show_default="all cores")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop what earlier runs wrote.")] = False,
    engine: Engine = None,
    master: Master = None,
    spark_conf: SparkConf = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compute views over the whole history of files and frames: what a run would write, sooner.

    Of views over Kafka, the history of their source is computed, and `headrace run` goes on with the topic, at the
    exact event after.

    Each entity's events are computed in one go, on all cores, in bounded memory; what does not fit lies in the data
    folder meanwhile. The log, dead letters, checkpoint and online store are those that `headrace run` would have left,
    and it goes on from there when the files grow. A backfill that was stopped or killed goes on where it was.

    - `headrace backfill views.py`
    - `headrace backfill views.py --from 2026-01-01T00:00Z --data history`
    - `headrace backfill views.py --repair --fresh`
    - `headrace backfill views.py --history rides=exports/*.parquet`
    - `headrace backfill views.py --engine spark --master spark://host:7077`
    """
    from headrace.cli.backfilling import Request, backfill_and_show, with_history
    from headrace.cli.flowing import configured, is_live, spark_settings
    from headrace.cli.loading import load
    from headrace.features.errors import HeadraceError
    from headrace.features.time import instant_us
    from headrace.ops.errors import DONE

    loaded = load(file)
    views = with_history(loaded.only(only or ()), history or ())
    live = is_live(views, file.name)
    if allow_gap and not live:
        raise HeadraceError("--allow-gap is for views of Kafka topics: files have no gap to a topic.")
    options: dict[str, dict[str, Any]] = {
        "offline": {"data": None if data is None else str(data)},
        "flow": {"engine": engine},
        "spark": {"master": master},
    }
    settings = configured(file, config, options)
    spark = spark_settings(settings, spark_conf or ()) if settings.flow.engine == "spark" else None
    if spark is not None and threads is not None:
        raise HeadraceError("--threads is of this process, and Spark has cores of its own: --master local[2].")
    request = Request(
        loaded,
        views,
        data or DATA,
        None if since is None else instant_us(since, "--from"),
        None if to is None else instant_us(to, "--to"),
        repair,
        allow_gap,
        threads,
        settings if live else None,
        spark,
        tuple(history or ()),
    )
    code = backfill_and_show(request, fresh=fresh, quiet=quiet, as_json=as_json)
    if code != DONE:
        raise typer.Exit(code)
