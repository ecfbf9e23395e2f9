"""The line between a supervisor and a worker process: the worker tells how it is doing, and ends when the line is cut.

A socket pair; the worker inherits its end and finds the number in the variable HEADRACE_SUPERVISOR. It sends JSON, a
line each. When the supervisor is gone, however it went, the worker reads the end of the stream and stops, so that no
worker outlives it. That works on every POSIX system, and unlike a parent-death signal leaves time for a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

VARIABLE = "HEADRACE_SUPERVISOR"
EVERY_S = 0.5
PENDING_BYTES = 1 << 20


class Lifeline:
    """A worker's end; to be used in a `with` statement.

    Args:
        end: the socket. status: what to tell every half second; called in a thread of the lifeline. cut: called once,
            in that thread, when the supervisor is gone.
    """

    def __init__(self, end: socket.socket, status: Callable[[], Mapping[str, Any]], cut: Callable[[], None]) -> None:
        self._end = end
        self._status = status
        self._cut = cut
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pending = b""
        self._thread = threading.Thread(target=self._watch, name="lifeline", daemon=True)

    @classmethod
    def inherited(
        cls,
        status: Callable[[], Mapping[str, Any]],
        cut: Callable[[], None],
        environment: MutableMapping[str, str] = os.environ,
    ) -> Lifeline | None:
        """The line to the supervisor that started this process; None when none did. Taken from the environment, so that
        no child of ours takes it for its own."""
        number = environment.pop(VARIABLE, None)
        if number is None:
            return None
        end = socket.socket(fileno=int(number))
        end.set_inheritable(False)
        return cls(end, status, cut)

    def __enter__(self) -> Lifeline:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._end.close()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message; what the supervisor does not read in time is dropped."""
        with self._lock:
            if len(self._pending) < PENDING_BYTES:
                self._pending += json.dumps(message).encode() + b"\n"
            with contextlib.suppress(OSError):
                sent = self._end.send(self._pending, socket.MSG_DONTWAIT)
                self._pending = self._pending[sent:]

    def _watch(self) -> None:
        self._end.settimeout(EVERY_S)
        while not self._closed.is_set():
            try:
                if self._end.recv(4096) == b"":
                    break
            except TimeoutError:
                self.tell(self._status())
            except OSError:
                break
        if not self._closed.is_set():
            self._cut()


class Line:
    """A supervisor's end: messages as they come.

    Attributes:
        end: the socket, not blocking.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.end.setblocking(False)
        self._rest = b""

    def read(self) -> list[dict[str, Any]] | None:
        """Messages that have come since; None when the worker has closed the line."""
        try:
            came = self.end.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not came:
            return None
        *lines, self._rest = (self._rest + came).split(b"\n")
        return [json.loads(line) for line in lines]
