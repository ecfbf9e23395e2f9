"""The app over real sockets: odd heads, bodies in shreds, upgrades, and the server's bounds."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from headrace.serving.http.protocol import BoundedHttp

DATA = b'{"features": ["visits:total"], "entities": {"user": ["a"]}}'
POST = b"POST /get-online-features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SIZED = POST + b"Content-Length: %d\r\n" % len(DATA)
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"


class Hurried(BoundedHttp):
    HEAD_S, REQUEST_S, IDLE_S = 0.3, 0.6, 0.3


@pytest.fixture
def serve(app: Any) -> Iterator[Any]:
    """Serves the app with a protocol; gives the port."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(protocol: type[BoundedHttp] = BoundedHttp) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, http=protocol, loop="uvloop", ws="none", lifespan="off", log_config=None, timeout_keep_alive=60
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        running.append((server, thread))
        thread.start()
        return int(listening.getsockname()[1])

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


class Line:
    """A connection on which bytes are sent as they are."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer, whole."""
        while b"\r\n\r\n" not in self.kept:
            self._more()
        head, self.kept = self.kept.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = dict(re.split(r":\s*", line, maxsplit=1) for line in lines)
        size = int(headers.get("content-length", 0))
        while len(self.kept) < size:
            self._more()
        body, self.kept = self.kept[:size], self.kept[size:]
        return int(first.split()[1]), headers, body

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"closed after {self.kept!r}"
        self.kept += data

    @property
    def closed(self) -> bool:
        """Waits until the server has closed it."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def line(serve: Any) -> Iterator[Line]:
    found = Line(serve())
    yield found
    found.socket.close()


def total(line: Line) -> Any:
    status, headers, body = line.answer()
    assert (status, headers["content-type"]) == (200, "application/json")
    return json.loads(body)["results"][1]["values"]


def test_a_connection_is_kept_and_requests_may_come_in_one_piece_or_in_many(line: Line) -> None:
    line.send((SIZED + b"\r\n" + DATA) * 3)
    assert [total(line) for _ in range(3)] == [[1.5]] * 3
    for at in range(0, len(SIZED + b"\r\n" + DATA), 11):
        line.send((SIZED + b"\r\n" + DATA)[at : at + 11])
    assert total(line) == [1.5]


def test_a_chunked_body(line: Line) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(DATA[at : at + 9]), DATA[at : at + 9]) for at in range(0, len(DATA), 9))
    line.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert total(line) == [1.5]


def test_a_chunked_body_over_the_limit(line: Line) -> None:
    line.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b" " * 0x100000 + b"\r\n1\r\n \r\n")
    status, headers, body = line.answer()
    assert (status, headers["connection"]) == (413, "close")
    assert "more bytes" in json.loads(body)["detail"]


def test_a_body_over_the_limit_is_read_and_dropped_and_the_connection_goes_on(line: Line) -> None:
    size = (1 << 20) + 1
    line.send(POST + b"Content-Length: %d\r\n\r\n" % size + b" " * size)
    assert line.answer()[0] == 413
    line.send(SIZED + b"\r\n" + DATA)
    assert total(line) == [1.5]


def test_expect_100_continue(line: Line) -> None:
    line.send(SIZED + b"Expect: 100-continue\r\n\r\n")
    assert line.answer()[0] == 100
    line.send(DATA)
    assert total(line) == [1.5]


def test_answers_of_all_sizes_and_methods_in_order_on_one_connection(line: Line) -> None:
    """Head and body leave together, but for large bodies and for answers without one."""
    users = json.dumps({"features": ["visits"], "entities": {"user": ["a"] * 2000}}).encode()
    large = POST + b"Content-Length: %d\r\n\r\n" % len(users) + users
    head = b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    options = b"OPTIONS /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    line.send((large + SIZED + b"\r\n" + DATA + options) * 2 + large + head)
    for _ in range(2):
        assert total(line) == [3] * 2000
        assert total(line) == [1.5]
        assert line.answer()[:1] == (204,)
    assert total(line) == [3] * 2000
    while b"\r\n\r\n" not in line.kept:
        line._more()
    assert line.kept.startswith(b"HTTP/1.1 200 OK\r\n")
    assert line.kept.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upgrade_is_passed_over(line: Line, framing: str) -> None:
    """As Java's HttpClient sends it: what follows the head is an ordinary body, and more requests."""
    if framing == "length":
        request = SIZED + UPGRADE + b"\r\n" + DATA
    else:
        request = POST + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(DATA), DATA)
    line.send(request + request)
    assert [total(line), total(line)] == [[1.5], [1.5]]
    line.send(request[:-20])
    line.send(request[-20:] + SIZED + b"\r\n" + DATA)
    assert [total(line), total(line)] == [[1.5], [1.5]]
    line.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"\r\n")
    assert line.answer()[0] == 200
    line.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert line.answer()[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        SIZED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        SIZED + b"Content-Length: 5\r\n\r\n" + DATA,
        POST + b"Content-Length: -1\r\n\r\n",
        SIZED + b"X-A: 1\r\n 2\r\n\r\n" + DATA,
        SIZED + b"X-A : 1\r\n\r\n" + DATA,
        SIZED + b"X-A: 1\x002\r\n\r\n" + DATA,
        POST.replace(b"\r\n", b"\n") + b"\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT other:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so_in_json(line: Line, sent: bytes) -> None:
    line.send(sent)
    status, headers, body = line.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert json.loads(body) == {"detail": "This is no HTTP/1.1 request."}
    assert line.closed


def test_a_broken_chunk_closes_the_connection_and_nothing_else(serve: Any) -> None:
    port = serve()
    broken, other = Line(port), Line(port)
    with broken.socket, other.socket:
        broken.send(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n")
        assert broken.closed
        other.send(SIZED + b"\r\n" + DATA)
        assert total(other) == [1.5]


def test_a_head_has_an_end(line: Line) -> None:
    line.send(POST + b"X-A: " + b"a" * 10_000)
    line.send(b"a" * 10_000)
    status, headers, body = line.answer()
    assert (status, headers["connection"]) == (431, "close")
    assert "16,384 bytes" in json.loads(body)["detail"]


def test_a_slow_head_a_slow_body_and_a_silent_connection_are_closed(serve: Any) -> None:
    port = serve(Hurried)
    began = time.monotonic()
    head, body, silent, late = (Line(port) for _ in range(4))
    with head.socket, body.socket, silent.socket, late.socket:
        head.send(POST)
        body.send(SIZED + b"\r\n")
        late.send(SIZED + b"\r\n" + DATA)
        assert total(late) == [1.5]
        status, _, said = head.answer()
        assert (status, json.loads(said)["detail"]) == (408, "The request's head did not arrive within 0.3 s.")
        assert head.closed
        assert silent.closed
        assert body.closed
        assert time.monotonic() - began > 0.3
        late.send(SIZED + b"\r\n" + DATA)  # idle for as long, but it is uvicorn's keep-alive that counts here
        assert total(late) == [1.5]
