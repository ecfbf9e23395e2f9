"""One process that serves an ASGI application on a socket until it is asked to stop, and then loses no request.

asked to stop     answers go on, each with `Connection: close`, so that callers connect elsewhere; so do new
                  connections for `drain_s`, while readiness says no
then              no new connections; those that are open get their answers, idle ones a second to say something
stop_within_s     is the most that answers may take then
asked again       the process ends at once
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeAlias

import structlog
import uvicorn

from headrace.ops.server_address import let_nobody_in
from headrace.serving.http.protocol import BoundedHttp

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

IDLE_S = 1.0
KEEP_ALIVE_S = 75
"""How long a connection may be idle: longer than most balancers and pools keep theirs, so that they close first."""
LOOK_S = 0.02


class HttpServer:
    """Serves one application; one use each.

    Attributes:
        stopping: it was asked to stop. first: the signal that asked, None when no signal did.
    """

    def __init__(
        self,
        app: App,
        *,
        drain_s: float = 0.0,
        stop_within_s: float = 30.0,
        tls_cert: str | None = None,
        tls_key: str | None = None,
    ) -> None:
        self._app = app
        self._drain_s = drain_s
        self.stopping = False
        self.first: int | None = None
        self._asked: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = _Uvicorn(
            uvicorn.Config(
                self._serve,
                http=BoundedHttp,
                loop="uvloop",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(stop_within_s)),
                ssl_certfile=tls_cert,
                ssl_keyfile=tls_key,
            )
        )

    def run(self, where: socket.socket, beside: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serves until it is asked to stop; to be called in the main thread.

        Args:
            where: a socket that listens; it is closed in the end. beside: runs in the same event loop from before the
                first request on, and is cancelled after the last; its end or its error ends the server.
        """
        factory = self._server.config.get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner, self._signals():
            runner.run(self._run(where, beside))

    def stop(self) -> None:
        """Ask it to stop, from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._begin_to_stop)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.first is not None:
            os._exit(128 + number)
        self.first = number
        self.stop()

    def _begin_to_stop(self) -> None:
        self.stopping = True
        if self._asked is not None:
            self._asked.set()

    async def _run(self, where: socket.socket, beside: Callable[[], Awaitable[None]] | None) -> None:
        self._loop, self._asked = asyncio.get_running_loop(), asyncio.Event()
        if self.first is not None:  # a signal came before the loop was there
            self._begin_to_stop()
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._asked.wait())]
        if beside is not None:
            tasks.append(asyncio.ensure_future(beside()))
        queue = where.dup()  # the system forgets who waits to be accepted only when the last descriptor is closed
        await self._server.startup(sockets=[where])
        ticks = asyncio.ensure_future(self._server.main_loop())
        gc.collect()
        gc.freeze()  # the collector never looks through what is there before the first request
        try:
            await asyncio.wait([*tasks, ticks], return_when=asyncio.FIRST_COMPLETED)
            self.stopping = True
            await self._let_callers_go(queue)
        finally:
            self._server.should_exit = True
            await ticks
            tasks.append(asyncio.ensure_future(self._cut_the_silent()))
            await self._server.shutdown(sockets=[where])
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _let_callers_go(self, queue: socket.socket) -> None:
        """Callers with a connection are told to connect elsewhere by the answer to what they ask next."""
        state = self._server.server_state
        structlog.get_logger("headrace.server").info("stopping", connections=len(state.connections))
        if self._drain_s:
            await asyncio.sleep(self._drain_s)
        for server in self._server.servers:
            server.close()
        await self._take_the_last(queue)
        rounds = round(IDLE_S / LOOK_S)
        while state.connections and rounds:
            rounds -= 1
            await asyncio.sleep(LOOK_S)

    async def _cut_the_silent(self) -> None:
        """Over TLS a goodbye is said and the caller's waited for, half a minute in uvloop; who keeps an idle connection
        in a pool does not look. What was to be sent has been sent then."""
        while True:
            await asyncio.sleep(IDLE_S)
            for connection in list(self._server.server_state.connections):
                transport = connection.transport
                if transport.is_closing() and not transport.get_write_buffer_size():
                    transport.abort()

    async def _take_the_last(self, queue: socket.socket) -> None:
        """Accepts those who had connected when the listening ended: their requests may be under way."""
        loop, config, server = asyncio.get_running_loop(), self._server.config, self._server
        with queue:
            let_nobody_in(queue)
            while True:
                try:
                    connection, _ = queue.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return
                connection.setblocking(False)
                with contextlib.suppress(OSError):  # gone before its handshake was over
                    await loop.connect_accepted_socket(
                        lambda: config.http_protocol_class(  # type: ignore[call-arg]
                            config=config, server_state=server.server_state, app_state=server.lifespan.state
                        ),
                        connection,
                        ssl=config.ssl,
                    )

    def _serve(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._app(scope, receive, _closing(send) if self.stopping else send)


class _Uvicorn(uvicorn.Server):
    """A server of uvicorn whose signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _closing(send: Send) -> Send:
    async def told(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return told
