"""`headrace run` over Kafka: one worker in this process, or a supervisor of several."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.cli.loading import ViewsFile
from headrace.cli.project import remember
from headrace.features.errors import HeadraceError
from headrace.features.views import ViewDefinition
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
        file, views: what to run. config: the file with variables and options over it. worker: name of this process, or
            of the supervisor's workers without their number. until_end: stop at the ends of the topics. fresh: forget
            what earlier runs left.
        words: the options as given, for worker processes. given_online: --online as given. quiet, as_json: how to show.
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

    @property
    def settings(self) -> FlowSettings:
        """Of one worker."""
        flow = self.config.flow
        settings = FlowSettings(
            name=flow.name or flow_name(self.file.path),
            data=self.config.offline.data,
            online=self.config.online.url,
            project=self.config.online.project,
            layout=self.config.online.layout,
            group=flow.group,
            clock=flow.clock,
            until_end=self.until_end,
            checkpoint_every_s=flow.checkpoint_every.value,
            on_change=flow.on_change,
            dead_letter_topic=self.config.dead_letters.topic,
            kafka=dict(self.config.kafka),
        )
        if flow.batch_size is not None:
            settings = replace(settings, batch_size=flow.batch_size)
        return settings if self.worker is None else replace(settings, worker=self.worker)


def is_live(views: Sequence[ViewDefinition], file: str) -> bool:
    """Whether the views read Kafka.

    Raises:
        HeadraceError: some do and some do not; one run cannot have both clocks and both ends.
    """
    live = [view.name for view in views if view.source.kind == "kafka"]
    if live and len(live) < len(views):
        others = [view.name for view in views if view.name not in live]
        raise HeadraceError(
            f"{file} has views of Kafka topics ({', '.join(live)}) and of other sources ({', '.join(others)}). Run "
            f"each kind by itself: headrace run {file} " + " ".join(f"--view {name}" for name in live)
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

        forget(request.views, settings)
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
