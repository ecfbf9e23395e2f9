"""Metrics and health over HTTP: what is answered, to whom, and that nobody holds the server up."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from headrace.ops.errors import ConfigurationError
from headrace.ops.health import Health
from headrace.ops.metrics import Metrics
from headrace.ops.serving import AT_ONCE, OpsServer


@pytest.fixture
def health() -> Health:
    return Health(60.0, 100)


@pytest.fixture
def server(health: Health) -> Iterator[OpsServer]:
    with OpsServer("127.0.0.1", 0, Metrics("rides", "a").registry, health) as running:
        yield running


def get(server: OpsServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def raw(server: OpsServer, request: bytes) -> bytes:
    """What comes back; a server that hangs up while we are still talking resets the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection, suppress(ConnectionError):
        connection.sendall(request)
        with suppress(OSError):  # ENOTCONN, which is no ConnectionError: it has hung up already
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            answer += part
    return answer


def test_metrics_are_in_prometheus_format(server: OpsServer) -> None:
    status, kind, text = get(server, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert 'headrace_build_info{flow="rides"' in text
    assert get(server, "/metrics?name=x", "HEAD")[2] == ""
    accept = "application/openmetrics-text; version=1.0.0"
    assert get(server, "/metrics", Accept=accept)[2].endswith("# EOF\n")


def test_health_says_why_not(server: OpsServer, health: Health) -> None:
    assert get(server, "/healthz")[0] == 200
    status, kind, text = get(server, "/readyz")
    assert (status, kind) == (503, "application/json")
    assert json.loads(text) == {"ok": False, "because": ["No task is assigned yet, or one is still restoring."]}
    health.ready(True)
    assert json.loads(get(server, "/readyz")[2]) == {"ok": True, "because": []}


def test_no_secret_is_told_by_health(server: OpsServer, health: Health) -> None:
    health.trouble("online store", "refused by redis://:hunter2-PLANTED@cache:6379")
    assert "hunter2-PLANTED" not in get(server, "/readyz")[2]


def test_other_paths_and_methods_are_refused(server: OpsServer) -> None:
    assert get(server, "/")[:1] == (404,)
    assert get(server, "/../../etc/passwd")[0] == 404
    assert get(server, "/metrics", "POST")[0] == 501


def test_a_long_request_is_not_read_to_its_end(server: OpsServer) -> None:
    assert b"200" not in raw(server, b"GET /" + b"x" * 9_000).split(b"\r\n")[0]
    raw(server, b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 5_000 + b"\r\n")  # answered or hung up, at once
    assert get(server, "/healthz")[0] == 200


def test_connections_that_say_nothing_do_not_add_up(server: OpsServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(AT_ONCE + 4)]
    try:
        turned_away = 0
        for connection in idle[AT_ONCE:]:
            turned_away += connection.recv(1) == b""
        assert turned_away == 4
    finally:
        for connection in idle:
            connection.close()


def test_a_port_in_use_is_told_with_the_way_out(server: OpsServer, health: Health) -> None:
    with pytest.raises(ConfigurationError, match="Choose another with --metrics-port"):
        OpsServer("127.0.0.1", server.port, Metrics("rides", "b").registry, health)
    with pytest.raises(ConfigurationError, match=r"'nowhere\.invalid' is no address of this machine"):
        OpsServer("nowhere.invalid", 0, Metrics("rides", "b").registry, health)
