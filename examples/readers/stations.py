"""A server of air quality readings on this machine: over HTTP, and over a web socket."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.sync.server import ServerConnection, serve


class Stations:
    """Readings with ids 1, 2, 3, ...; to be used in a `with` statement.

    Attributes:
        http, socket: where they are. asked: after which id, by each that asked.
        breaking: how many messages the next web sockets send before their connection breaks; they close when done.
    """

    def __init__(self) -> None:
        self._readings: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.breaking: list[int] = []

    def add(self, n: int) -> None:
        for i in range(len(self._readings), len(self._readings) + n):
            at = f"2026-05-01T12:{5 * i % 60:02d}:00Z"
            self._readings.append({"id": i + 1, "station": f"S{i % 2}", "pm10": 10.0 + i, "at": at})

    def after(self, number: int, how: str) -> list[dict[str, Any]]:
        self.asked.append(f"{how} {number}")
        return self._readings[number:]

    def __enter__(self) -> "Stations":
        stations = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                after = int(parse_qs(urlsplit(self.path).query)["after"][0])
                body = json.dumps(stations.after(after, "http")[:4]).encode()  # pages of four
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        def pushed(connection: ServerConnection) -> None:
            begun = json.loads(connection.recv())["after"]
            left = stations.breaking.pop(0) if stations.breaking else None
            for reading in stations.after(begun, "socket")[:left]:
                connection.send(json.dumps(reading))
            if left is not None:
                connection.socket.close()  # breaks off, without a word

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._socket = serve(pushed, "127.0.0.1", 0)
        self.http = f"http://127.0.0.1:{self._http.server_address[1]}/readings"
        self.socket = f"ws://127.0.0.1:{self._socket.socket.getsockname()[1]}"
        self._threads = [
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True),
            threading.Thread(target=self._socket.serve_forever, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._socket.shutdown()
        for thread in self._threads:
            thread.join()
