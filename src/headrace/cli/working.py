"""One worker process of a live flow: its observers, its HTTP server, its lifeline, its signals and its exit code.

The flow runs in a thread of its own and the main thread waits for signals: the first asks the flow to stop, which
drains, checkpoints and leaves the group; a second ends the process at once, which loses nothing either.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException

from headrace.cli.flowing import Request, wrong
from headrace.cli.loading import Shipped
from headrace.cli.replaying import as_data, print_flow
from headrace.cli.show import print_json
from headrace.features.errors import DataError, DefinitionError, HeadraceError
from headrace.flows.recording import Summary
from headrace.flows.snapshot import SnapshotError
from headrace.flows.worker.observing import Observer
from headrace.flows.worker.running import run_worker
from headrace.ops.errors import DONE, FAILED, INTERRUPTED, ConfigurationError
from headrace.ops.health import Health
from headrace.ops.lifeline import Lifeline
from headrace.ops.logs import set_up_logs
from headrace.ops.secrets import redact
from headrace.ops.telling import Several, Status, Teller
from headrace.stores.errors import FencedError, SchemaMismatchError

if TYPE_CHECKING:
    from headrace.flows.worker.settings import FlowSettings

# Told by the flow; starting it again changes nothing.
FOR_GOOD = (DefinitionError, DataError, SnapshotError, SchemaMismatchError, FencedError, ConfigurationError)

# Without its supervisor a worker has this long to stop by itself.
ORPHAN_S = 30.0


def work(request: Request) -> int:
    """Runs one worker until it is asked to stop; returns the exit code."""
    config, settings = request.config, request.settings
    stopping = _Stopping()
    status = Status()
    line = Lifeline.inherited(status.read, stopping.orphaned)
    supervised = line is not None
    set_up_logs(config.log.format, config.log.level, worker=settings.worker if supervised else None)
    log = structlog.get_logger("headrace.worker")
    with stopping.signals(), contextlib.ExitStack() as stack:
        if line is not None:
            stack.enter_context(line)
        try:
            observer = stack.enter_context(_observed(request, settings, status))
            log.info(
                "flow starts",
                flow=settings.name,
                group=settings.consumer_group,
                views=[view.name for view in request.views],
                flows=[flow.name for flow in request.flows],
                data=settings.data,
                online=settings.online or "embedded",
            )
            summary = stopping.run(lambda: _run(request, settings, observer, stopping.asked))
        except HeadraceError as error:
            told = _told(error, request)
            if not supervised:
                raise told from error
            log.error("the flow cannot go on", error=str(told))
            return _exit_code(told)
        log.info("flow stopped" if summary.stopped else "flow ended", read=sum(summary.read.values()))
        if line is not None:
            line.tell({"result": as_data(summary, settings.data)})
    if not supervised:
        _show(request, summary)
    return INTERRUPTED if stopping.first == signal.SIGINT else DONE


def _run(request: Request, settings: FlowSettings, observer: Observer, stop: threading.Event) -> Summary:
    """The flow, by the engine that was asked for."""
    given = [*request.views, *request.flows]
    if request.config.flow.engine == "workers":
        return run_worker(given, settings, observer=observer, stop=stop)
    from headrace.flows.spark.query import run_on_spark

    shipped = Shipped.of(request.file, request.views, request.flows)
    return run_on_spark(given, settings, request.spark, load=shipped, observer=observer, stop=stop)


def _told(error: HeadraceError, request: Request) -> HeadraceError:
    """The error with what the command line offers, as one that starting again cannot mend where that is so."""
    if isinstance(error, SnapshotError | SchemaMismatchError) and request.config.flow.on_change == "refuse":
        return ConfigurationError(
            f"{error} To keep the state of unchanged features and let new ones begin empty: "
            f"headrace run {request.file.path.name} --on-change start. To read their history from the topic: "
            "--on-change backfill."
        )
    return wrong(error) if isinstance(error, FOR_GOOD) else error


def _exit_code(error: HeadraceError) -> int:
    from headrace.cli.failing import exit_code

    return exit_code(error)


def _show(request: Request, summary: Summary) -> None:
    if request.as_json:
        print_json(as_data(summary, request.settings.data))
    else:
        print_flow(summary, request.views, request.settings)


@contextlib.contextmanager
def _observed(request: Request, settings: FlowSettings, status: Status) -> Iterator[Observer]:
    """The flow's observers; metrics and health over HTTP where a port is given."""
    metrics = request.config.metrics
    if metrics.port is None:
        yield Several(status, Teller())
        return
    from headrace.ops.metrics import Metrics
    from headrace.ops.serving import OpsServer

    health = Health(metrics.stalled_after.value, metrics.ready_lag)
    figures = Metrics(settings.name, settings.worker)
    with OpsServer(metrics.host, metrics.port, figures.registry, health) as server:
        structlog.get_logger("headrace.worker").info(
            "metrics and health are served", url=f"http://{metrics.host}:{server.port}/metrics"
        )
        yield Several(status, Teller(), figures, health)


class _Stopping:
    """How a worker is asked to stop.

    Attributes:
        asked: set once it is. first: the signal that asked, None when no signal did.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.first: int | None = None

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._ask) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.first is not None:
            os._exit(128 + number)
        self.first = number
        self.asked.set()

    def orphaned(self) -> None:
        """The supervisor is gone: stop, and be gone soon whatever holds the flow up."""
        structlog.get_logger("headrace.worker").warning("the supervisor is gone; stopping")
        self.asked.set()
        timer = threading.Timer(ORPHAN_S, lambda: os._exit(FAILED))
        timer.daemon = True
        timer.start()

    def run(self, flow: Any) -> Summary:
        """The flow's summary, from a thread of its own, so that signals find a main thread that listens."""
        ended: list[Summary] = []
        failed: list[BaseException] = []

        def body() -> None:
            try:
                ended.append(flow())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=body, name="flow")
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
        if failed:
            if isinstance(failed[0], KafkaException):
                raise HeadraceError(
                    f"Kafka refuses: {redact(str(failed[0].args[0]))}. `headrace doctor` looks into it."
                )
            raise failed[0]
        return ended[0]
