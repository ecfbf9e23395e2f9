"""An HTTP server that takes what web hooks post, and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = int | tuple[int, dict[str, str]] | None
"""A status, perhaps with headers; None breaks the connection off."""


@dataclass
class Post:
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Receiver:
    """url: where. posts: what came, in order; answers: what each body is answered."""

    url: str
    posts: list[Post] = field(default_factory=list)
    answers: Callable[[Any], Answer] = lambda _: 204


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.posts.append(Post(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answer = found.answers(body)
            if answer is None:
                self.close_connection = True
                return
            status, headers = (answer, {}) if isinstance(answer, int) else answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            text = b"" if status == 204 else b"no, Bearer s3cret-token"
            if status != 204:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Receiver(f"http://127.0.0.1:{server.server_address[1]}/alerts")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
