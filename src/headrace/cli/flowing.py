"""`headrace run` over Kafka: one worker in this process, or a supervisor of several."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.cli.loading import ViewsFile
from headrace.cli.project import remember
from headrace.features.errors import HeadraceError
from headrace.features.streams import Flow
from headrace.features.views import ViewDefinition
from headrace.flows.spark.settings import SparkSettings
from headrace.flows.worker.settings import FlowSettings
from headrace.ops.configuration import configuration_file, configure
from headrace.ops.errors import ConfigurationError
from headrace.ops.settings import Configuration

# A file of one of these names is called after its folder: every project has a views.py.
COMMON_NAMES = {"views", "features", "flow", "flows", "main", "app"}


@dataclass(frozen=True)
class Request:
    """What `headrace run` was asked, for a live flow.

    Attributes:
        file, views, flows: what to run. config: the file with variables and options over it. worker: name of this
            process, or of the supervisor's workers without their number. until_end: stop at the ends of the topics.
            fresh: forget what earlier runs left.
        words: the options as given, for worker processes. given_online: --online as given. quiet, as_json: how to show.
        spark: how Spark is reached, where the engine is Spark.
    """

    file: ViewsFile
    views: tuple[ViewDefinition, ...]
    config: Configuration
    worker: str | None
    until_end: bool
    fresh: bool
    words: tuple[str, ...]
    given_online: str | None
    quiet: bool
    as_json: bool
    flows: tuple[Flow, ...] = ()
    spark: SparkSettings = field(default_factory=SparkSettings)

    @property
    def settings(self) -> FlowSettings:
        """Of one worker."""
        settings = replace(flow_settings(self.file, self.config), until_end=self.until_end)
        flow = self.config.flow
        if flow.batch_size is not None:
            settings = replace(settings, batch_size=flow.batch_size)
        return settings if self.worker is None else replace(settings, worker=self.worker)


def flow_settings(file: ViewsFile, config: Configuration) -> FlowSettings:
    """The settings of a views file's flow."""
    flow = config.flow
    return FlowSettings(
        name=flow.name or flow_name(file.path),
        data=config.offline.data,
        online=config.online.url,
        project=config.online.project,
        layout=config.online.layout,
        group=flow.group,
        clock=flow.clock,
        checkpoint_every_s=flow.checkpoint_every.value,
        on_change=flow.on_change,
        dead_letter_topic=config.dead_letters.topic,
        drift_topic=config.drift.topic,
        kafka=dict(config.kafka),
    )


def is_live(views: Sequence[ViewDefinition], file: str, flows: Sequence[Flow] = ()) -> bool:
    """Whether the views and flows read Kafka.

    Raises:
        HeadraceError: some do and some do not; one run cannot have both clocks and both ends.
    """
    read = {view.name: view.source.roots for view in views} | {flow.name: flow.sources for flow in flows}
    live = [name for name, roots in read.items() if any(root.kind == "kafka" for root in roots)]
    others = [name for name, roots in read.items() if any(root.kind != "kafka" for root in roots)]
    if live and others:
        raise HeadraceError(
            f"{file} has views and flows of Kafka topics ({', '.join(live)}) and of other sources "
            f"({', '.join(others)}). Run each kind by itself, flows from a file of their own: headrace run {file} "
            + " ".join(f"--view {view.name}" for view in views if view.name in live)
        )
    return bool(live)


def flow_name(file: Path) -> str:
    """The name of the flow of a views file.

    >>> flow_name(Path("/projects/rides.py")), flow_name(Path("/projects/rides/views.py"))
    ('rides', 'rides')
    """
    name = file.stem if file.stem not in COMMON_NAMES else file.resolve().parent.name or file.stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:100] or "flow"


def configured(file: Path, named: Path | None, options: Mapping[str, Mapping[str, Any]]) -> Configuration:
    """The configuration of a views file's flow."""
    return configure(configuration_file(file, named), options=options)


def spark_settings(config: Configuration, conf: Sequence[str]) -> SparkSettings:
    """How Spark is reached. conf: of `--spark-conf`.

    Raises:
        ConfigurationError: one is not NAME=VALUE.
    """
    for words in conf:
        if "=" not in words:
            raise ConfigurationError(f"--spark-conf {words}: expected NAME=VALUE, such as spark.executor.memory=4g.")
    said = config.spark
    its = dict(words.split("=", 1) for words in conf)
    return SparkSettings(said.master, said.every.value, said.max_events, said.shards, its)


def flow(request: Request) -> int:
    """Runs the flow to its end; returns the exit code.

    Raises:
        ConfigurationError: nothing but a person can help. HeadraceError: it may go better another time.
    """
    settings = request.settings  # says what is wrong before anything starts
    if "://" not in settings.data:
        remember(Path(settings.data), request.file, live={"online": request.given_online})
    if request.fresh:
        from headrace.flows.worker.forgetting import forget

        forget([*request.views, *request.flows], settings)
    if request.config.flow.engine == "spark" and request.config.flow.workers > 1:
        raise ConfigurationError(
            f"engine = 'spark' with {request.config.flow.workers} workers: Spark has its own. Say how many cores it "
            "has: --master local[2]."
        )
    if request.config.flow.workers > 1:
        from headrace.cli.supervised import supervise

        return supervise(request)
    from headrace.cli.working import work

    return work(request)


def command_of(request: Request, worker: str, port: int | None, log_format: str) -> list[str]:
    """The words that start one worker process: those of this one, with a name and a port of its own."""
    metrics = [] if port is None else ["--metrics-port", str(port)]
    return [
        *(sys.executable, "-m", "headrace", "run", str(request.file.path), *request.words),
        *("--workers", "1", "--worker-id", worker, "--log-format", log_format, *metrics),
    ]


def wrong(error: HeadraceError) -> ConfigurationError:
    """The error as one that starting again cannot mend."""
    return error if isinstance(error, ConfigurationError) else ConfigurationError(str(error))
