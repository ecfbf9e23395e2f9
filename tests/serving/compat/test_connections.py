"""What is no HTTP, or a lie about its length, is told so or ends its connection; the server goes on."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import SLOW_IS_FINE
from tests.serving.compat.hostile import BODY, GOOD, good
from tests.serving.compat.serving import Address, Served
from tests.serving.compat.views import VIEWS
from tests.serving.compat.wire import Wire

from headrace.serving.http import ServerSettings
from headrace.stores.memory import MemoryStore

HEAD = "POST /get-online-features HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"

PLAIN_POST = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks)


REFUSED: list[tuple[str, Any, int]] = [
    ("no HTTP", "hello\r\n\r\n", 400),
    ("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, 400),
    ("binary", bytes(range(256)), 400),
    ("no method of HTTP", "FETCH /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a method in small letters", "get /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a blank in the path", "GET /health z HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a NUL in a header", "GET /healthz HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
    ("a blank before the colon", "GET /healthz HTTP/1.1\r\nHost : h\r\n\r\n", 400),
    ("a length that is none", f"{HEAD}Content-Length: many\r\n\r\n{{}}", 400),
    ("a negative length", f"{HEAD}Content-Length: -1\r\n\r\n{{}}", 400),
    ("a signed length", f"{HEAD}Content-Length: +2\r\n\r\n{{}}", 400),
    ("a length beyond all", f"{HEAD}Content-Length: {10**30}\r\n\r\n{{}}", 400),
    ("two lengths", f"{HEAD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}x", 400),
    ("a length and chunks", f"{HEAD}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a length over the limit", f"{HEAD}Content-Length: {1 << 40}\r\n\r\n{{", 413),
    ("a long header", f"{HEAD}X-Long: {'x' * 2_000_000}\r\n\r\n", 431),
    ("many headers", HEAD + "".join(f"X-{at}: {at}\r\n" for at in range(100_000)) + "\r\n", 431),
]


@pytest.mark.parametrize(("sent", "status"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_request_is_refused_in_json_and_closed(bounded_server: Address, sent: Any, status: int) -> None:
    with Wire(bounded_server.port) as wire:
        found, body = wire.send(sent).answer()
        assert found == status, body
        assert len(json.loads(body)["detail"]) > 20
        assert wire.ended()


ANSWERED: list[tuple[str, Any, int]] = [
    ("HTTP/1.0", PLAIN_POST.replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    ("no host", PLAIN_POST.replace(b"Host: h\r\n", b""), 200),
    ("an absolute path", PLAIN_POST.replace(b"POST /", b"POST http://elsewhere/"), 200),
    ("a query", PLAIN_POST.replace(b"features HTTP", b"features?a=b&c HTTP"), 200),
    ("headers of no ASCII", PLAIN_POST.replace(b"Host: h", b"Host: h\r\nX-Name: \xff\xfe"), 200),
    ("a trace id of no ASCII", PLAIN_POST.replace(b"Host: h", b"Host: h\r\nX-Request-Id: \xff\xfe"), 200),
    ("chunks of a byte", f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
        + chunked(*(BODY[at : at + 1] for at in range(len(BODY)))) + b"0\r\n\r\n", 200),
    ("a trailer", f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked(BODY) + b"0\r\nX: y\r\n\r\n", 200),
    ("a chunk's extension", f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
        + b"%x;a=b\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n", 200),
    ("chunks over the limit", f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
        + chunked(*[b"x" * 65536] * 17) + b"0\r\n\r\n", 413),
    ("no body", f"{HEAD}Content-Length: 0\r\n\r\n", 400),
    ("no length", f"{HEAD}\r\n", 400),
    ("another type", PLAIN_POST.replace(b"application/json", b"text/plain"), 415),
    ("a form", PLAIN_POST.replace(b"application/json", b"application/x-www-form-urlencoded"), 415),
    ("another charset", PLAIN_POST.replace(b"application/json", b"application/json; charset=latin-1"), 415),
    ("no type at all", PLAIN_POST.replace(b"application/json", b";;;"), 415),
    ("an answer in pictures", PLAIN_POST.replace(b"Host: h", b"Host: h\r\nAccept: image/png"), 406),
    ("an Accept of nonsense", PLAIN_POST.replace(b"Host: h", b"Host: h\r\nAccept: ;;q=x,,/"), 406),
    ("another path", PLAIN_POST.replace(b"/get-online-features", b"/get-online-feature"), 404),
    ("a path twice slashed", PLAIN_POST.replace(b"/get-online", b"//get-online"), 404),
    ("a path up", PLAIN_POST.replace(b"/get-online-features", b"/../../etc/passwd"), 404),
    ("a path of no UTF-8", PLAIN_POST.replace(b"/get-online-features", b"/%ff%fe%00"), 404),
    ("another method", PLAIN_POST.replace(b"POST", b"PUT"), 405),
    ("a DELETE", "DELETE /get-online-features HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    ("a POST to a page", PLAIN_POST.replace(b"/get-online-features", b"/healthz"), 405),
    ("OPTIONS of all", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 404),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), [case[1:] for case in ANSWERED], ids=[case[0] for case in ANSWERED])
def test_odd_requests_are_answered(bounded_server: Address, sent: Any, status: int) -> None:
    with Wire(bounded_server.port) as wire:
        found, body = wire.send(sent).answer()
        assert found == status, body
        if status != 200:
            assert len(json.loads(body)["detail"]) > 20


def test_a_compressed_body_is_refused(bounded_server: Address) -> None:
    reply = bounded_server.ask(gzip.compress(BODY), Content_Encoding="gzip")
    assert (reply.status, "compressed" in reply.json["detail"]) == (415, True)


def test_many_requests_in_one_piece_are_answered_in_their_order(bounded_server: Address) -> None:
    users = [f"u{at}" for at in range(200)]
    requests = []
    for user in users:
        body = json.dumps(good(entities={"user": [user]})).encode()
        requests.append(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    with Wire(bounded_server.port) as wire:
        wire.send(b"".join(requests))
        for user in users:
            status, body = wire.answer()
            assert (status, json.loads(body)["results"][0]["values"]) == (200, [user])


def test_a_refusal_leaves_the_requests_behind_it_as_they_are(bounded_server: Address) -> None:
    with Wire(bounded_server.port) as wire:
        wire.send(PLAIN_POST.replace(BODY, b"x" * len(BODY)) + PLAIN_POST)
        assert [wire.answer()[0], wire.answer()[0]] == [400, 200]


def test_a_body_shorter_than_its_length_is_waited_for_and_given_up() -> None:
    sent = f"{HEAD}Content-Length: {len(BODY) + 1}\r\n\r\n".encode() + BODY
    with Served(MemoryStore(), VIEWS, ServerSettings(timeout_s=0.2)) as server, Wire(server.port) as wire:
        status, body = wire.send(sent).answer()
        assert (status, "did not arrive" in json.loads(body)["detail"]) == (408, True)
        assert wire.ended()


@pytest.mark.parametrize("path", ["/" + "x" * 100_000, "/healthz?" + "x" * 100_000])
def test_a_path_has_an_end(bounded_server: Address, path: str) -> None:
    with Wire(bounded_server.port) as wire:
        status, body = wire.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").answer()
        assert status in (400, 431)  # the parser has a limit of its own, for what came in one piece
        assert len(json.loads(body)["detail"]) > 20
        assert wire.ended()


BROKEN_BODIES = {
    "chunks of no number": f"{HEAD}Transfer-Encoding: chunked\r\n\r\nxyz\r\n".encode(),
    "a chunk longer than it says": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n123456\r\n0\r\n\r\n".encode(),
    "more than its length": f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY + b"trailing\r\n\r\n",
}


@pytest.mark.parametrize("sent", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
def test_a_body_that_breaks_its_frame_ends_the_connection(bounded_server: Address, sent: bytes) -> None:
    """At once: the answer that was being made is lost with it, and what follows is no second request."""
    with Wire(bounded_server.port) as wire:
        assert wire.send(sent + PLAIN_POST).answer() == (0, b"")
        assert wire.ended()


def test_clients_that_leave_or_stall_anywhere_hold_nobody_up(bounded_server: Address) -> None:
    stalled = []
    for at in (1, 10, len(HEAD) - 1, len(HEAD) + 5, len(PLAIN_POST) - 1):
        for _ in range(20):
            stalled.append(Wire(bounded_server.port).send(PLAIN_POST[:at]))
            Wire(bounded_server.port).send(PLAIN_POST[:at]).__exit__(None, None, None)
        with Wire(bounded_server.port) as half:
            half.send(PLAIN_POST[:at]).end()
            assert half.answer()[0] in (0, 400, 408)
        assert bounded_server.ask(GOOD).status == 200
    for wire in stalled:
        wire.__exit__(None, None, None)


@settings(max_examples=100, suppress_health_check=[*SLOW_IS_FINE, HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(min_size=1, max_size=200)
    | st.builds(
        lambda a, b, c: PLAIN_POST[:a] + b + PLAIN_POST[c:],
        st.integers(0, len(PLAIN_POST)),
        st.binary(max_size=8),
        st.integers(0, len(PLAIN_POST)),
    )
)
def test_any_bytes_on_a_connection(bounded_server: Address, data: bytes) -> None:
    """Sent and ended: answers, if any, are whole and no failure of the server."""
    with Wire(bounded_server.port) as wire:
        wire.send(data).end()
        while True:
            status, body = wire.answer()
            if status == 0:
                assert body == b""
                break
            assert status in (200, 400, 404, 405, 406, 408, 413, 415, 422, 431), body
