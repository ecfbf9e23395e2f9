"""HTTP/1.1 on one connection that is kept open, from asyncio; made to be cancelled and torn off anywhere."""

import asyncio
import http.client
import json
from collections.abc import Mapping
from typing import Any

PATH = "/get-online-features"


class TornError(Exception):
    """The server closed the connection before the answer was whole."""


class AwayError(Exception):
    """Nobody accepts connections."""


def post(body: Mapping[str, Any], path: str = PATH) -> bytes:
    """A request, as it is sent."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return head.encode() + b"\r\n\r\n" + data


class Connection:
    """Opened when it is first used, and anew when the server closed it.

    Attributes:
        opened: how often.
    """

    def __init__(self, port: int) -> None:
        self.port, self.opened = port, 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            AwayError: no connection could be opened.
            TornError: it was closed before the answer was whole.
        """
        reader, writer = await self._open()
        try:
            writer.write(request)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            at = head.index(b"content-length:") + 15
            body = await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
            if b"\r\nconnection: close" in head:
                self.tear()
            return int(head[9:12]), body
        except (OSError, asyncio.IncompleteReadError) as error:
            self.tear()
            raise TornError(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.tear()
            raise

    async def begin(self, request: bytes, share: float) -> None:
        """Send a share of the request and go: the server sees a client that left."""
        _, writer = await self._open()
        try:
            writer.write(request[: round(len(request) * share)])
            await writer.drain()
        except OSError:
            pass
        finally:
            self.tear()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            except OSError as error:
                raise AwayError(str(error)) from error
            self.opened += 1
        return self._streams

    def tear(self) -> None:
        """Close the connection at once, whatever is on its way."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def get(port: int, path: str, timeout_s: float = 20.0) -> tuple[int, bytes]:
    """Status and body of a GET on a connection of its own; status 0 when nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
