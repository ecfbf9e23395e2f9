"""A client of HTTP/1.1 that costs next to nothing: one connection kept open, requests made beforehand."""

import socket
import time
from types import TracebackType

PATH = "/get-online-features"


def post(body: bytes, path: str = PATH) -> bytes:
    """A request, as it is sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class KeepAlive:
    """One connection to a server of this machine.

    Attributes:
        broken: how often the server closed it and a request was made again.
    """

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        self.port, self.timeout_s, self.broken = port, timeout_s, 0
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; on a new connection when the server closed the old one."""
        until = time.monotonic() + self.timeout_s
        while True:
            try:
                return self._asked(request)
            except (ConnectionError, EOFError):
                self.close()
                if time.monotonic() > until:
                    raise
                self.broken += 1
                time.sleep(0.002)

    def _asked(self, request: bytes) -> tuple[int, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), self.timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        data = self._received()
        end = data.find(b"\r\n\r\n")
        while end < 0:
            data += self._received()
            end = data.find(b"\r\n\r\n")
        status, head = int(data[9:12]), data[:end].lower()
        at = head.index(b"\r\ncontent-length:") + 17
        stop = head.find(b"\r\n", at)
        missing = int(head[at : stop if stop > 0 else end]) - (len(data) - end - 4)
        parts = [data[end + 4 :]]
        while missing > 0:
            parts.append(self._received())
            missing -= len(parts[-1])
        return status, b"".join(parts)

    def _received(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(1 << 18)
        if not data:
            raise EOFError
        return data

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> "KeepAlive":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
