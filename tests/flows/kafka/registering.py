"""A Schema Registry for tests: a small HTTP server that speaks the two endpoints which a reader asks.

A fake, because no registry is to be had from PyPI, Debian or Maven Central as something that starts by itself. Answers
have the form that Confluent's API reference gives, error codes included.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeRegistry:
    """What a registry holds, and how it behaves just now.

    Attributes:
        schemas: id -> answer. versions: (subject, version) -> answer. login: "user:password" that it asks for.
        failing: answer every request with this status. asked: paths, in order.
    """

    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    versions: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    login: str | None = None
    failing: int | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def add(
        self, id: int, schema: Any, kind: str | None = None, references: list[dict[str, Any]] | None = None
    ) -> None:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        answer = {"schema": text, "schemaType": kind, "references": references}
        self.schemas[id] = {name: value for name, value in answer.items() if value is not None}

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, Any]]:
        self.asked.append(path)
        if self.failing is not None:
            return self.failing, {"error_code": 50001, "message": "Error in the backend datastore"}
        if self.login is not None and authorization != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            return 401, {"error_code": 401, "message": "Unauthorized"}
        parts = path.split("/")
        if parts[1:3] == ["schemas", "ids"] and int(parts[3]) in self.schemas:
            return 200, self.schemas[int(parts[3])]
        if parts[1] == "subjects" and (parts[2], parts[4]) in self.versions:
            return 200, self.versions[parts[2], parts[4]]
        return 404, {"error_code": 40403, "message": "Schema not found"}


@contextmanager
def serving(registry: FakeRegistry, port: int = 0, context: ssl.SSLContext | None = None) -> Iterator[FakeRegistry]:
    """The registry on a port of this machine, while the block runs; over TLS with a context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = registry.answer(self.path, self.headers["Authorization"])
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that does not trust us hangs up in the handshake."""

    server = Server(("127.0.0.1", port), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    registry.url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def framed(id: int, body: bytes) -> bytes:
    """A message in the registry's wire format."""
    return b"\x00" + id.to_bytes(4, "big") + body
