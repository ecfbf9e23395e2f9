"""Bytes on a socket, and what comes back for them."""

import re
import socket
from types import TracebackType
from typing import Any

PATIENCE_S = 20.0


class Wire:
    """One connection.

    Attributes:
        closed: the server has closed it.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._left = b""
        self.closed = False

    def send(self, data: bytes | str) -> "Wire":
        """Send, as far as the server still takes anything."""
        try:
            self._socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        except OSError:
            self.closed = True
        return self

    def end(self) -> "Wire":
        """Say that nothing more comes, if the server still listens."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # it hung up while we were talking
            self.closed = True
        return self

    def answer(self, *, head: bool = False) -> tuple[int, bytes]:
        """Status and body of the next answer; (0, what came) when the connection is closed before it is whole.

        Args:
            head: of a HEAD, which has a length but no body.

        Raises:
            TimeoutError: nothing came.
        """
        while b"\r\n\r\n" not in self._left:
            if not self._more():
                return 0, self._take(len(self._left))
        said = self._take(self._left.index(b"\r\n\r\n") + 4)
        status = int(said.split(None, 2)[1])
        length = re.search(rb"\r\ncontent-length: *(\d+)", said, re.IGNORECASE)
        n = 0 if head or length is None else int(length[1])
        while len(self._left) < n:
            if not self._more():
                return 0, said + self._take(len(self._left))
        return status, self._take(n)

    def ended(self) -> bool:
        """Whether the server closes the connection, with nothing more said."""
        return not self._more() and not self._left

    def _more(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        self._left += data
        self.closed = self.closed or not data
        return bool(data)

    def _take(self, n: int) -> bytes:
        taken, self._left = self._left[:n], self._left[n:]
        return taken

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self._socket.close()
