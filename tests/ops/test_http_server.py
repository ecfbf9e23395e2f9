"""The process that serves an application: real sockets, real signals, and no request lost when it is asked to stop."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headrace.ops.errors import ConfigurationError
from headrace.ops.server_address import bound, let_nobody_in, listening

SERVER = """
import asyncio, sys
from headrace.ops.http_server import HttpServer
from headrace.ops.server_address import bound, listening

async def app(scope, receive, send):
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    await asyncio.sleep(0.001)
    body = b"yes" if scope["path"] != "/stopping" else str(server.stopping).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

async def beside():
    BESIDE

with bound("127.0.0.1", 0) as kept:
    port = kept.getsockname()[1]
    server = HttpServer(app, drain_s=DRAIN, stop_within_s=10)
    where = listening("127.0.0.1", port)
    print(port, flush=True)
    server.run(where, beside)
print("ended", server.first, flush=True)
"""


@contextmanager
def served(
    drain: float = 0.0, beside: str = "await asyncio.sleep(3600)"
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    code = SERVER.replace("DRAIN", str(drain)).replace("BESIDE", beside)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, int(line)
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
        process.stderr.close()


def get(port: int, path: str = "/") -> tuple[int, str, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.getheader("connection")
    connection.close()
    return found


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


class Caller(threading.Thread):
    """Asks over connections that stay open, one request after the other, until it is refused at the door."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.answered, self.lost = port, 0, 0

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while True:
            try:
                connection.connect()
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue
            while connection.sock is not None:  # until an answer says that the connection is closed
                try:
                    connection.request("GET", "/")
                    assert connection.getresponse().read() == b"yes"
                    self.answered += 1
                except (OSError, http.client.HTTPException):
                    self.lost += 1
                    connection.close()


def test_asked_to_stop_under_load_it_loses_no_request() -> None:
    with served() as (process, port):
        callers = [Caller(port) for _ in range(8)]
        for caller in callers:
            caller.start()
        while min(caller.answered for caller in callers) < 20 and all(caller.is_alive() for caller in callers):
            pass
        process.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.join(20)
        assert [caller.lost for caller in callers] == [0] * 8
        assert ended(process) == f"ended {int(signal.SIGTERM)}"


def test_a_request_under_way_is_answered_and_its_connection_closed() -> None:
    with served() as (process, port):
        slow = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        slow.request("GET", "/slow")
        assert get(port)[:2] == (200, "yes")  # the slow one has begun: it came first
        process.send_signal(signal.SIGTERM)
        answer = slow.getresponse()
        assert (answer.status, answer.read()) == (200, b"yes")
        slow.close()
        ended(process)


def test_while_it_drains_it_answers_and_says_close() -> None:
    with served(drain=30.0) as (process, port):
        assert get(port, "/stopping") == (200, "False", None)
        process.send_signal(signal.SIGTERM)
        while (told := get(port, "/stopping"))[1] == "False":
            pass
        assert told == (200, "True", "close")
        process.send_signal(signal.SIGTERM)  # a second signal ends it at once
        assert process.wait(10) == 128 + signal.SIGTERM


def test_an_idle_connection_holds_nothing_up() -> None:
    with served() as (process, port), socket.create_connection(("127.0.0.1", port)) as idle:
        assert get(port)[0] == 200
        process.send_signal(signal.SIGINT)
        assert ended(process) == f"ended {int(signal.SIGINT)}"
        assert idle.recv(1) == b""


def test_an_error_beside_ends_the_server_and_is_told() -> None:
    with served(beside="raise ValueError('beside')") as (process, _):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "ValueError: beside" in err


@pytest.mark.parametrize("taken", ["0.0.0.0", "127.0.0.1"])
def test_a_port_that_is_taken_is_refused_also_when_its_owner_would_share_it(taken: str) -> None:
    with bound(taken, 0) as kept:
        kept.listen()
        port = kept.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
            bound("127.0.0.1", port)


@pytest.mark.skipif(sys.platform != "linux", reason="its filters are Linux's")
def test_who_connects_before_nobody_is_let_in_is_served_and_who_comes_later_is_not_reset() -> None:
    with bound("127.0.0.1", 0) as kept:
        port = kept.getsockname()[1]
        where = listening("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), 5) as before:
            let_nobody_in(where)
            with socket.socket() as late:
                late.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    late.connect(("127.0.0.1", port))
            before.sendall(b"ask")
            taken, _ = where.accept()
            where.close()
            with taken:
                assert taken.recv(3) == b"ask"
                taken.sendall(b"answer")
            assert before.recv(10) == b"answer"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
