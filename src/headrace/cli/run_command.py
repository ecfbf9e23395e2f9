"""The command `headrace run`: its options, and which of them a replay takes and which a live flow."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headrace.cli.options import SPARK, AsJson, ConfigFile, Engine, Master, SparkConf, ViewsPath
from headrace.cli.project import DATA
from headrace.cli.words import given_words, is_given, wrong_for_good

LIVE = "Live flows, from Kafka topics"

# What a worker process is told by its supervisor instead.
NOT_PASSED_ON = {"file", "fresh", "workers", "worker_id", "metrics_port", "log_format", "as_json", "quiet"}
ONLY_LIVE = (
    "online",
    "workers",
    "clock",
    "until_end",
    "checkpoint_every",
    "group",
    "worker_id",
    "metrics_port",
    "engine",
    "master",
    "every",
    "max_events",
    "shards",
    "spark_conf",
)


def run(
    context: typer.Context,
    file: ViewsPath,
    only: Annotated[
        list[str] | None,
        typer.Option("--view", metavar="VIEW", help="Run this view only; may be repeated.", show_default="all"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR|URL",
            envvar="HEADRACE_DATA",
            help="Where the log, the checkpoints and an embedded online store are.",
            show_default=str(DATA),
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Events per batch. Values do not depend on it.", show_default="10000"),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="The clock is the wall's: take events as they come until Ctrl-C.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop what earlier runs wrote and begin anew.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no table of workers.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    online: Annotated[
        str | None,
        typer.Option(
            "--online", metavar="URL", help="Such as redis://localhost.", show_default="embedded", rich_help_panel=LIVE
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes that share the partitions.", rich_help_panel=LIVE),
    ] = None,
    clock: Annotated[
        str | None,
        typer.Option(
            "--clock",
            metavar="wall|stream",
            help="stream: replay the topics in their own time.",
            show_default="wall",
            rich_help_panel=LIVE,
        ),
    ] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop where the topics end now.", rich_help_panel=LIVE)
    ] = False,
    on_change: Annotated[
        str | None,
        typer.Option(
            "--on-change",
            metavar="refuse|start|backfill",
            help="New features of a view that ran before: refuse them, start them empty, or read their history.",
            show_default="refuse",
        ),
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            "--checkpoint-every",
            metavar="TIME",
            help="Between two checkpoints.",
            show_default="10s",
            rich_help_panel=LIVE,
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Kafka consumer group.", show_default="headrace.FLOW", rich_help_panel=LIVE),
    ] = None,
    worker_id: Annotated[
        str | None,
        typer.Option("--worker-id", help="Name in logs and metrics.", show_default="host name", rich_help_panel=LIVE),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=0, help="Metrics and health over HTTP; 0: any.", rich_help_panel=LIVE),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            "--log-format",
            metavar="text|json",
            help="Of log lines on stderr.",
            show_default="text on a terminal",
            rich_help_panel=LIVE,
        ),
    ] = None,
    engine: Engine = None,
    master: Master = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="TIME", help="From turn to turn.", show_default="1s", rich_help_panel=SPARK),
    ] = None,
    max_events: Annotated[
        int | None,
        typer.Option("--max-events", min=1, help="Of one turn.", show_default="400000", rich_help_panel=SPARK),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            min=1,
            help="Tasks behind a shuffle; fixed when the flow begins.",
            show_default="partitions of the source",
            rich_help_panel=SPARK,
        ),
    ] = None,
    spark_conf: SparkConf = None,
) -> None:
    """Run a file's views and flows: replay files to their end, or take Kafka topics as a live flow.

    A later run goes on where this one ended, also after Ctrl-C or a crash. What could not be taken (late, malformed,
    too far ahead) is counted, and `headrace dead` shows it.

    **Files, frames and iterables** are replayed. The clock is the stream's own: after the run, "now" is its newest
    event. With --live it is the wall's: events are taken as they come, and values fall while none come.

    **Kafka topics** are a live flow: it runs until Ctrl-C or SIGTERM, which drains, checkpoints and leaves. Settings
    come from these options, then from variables HEADRACE_..., then from `headrace.toml`.
    """
    from headrace.cli.flowing import Request, configured, flow, is_live, spark_settings
    from headrace.cli.loading import load
    from headrace.cli.replaying import replay_and_show
    from headrace.ops.errors import DONE

    with wrong_for_good():
        loaded = load(file, or_flows=True)
        chosen = loaded.only(only or ())
        flows = () if only else loaded.flows
        takes_kafka = is_live(chosen, file.name, flows)
    sources = [view.source for view in chosen] + [source for each in flows for source in each.sources]
    _refuse_what_does_not_fit(context, takes_kafka, sources[0].name if sources else "")
    options: dict[str, dict[str, Any]] = {
        "flow": {
            "workers": workers,
            "clock": clock,
            "on_change": on_change,
            "checkpoint_every": checkpoint_every,
            "group": group,
            "batch_size": batch_size,
            "engine": engine,
        },
        "spark": {"master": master, "every": every, "max_events": max_events, "shards": shards},
        "online": {"url": online},
        "offline": {"data": data},
        "metrics": {"port": metrics_port},
        "log": {"format": log_format},
    }
    settings = configured(file, config, options)
    if takes_kafka:
        words = tuple(given_words(context, NOT_PASSED_ON))
        spark = spark_settings(settings, spark_conf or ())
        request = Request(
            loaded, chosen, settings, worker_id, until_end, fresh, words, online, quiet, as_json, flows, spark
        )
        code = flow(request)
    else:
        code = replay_and_show(
            loaded, (*chosen, *flows), settings, live=live, fresh=fresh, quiet=quiet, as_json=as_json
        )
    if code != DONE:
        raise typer.Exit(code)


def _refuse_what_does_not_fit(context: typer.Context, takes_kafka: bool, source: str) -> None:
    from headrace.features.errors import HeadraceError

    misplaced = [f"--{name.replace('_', '-')}" for name in ONLY_LIVE if is_given(context, name)]
    if misplaced and not takes_kafka:
        raise HeadraceError(
            f"{', '.join(misplaced)}: for live flows, and source '{source}' is no KafkaSource. Leave it out, or take "
            "the events from a topic."
        )
