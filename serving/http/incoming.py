"""One request: its head, its id, its body within the limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from headrace.serving.http.at_once import at_once_or_within
from headrace.serving.http.problems import Problem, too_late

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_DISCARDED_BYTES = 64 << 20
"""A body that is known to be no larger is read to its end and dropped, so that the client gets to read why; the
connection of a larger one is closed."""

_CLOSE = ((b"connection", b"close"),)


class ClientLeft(Exception):
    """The client closed its connection before its request was whole."""


class Incoming:
    """A request.

    Attributes:
        headers: names in lower case; of a repeated one the last. bytes_in: of the body, as far as it was read.
    """

    __slots__ = ("_receive", "bytes_in", "headers", "method", "path", "query", "trace")

    def __init__(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes], trace: str) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.headers, self.trace, self.bytes_in = headers, trace, 0
        self._receive = receive

    async def body(self, most: int, timeout_s: float) -> bytes:
        """The whole body.

        Args:
            most: bytes. timeout_s: for all of it to arrive.

        Raises:
            Problem: 413 for more than `most`, as soon as that is known; 408 when it does not arrive in time.
            ClientLeft: the connection is gone.
        """
        declared = self.headers.get(b"content-length")
        if declared is not None and (length := int(declared[:18]) if declared.isdigit() else 0) > most:
            raise _too_large(most, length)
        try:
            return await at_once_or_within(self._read(most), timeout_s)
        except TimeoutError:
            late = too_late(timeout_s)
            raise Problem(
                408,
                f"The request's body did not arrive within {timeout_s:g} s.",
                reason=late.reason,
                headers=_CLOSE,
            ) from None

    async def _read(self, most: int) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientLeft
        body: bytes = message.get("body", b"")
        self.bytes_in = len(body)
        if self.bytes_in > most:
            raise _too_large(most, None)
        if not message.get("more_body", False):
            return body
        pieces = [body]
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientLeft
            piece = message.get("body", b"")
            self.bytes_in += len(piece)
            if self.bytes_in > most:
                raise _too_large(most, None)
            pieces.append(piece)
        return b"".join(pieces)


def _too_large(most: int, declared: int | None) -> Problem:
    got = "more" if declared is None else f"{declared:,}"
    return Problem(
        413,
        f"The request's body has {got} bytes, the server's limit is {most:,}. Ask for fewer entities at a time.",
        reason="too_large",
        headers=() if declared is not None and declared <= _DISCARDED_BYTES else _CLOSE,
    )
