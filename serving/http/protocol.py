"""HTTP/1.1 for uvicorn with bounds: `uvicorn.Config(app, http=BoundedHttp)`.

uvicorn's own protocol over httptools takes a head of any size and waits for it for ever. This one adds

- a head of at most 16 KiB and one read (431), within 10 s (408); a request, body included, within 60 s;
- errors in JSON, as Feast's client parses every error it gets;
- head and body of an answer in one packet: the client wakes up once;
- "Upgrade: h2c", which Java's HttpClient sends along, passed over, as RFC 9110 (7.8) allows, on connections that go on.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

_CONTINUE = b"HTTP/1.1 100 "
_JOINED_BYTES = 64 * 1024
"""A body from that on is not copied to stand behind its head."""
_FRAMING = (b"content-length", b"transfer-encoding")


class BoundedHttp(HttpToolsProtocol):
    """One connection.

    Attributes:
        HEAD_BYTES: the most of a head, to which what one read of the socket brings may come. HEAD_S, REQUEST_S:
            seconds for a head and for a whole request. IDLE_S: for the first byte of a connection.
    """

    HEAD_BYTES = 16 * 1024
    HEAD_S = 10.0
    REQUEST_S = 60.0
    IDLE_S = 75.0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = True
        self._head_bytes = 0
        self._begun: float | None = None
        """When the first byte of the request came that is not whole yet."""
        self._asked = False
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._born = self.loop.time()
        self._watch = self.loop.call_later(self.HEAD_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._begun is None:
            self._begun = self.loop.time()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._pass_over(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(400, "This is no HTTP/1.1 request.")
            return
        if self._in_head and self._head_bytes > self.HEAD_BYTES:
            self._refuse(431, f"The request's head has more than {self.HEAD_BYTES:,} bytes.")

    def _pass_over(self, rest: bytes) -> None:
        """The parser stopped behind the head of a request that would like another protocol, and would read no body.
        Another one is told how the body is framed, and reads on."""
        calls = _Resumed(self)
        self.parser = httptools.HttpRequestParser(calls)
        framing = [b"%s: %s\r\n" % each for each in self.headers if each[0] in _FRAMING]
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(framing))
        calls.silent = False
        if rest:
            self.data_received(rest)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head, self._head_bytes, self._asked = False, 0, True
        if self.scope["method"] != "HEAD":  # an answer to HEAD has no body that its head could wait for
            self.cycle.transport = cast(asyncio.Transport, _Corked(self.transport))

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # of the head alone; see `_pass_over`
        super().on_message_complete()
        self._in_head, self._begun = True, None

    def _look(self) -> None:
        """Now and then: one timer for a connection costs nothing per request."""
        now, begun = self.loop.time(), self._begun
        if begun is None:
            if not self._asked and now - self._born >= self.IDLE_S:
                self.transport.close()
                return
        elif self._in_head and now - begun >= self.HEAD_S:
            self._refuse(408, f"The request's head did not arrive within {self.HEAD_S:g} s.")
            return
        elif now - begun >= self.REQUEST_S:
            self.transport.close()
            return
        self._watch = self.loop.call_later(self.HEAD_S, self._look)

    def _refuse(self, status: int, detail: str) -> None:
        """Say why and close, but for a connection on which another answer is under way."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            body = msgspec.json.encode({"detail": detail})
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
                + body
            )
        self.transport.close()


class _Corked:
    """What one answer is written to: its head waits for its body."""

    __slots__ = ("_head", "_to")

    def __init__(self, to: asyncio.Transport) -> None:
        self._to = to
        self._head: bytes | None = None
        """None: has not come; empty: is written."""

    def write(self, data: bytes) -> None:
        head = self._head
        if head is None and not data.startswith(_CONTINUE):
            self._head = data
        elif head and len(data) < _JOINED_BYTES:
            self._head = b""
            self._to.write(head + data)
        else:
            self._flush()
            self._to.write(data)

    def close(self) -> None:
        self._flush()
        self._to.close()

    def is_closing(self) -> bool:
        return self._to.is_closing()

    def _flush(self) -> None:
        head = self._head
        if head:
            self._head = b""
            self._to.write(head)


class _Resumed:
    """Passes on what a parser calls, but for the head that it is only given to learn how a body is framed."""

    def __init__(self, to: BoundedHttp) -> None:
        self._to = to
        self.silent = True
        self.on_body, self.on_message_complete = to.on_body, to.on_message_complete

    def on_message_begin(self) -> None:
        if not self.silent:
            self._to.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.silent:
            self._to.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.silent:
            self._to.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.silent:
            self._to.on_headers_complete()
