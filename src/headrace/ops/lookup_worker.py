"""One process of the lookup server: its client, its application, its metrics, its log, its line to a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from headrace.flows.worker.interpreter import tuned_interpreter
from headrace.ops.access_log import AccessLog
from headrace.ops.cells import SharedCells
from headrace.ops.errors import FAILED
from headrace.ops.http_server import HttpServer
from headrace.ops.lifeline import EVERY_S as LOOK_EVERY_S
from headrace.ops.lifeline import Lifeline
from headrace.ops.lookup_layout import LookupLayout
from headrace.ops.lookup_metrics import ServerMetrics
from headrace.ops.readiness import EVERY_S, Readiness
from headrace.ops.settings import Configuration
from headrace.ops.standstill import Standstill
from headrace.serving.async_client import AsyncClient
from headrace.serving.caching import RowCache
from headrace.serving.failing import RetryBudget
from headrace.serving.http import ServerSettings, lookup_app
from headrace.serving.http.watching import ServerWatcher
from headrace.serving.watching import Watcher
from headrace.stores.opening import Layout, open_online

if TYPE_CHECKING:
    from headrace.serving.recording import FeatureLog

TURN_S = 0.25
# Without its supervisor a worker has this long to stop by itself.
ORPHAN_S = 30.0


class Where(Protocol):
    """An online store's address."""

    @property
    def place(self) -> Any: ...
    @property
    def project(self) -> str: ...
    @property
    def layout(self) -> Layout: ...


class LookupWorker:
    """Serves lookups until it is asked to stop; one use each.

    Args:
        known: views and services that are served. online: the store. keys: accepted API keys; none: nobody is asked.
        layout, cells: of the metrics of all workers. number: of this one.
    """

    def __init__(
        self,
        config: Configuration,
        known: Sequence[Any],
        online: Where,
        keys: frozenset[str],
        layout: LookupLayout,
        cells: SharedCells,
        number: int,
    ) -> None:
        self._config, self._known, self._online, self._keys = config, known, online, keys
        self._metrics = ServerMetrics(layout, cells, number)
        settings = config.serve
        self._server = HttpServer(
            self._answer,
            drain_s=0.0 if settings.drain is None else settings.drain.value,
            stop_within_s=settings.stop_within.value,
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
        )
        self._app: Any = None
        self._readiness: Readiness | None = None
        self._log: FeatureLog | None = None
        self._standstill = Standstill(self._metrics.turned_at, LOOK_EVERY_S)

    def run(self, listen: Callable[[], socket.socket]) -> int | None:
        """Serves; returns the signal that asked it to stop, None when none did.

        Args:
            listen: gives the socket, once all else is there.

        Raises:
            HeadraceError: the store cannot be opened, or the address not listened on.
        """
        settings, online = self._config.serve, self._online
        log = structlog.get_logger("headrace.server")
        with contextlib.ExitStack() as stack:
            line = Lifeline.inherited(self._status, self._orphaned)
            if line is not None:
                stack.enter_context(line)
            store = open_online(online.place, project=online.project, layout=online.layout, read_only=True)
            stack.callback(store.close)
            self._readiness = Readiness(store, lambda: self._server.stopping)
            cache = None
            if settings.cache is not None:
                cache = RowCache(f"{settings.cache.value}s", entries=settings.cache_entries)
            self._metrics.cache = cache
            watchers: list[Watcher] = [self._metrics]
            if settings.feature_log is not None:
                from headrace.serving.recording import FeatureLog

                self._log = FeatureLog(settings.feature_log, sample=settings.feature_log_sample)
                stack.callback(self._end_log, self._log)
                watchers.append(self._log)
            client = AsyncClient(
                store,
                self._known,
                on_failure=settings.on_failure,
                retries=RetryBudget(settings.retries) if settings.retries else None,
                cache=cache,
                timeout_s=settings.timeout.value,
                watchers=watchers,
            )
            pushes = None
            if settings.push:
                from headrace.ops.pushes import pushing

                pushes = pushing(
                    store,
                    client.catalog.views.values(),
                    self._config.kafka,
                    most=settings.entities,
                    timeout_s=settings.timeout.value,
                )
                stack.callback(pushes.close)
            watcher: ServerWatcher = self._metrics
            if settings.access_log != "none":
                watcher = AccessLog(settings.access_log, settings.access_log_share, beside=self._metrics)
            self._app = lookup_app(
                client,
                settings=ServerSettings(
                    body_bytes=settings.body_bytes,
                    entities=settings.entities,
                    features=settings.features,
                    values=settings.values,
                    statuses=settings.statuses,
                    keys=self._keys,
                    timeout_s=settings.timeout.value,
                ),
                watcher=watcher,
                pushes=pushes,
                readiness=self._readiness,
                metrics=self._scrape,
            )
            where = listen()
            log.info("worker serves")
            with tuned_interpreter():
                self._server.run(where, lambda: self._beside(client))
            log.info("worker stopped")
        return self._server.first

    def _answer(self, scope: Any, receive: Any, send: Any) -> Any:
        return self._app(scope, receive, send)

    def _end_log(self, log: FeatureLog) -> None:
        log.stop()
        self._metrics.feature_log(log.kept, log.dropped)

    async def _scrape(self, accept: str) -> tuple[str, bytes]:
        self._metrics.add_up()
        return await asyncio.to_thread(self._metrics.scrape, accept)

    async def _beside(self, client: AsyncClient) -> None:
        """Turns metrics over and asks the store, as long as the server runs; at the end what is left is counted."""
        assert self._readiness is not None
        try:
            await asyncio.gather(self._turns(), self._looks(self._readiness))
        finally:
            self._turn()
            await client.close()

    async def _turns(self) -> None:
        while True:
            self._turn()
            await asyncio.sleep(TURN_S)

    async def _looks(self, readiness: Readiness) -> None:
        while True:
            await readiness.look()
            await asyncio.sleep(EVERY_S)

    def _turn(self) -> None:
        assert self._readiness is not None
        if self._log is not None:
            self._metrics.feature_log(self._log.kept, self._log.dropped)
        self._metrics.turn(not self._readiness.because(), TURN_S)

    def _status(self) -> dict[str, Any]:
        if not self._server.stopping:  # whoever stops it waits only so long
            self._standstill.look()
        return {"requests": self._metrics.requests_so_far()}

    def _orphaned(self) -> None:
        """The supervisor is gone: stop, and be gone soon whatever holds the server up."""
        structlog.get_logger("headrace.server").warning("the supervisor is gone; stopping")
        self._server.stop()
        timer = threading.Timer(ORPHAN_S, lambda: os._exit(FAILED))
        timer.daemon = True
        timer.start()
