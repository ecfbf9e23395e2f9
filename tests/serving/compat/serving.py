"""A lookup server on a real socket: somewhere, or the application in a thread of the test's process."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn

from headrace.serving import AsyncClient
from headrace.serving.http import Pushes, ServerSettings, lookup_app
from headrace.serving.http.protocol import BoundedHttp
from headrace.stores.online import OnlineStore


@dataclass(frozen=True)
class Reply:
    """status, headers with names in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Address:
    """Where a lookup server listens.

    Attributes:
        port: of 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, body: Any, path: str = "/get-online-features", **headers: str) -> Reply:
        """POST a body of JSON; headers with _ for -."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
        return self.send("POST", path, data, given)

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, told, answer.read())
        finally:
            connection.close()


class _Uvicorn(uvicorn.Server):
    """Signals are pytest's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Served(Address):
    """Serves until its block ends.

    Args:
        store: what is read. known: views and services.
    """

    def __init__(
        self,
        store: OnlineStore,
        known: Iterable[Any],
        settings: ServerSettings | None = None,
        pushes: Pushes | None = None,
    ) -> None:
        self._store, self._known, self._settings, self._pushes = store, known, settings, pushes
        self._listening = socket.create_server(("127.0.0.1", 0))
        super().__init__(self._listening.getsockname()[1])
        self._server: _Uvicorn | None = None
        self._thread = threading.Thread(target=self._run, name="lookup server")

    def __enter__(self) -> "Served":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server does not end"

    def _run(self) -> None:
        async def serve() -> None:
            async with AsyncClient(self._store, self._known) as client:
                app = lookup_app(client, settings=self._settings, pushes=self._pushes)
                config = uvicorn.Config(
                    app,
                    http=BoundedHttp,
                    ws="none",
                    lifespan="off",
                    interface="asgi3",
                    log_config=None,
                    access_log=False,
                    timeout_graceful_shutdown=1,
                )
                self._server = _Uvicorn(config)
                await self._server.serve(sockets=[self._listening])

        asyncio.run(serve())
