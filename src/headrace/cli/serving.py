"""`headrace serve`: one worker in this process, or a supervisor of several that share a port and their metrics.

A supervised worker runs the same command. What it is told besides stands in the variable HEADRACE_WORKER: its number,
how many there are, and the file descriptor of the cells in which they count together.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import structlog

from headrace.cli.failing import exit_code
from headrace.cli.loading import ViewsFile
from headrace.cli.places import Online, online_of
from headrace.features.errors import HeadraceError
from headrace.ops.cells import SharedCells
from headrace.ops.errors import DONE, INTERRUPTED
from headrace.ops.logs import set_up_logs
from headrace.ops.lookup_layout import LookupLayout, Served
from headrace.ops.lookup_worker import LookupWorker
from headrace.ops.server_address import bound, listening, shown
from headrace.ops.server_keys import accepted_keys, check_reach, check_tls
from headrace.ops.settings import Configuration, LogSection
from headrace.ops.supervising import Policy, Supervisor
from headrace.serving.http.tracing import TRACE

VARIABLE = "HEADRACE_WORKER"


@dataclass(frozen=True)
class Serving:
    """What `headrace serve` was asked.

    Attributes:
        words: the options as given, for worker processes.
    """

    file: ViewsFile
    config: Configuration
    words: tuple[str, ...]

    @property
    def served(self) -> Served:
        return Served.of(self.file.views, self.file.services)


class Place(msgspec.Struct, frozen=True):
    """A worker's place among its siblings.

    Attributes:
        cells: file descriptor.
    """

    number: int
    workers: int
    cells: int


def serve_lookups(serving: Serving) -> int:
    """Serves until it is asked to stop; returns the exit code.

    Raises:
        ConfigurationError: nothing but a person can help. HeadraceError: it may go better another time.
    """
    place = os.environ.pop(VARIABLE, None)
    if place is not None:
        return _work(serving, msgspec.json.decode(place, type=Place))
    log, settings = serving.config.log, serving.config.serve
    _set_up_logs(log, worker="supervisor" if settings.workers > 1 else None)
    keys = accepted_keys(settings)
    doubt = check_reach(settings, keys)
    if doubt is not None:
        structlog.get_logger("headrace.server").warning(doubt.says, mend=doubt.mend)
    tls = check_tls(settings)
    online = store_of(serving)
    layout = LookupLayout(serving.served)
    with bound(settings.host, settings.port) as kept:
        port = int(kept.getsockname()[1])
        url = shown(settings.host, port, tls)
        structlog.get_logger("headrace.server").info(
            "serving",
            url=url,
            workers=settings.workers,
            views=list(layout.served.views),
            services=list(layout.served.services),
            online=str(online.place),
            keys=len(keys),
        )
        cells = SharedCells.made(layout.layout, settings.workers)
        serving = replace(serving, config=replace(serving.config, serve=replace(settings, port=port)))
        if settings.workers == 1:
            return _serve(serving, layout, cells, Place(0, 1, cells.fileno))
        return _supervise(serving, cells, port)


def _set_up_logs(log: LogSection, worker: str | None) -> None:
    set_up_logs(log.format, log.level, worker=worker, trace=TRACE.get)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # what it tells of its start and end, we do


def store_of(serving: Serving) -> Online:
    """The online store to read.

    Raises:
        HeadraceError: none was named, and no run has written one.
    """
    config = serving.config
    if config.online.url is not None:
        return Online(config.online.url, config.online.project, config.online.layout)
    data = config.offline.data
    if "://" not in data and not Path(data).is_dir():
        raise HeadraceError(
            f"There is no data folder {data} to serve from. Fill one with `headrace run {serving.file.path.name}`, "
            "name it with --data, or name the store of a live flow: --online redis://..."
        )
    return replace(online_of(data, serving.file.path, None), project=config.online.project)


def _supervise(serving: Serving, cells: SharedCells, port: int) -> int:
    settings, log = serving.config.serve, serving.config.log
    words = [
        *(sys.executable, "-m", "headrace", "serve", str(serving.file.path), *serving.words),
        *("--host", settings.host, "--port", str(port), "--workers", str(settings.workers)),
        *("--log-format", "text" if log.format == "auto" and sys.stderr.isatty() else log.format),
    ]
    drain_s = 0.0 if settings.drain is None else settings.drain.value
    supervisor = Supervisor(
        [str(number) for number in range(settings.workers)],
        lambda number: words,
        Policy(restarts=settings.restarts, stop_within_s=drain_s + settings.stop_within.value + 5.0),
        what="the server",
        inherited=[cells.fileno],
        variables=lambda number: {
            VARIABLE: msgspec.json.encode(Place(number, settings.workers, cells.fileno)).decode()
        },
    )
    return supervisor.run()


def _work(serving: Serving, place: Place) -> int:
    """As a supervised process: what goes wrong is told in the log, and to the supervisor by the exit code."""
    _set_up_logs(serving.config.log, worker=str(place.number))
    layout = LookupLayout(serving.served)
    try:
        cells = SharedCells.inherited(layout.layout, place.workers, place.cells)
        return _serve(serving, layout, cells, place)
    except HeadraceError as error:
        structlog.get_logger("headrace.server").error("worker cannot go on", error=str(error))
        return exit_code(error)


def _serve(serving: Serving, layout: LookupLayout, cells: SharedCells, place: Place) -> int:
    settings = serving.config.serve
    worker = LookupWorker(
        serving.config,
        (*serving.file.views, *serving.file.services),
        store_of(serving),
        accepted_keys(settings),
        layout,
        cells,
        place.number,
    )
    first = worker.run(lambda: listening(settings.host, settings.port))
    return INTERRUPTED if first == signal.SIGINT else DONE
