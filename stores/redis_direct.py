"""Connections to Redis with as little around a request as can be, for threads.

redis-py makes them: address, TLS, user and password, database, and whom Sentinel names as the master now. From then on
bytes go straight out and answers come straight from the parser, which is in C.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from select import POLLIN, poll
from socket import SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET, socket
from typing import Any

READ_BYTES = 1 << 16

_LATE = (BlockingIOError, TimeoutError)
"""What a socket raises when time is up: as the kernel says it, as Python does."""


class DirectConnection:
    """A connection of one thread at a time.

    Args:
        connection: of redis-py, not connected yet. timeout_s: for each wait.
    """

    def __init__(self, connection: Any, timeout_s: float) -> None:
        from hiredis import HiredisError, Reader
        from redis.connection import DefaultParser

        self._connection, self._timeout_s, self._nonsense = connection, timeout_s, HiredisError
        self._parse_error: Callable[[str], Exception] = DefaultParser.parse_error
        self._more = object()
        self._replies = Reader(replyError=self._refusal, notEnoughData=self._more)
        self._refused = False
        connection.connect()
        sock = connection._sock
        if type(sock) is socket:
            # The kernel keeps the time: Python would ask it before each send and receive whether it may. TLS would wait
            # for ever.
            sock.settimeout(None)
            limit = struct.pack("ll", int(timeout_s), max(int(timeout_s % 1 * 1e6), 1))
            sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, limit)
            sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, limit)
        self._send, self._receive = sock.sendall, sock.recv

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """The answers to commands; after any error the connection is of no more use.

        Args:
            data: as they are sent. count: how many they are.

        Raises:
            redis.exceptions: an answer is an error; no answer in time; the connection is gone.
        """
        receive, feed, gets, more = self._receive, self._replies.feed, self._replies.gets, self._more
        answers: list[Any] = []
        try:
            self._send(data)
            while len(answers) < count:
                data = receive(READ_BYTES)
                if not data:
                    raise ConnectionResetError("Connection closed by server")
                feed(data)
                while (each := gets()) is not more:
                    answers.append(each)
        except (OSError, self._nonsense) as error:
            raise self._failure(error) from None
        if len(answers) > count:
            raise self._failure(OSError("it sent an answer that nobody asked for"))
        if self._refused:
            raise next(_refusals(answers))
        return answers

    def send(self, data: bytes) -> None:
        """Send commands whose answers `receive` gets; raises as `exchange`."""
        try:
            self._send(data)
        except OSError as error:
            raise self._failure(error) from None

    def receive(self, count: int, *, refusals: bool = False) -> list[Any]:
        """The answers to commands that were sent, in their order; raises as `exchange`.

        refusals: answers that are errors are given among the others instead of raised.
        """
        answers: list[Any] = []
        try:
            while len(answers) < count:
                while (each := self._replies.gets()) is not self._more:
                    answers.append(each)
                if len(answers) < count:
                    data = self._receive(READ_BYTES)
                    if not data:
                        raise ConnectionResetError("Connection closed by server")
                    self._replies.feed(data)
        except (OSError, self._nonsense) as error:
            raise self._failure(error) from None
        if self._refused:
            if not refusals:
                raise next(_refusals(answers))
            self._refused = False
        return answers

    def quiet(self) -> bool:
        """Whether nothing has arrived that nobody asked for; the connection's end would have."""
        waiting = poll()
        waiting.register(self._connection._sock, POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        self._connection.disconnect()

    def _failure(self, error: Exception) -> Exception:
        from redis import exceptions

        if isinstance(error, _LATE):
            return exceptions.TimeoutError(f"no answer within {self._timeout_s} s")
        return exceptions.ConnectionError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def _refusal(self, text: str) -> Exception:
        self._refused = True
        return self._parse_error(text)


class DirectConnections:
    """Connections for many threads, each opened when all others are in use. A forked process opens its own.

    Args:
        pool: of redis-py; it only says how to connect. timeout_s: for each wait, also for a connection. connections:
            the most; a thread that needs one more waits.
    """

    def __init__(self, pool: Any, timeout_s: float, connections: int) -> None:
        self._pool, self._timeout_s, self._most = pool, timeout_s, connections
        self._forget()
        _ALL.add(self)

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """As `DirectConnection.exchange`, on any of them; a dead connection is replaced once."""
        free = self._free
        try:
            connection = free.pop()
        except IndexError:
            connection = self._another()
        try:
            answers = connection.exchange(data, count)
        except BaseException as error:
            self.drop(connection)
            if type(error).__name__ != "ConnectionError":
                raise
            connection = self._another(new=True)
            try:
                answers = connection.exchange(data, count)
            except BaseException:
                self.drop(connection)
                raise
        self.put(connection)
        return answers

    def take(self) -> DirectConnection:
        """A connection that is alive as far as can be told, of whoever calls `put` or `drop` afterwards. Raises as
        redis-py's `connect`, and its ConnectionError when none was given back in time."""
        try:
            found = self._free.pop()
        except IndexError:
            return self._another()
        if found.quiet():
            return found
        self.drop(found)
        return self._another(new=True)

    def put(self, connection: DirectConnection) -> None:
        """A connection that waits for no answers may be another's."""
        self._free.append(connection)
        # Whoever waits says so before it looks at `_free` a last time, so one of the two sees the other.
        if self._wanting:
            with self._freed:
                self._freed.notify()

    def link(self) -> DirectConnection:
        """A connection beside the others, of whoever gives it back or closes it. Raises as redis-py's `connect`."""
        while self._spare:
            found = self._spare.pop()
            if found.quiet():
                return found
            found.close()
        return self._new()

    def give_back(self, link: DirectConnection) -> None:
        """A connection that waits for no answers may be another's."""
        self._spare.append(link)

    def _new(self) -> DirectConnection:
        from redis import exceptions

        # Notices of the newer protocol would come between the answers.
        connection = self._pool.connection_class(**self._pool.connection_kwargs | {"protocol": 2})
        try:
            return DirectConnection(connection, self._timeout_s)
        except BaseException as error:
            connection.disconnect()
            if isinstance(error, exceptions.TimeoutError):
                raise exceptions.TimeoutError(f"no connection within {self._timeout_s} s") from None
            raise

    def close(self) -> None:
        """Close those that are not in use."""
        for some in (self._free, self._spare):
            while some:
                some.pop().close()

    def _another(self, new: bool = False) -> DirectConnection:
        """A connection that was given back, or a new one.

        Raises:
            redis.exceptions: as redis-py's `connect`; none was given back in time.
        """
        from redis import exceptions

        end = time.monotonic() + self._timeout_s
        with self._freed:
            self._wanting += 1
            try:
                while True:
                    if self._free:
                        found = self._free.pop()
                        if not new:
                            return found
                        found.close()  # it is as old as the one that was dead
                        self._opened -= 1
                    elif self._opened < self._most:
                        self._opened += 1
                        break
                    elif not self._freed.wait(end - time.monotonic()):
                        raise exceptions.ConnectionError(f"no connection was free within {self._timeout_s} s")
            finally:
                self._wanting -= 1
        try:
            return self._new()
        except BaseException:
            self._one_less()
            raise

    def drop(self, connection: DirectConnection) -> None:
        """A connection that is of no more use."""
        connection.close()  # answers that are still to come belong to nobody
        self._one_less()

    def _one_less(self) -> None:
        with self._freed:
            self._opened -= 1
            self._freed.notify()

    def _forget(self) -> None:
        self._free: deque[DirectConnection] = deque()
        self._spare: deque[DirectConnection] = deque()
        self._freed = threading.Condition()
        self._opened = self._wanting = 0


def _refusals(answers: Iterable[Any]) -> Iterator[Exception]:
    """The errors among answers, also within those of a transaction."""
    for each in answers:
        if isinstance(each, Exception):
            yield each
        elif isinstance(each, list):
            yield from _refusals(each)


_ALL: weakref.WeakSet[DirectConnections] = weakref.WeakSet()


def _forked() -> None:
    for each in _ALL:
        each._forget()


os.register_at_fork(after_in_child=_forked)
