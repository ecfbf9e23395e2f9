"""/metrics, /healthz and /readyz of a worker over HTTP: small, read-only and hard to hold up.

A request has GET or HEAD, no body, at most 8 kB of head and 5 seconds to arrive; more than 16 at once are turned away.
It listens on loopback unless it is told otherwise: metrics name topics and views.
"""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from headrace.ops.errors import ConfigurationError
from headrace.ops.health import Health, Verdict
from headrace.ops.secrets import redact

HEAD_BYTES = 8 * 1024
SECONDS = 5.0
AT_ONCE = 16


class OpsServer:
    """The HTTP server of one worker, in a thread of its own; to be used in a `with` statement.

    Args:
        host, port: where it listens; port 0 is any free one, `port` tells which.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        handler = type("Handler", (_Handler,), {"registry": registry, "health": health})
        server_class = type("Server", (_Server,), {"address_family": _family(host, port)})
        try:
            self._server = server_class((host, port), handler)
        except OSError as error:
            raise ConfigurationError(
                f"Metrics cannot be served on {host}:{port}: {error.strerror}. Choose another with --metrics-port, or "
                "[metrics] host and port; each worker of --workers takes the next port."
            ) from error
        self.host = host
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="ops-http", daemon=True)

    def __enter__(self) -> OpsServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _family(host: str, port: int) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise ConfigurationError(
            f"[metrics] host: '{host}' is no address of this machine: {error.strerror}."
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, *given: Any) -> None:
        self._room = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no event of ours."""


class _Bounded(io.BufferedIOBase):
    """Reads no more than the head of a request may be."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._left = HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        line = self._stream.readline(min(self._left, size) if size is not None and size >= 0 else self._left)
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    health: Health
    timeout = SECONDS
    server_version = "headrace"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile = cast(Any, _Bounded(self.rfile))

    def do_GET(self) -> None:
        pages: dict[str, Callable[[], None]] = {
            "/metrics": self._metrics,
            "/healthz": lambda: self._say(self.health.is_alive()),
            "/readyz": lambda: self._say(self.health.is_ready()),
        }
        page = pages.get(self.path.partition("?")[0])
        if page is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"{' '.join(pages)}\n".encode())
        else:
            page()

    do_HEAD = do_GET

    def _metrics(self) -> None:
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._send(HTTPStatus.OK, content_type, encode(self.registry))

    def _say(self, verdict: Verdict) -> None:
        answer = {"ok": verdict.yes, "because": [redact(reason) for reason in verdict.because]}
        status = HTTPStatus.OK if verdict.yes else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(status, "application/json", json.dumps(answer).encode() + b"\n")

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Scrapes every few seconds are no news."""
