"""One connection to Redis that many tasks of an event loop ask through at the same time.

Requests are sent as they come and answers arrive in the same order, so each belongs to the request that has waited the
longest. A task that was cancelled leaves its place in the row: its answers are read and dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, cast


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A request that was sent: how many answers it gets, who waits for them, and until when (time of the loop)."""

    count: int
    future: asyncio.Future[list[Any]]
    deadline: float


class RedisLink(asyncio.Protocol):
    """A connection that is ready: logged in, database chosen.

    Args:
        writer: of the connection, which nobody else uses from now on. timeout_s: silence for so long, while an answer
            is due, means that the connection is dead. began: when it was begun to be opened, `time.monotonic`.

    Attributes:
        pending: answers that are due. gone: why the connection is no more, None while it is there. gone_at: since when.

    A request fails with redis-py's TimeoutError once its deadline has passed, and with its ConnectionError when the
    connection is gone.
    """

    def __init__(self, writer: asyncio.StreamWriter, timeout_s: float, began: float) -> None:
        from hiredis import Reader
        from redis.connection import DefaultParser

        self._writer, self._timeout_s = writer, timeout_s
        self._parse_error: Callable[[str], Exception] = DefaultParser.parse_error
        self._more = object()
        self._replies = Reader(replyError=self._refusal, notEnoughData=self._more)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._got: list[Any] = []
        self._refused = False
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf
        self.pending = 0
        self.gone: Exception | None = None
        self.began, self.gone_at = began, inf
        self._transport = cast(asyncio.Transport, writer.transport)
        self._stream = self._transport.get_protocol()  # of the writer, which is told of its end
        self._transport.set_protocol(self)
        if self._transport.is_closing():  # between the last answer of the handshake and now
            self.connection_lost(None)

    def ask(self, data: bytes, count: int, deadline: float) -> asyncio.Future[list[Any]]:
        """The answers to commands.

        Args:
            data: as they are sent. count: how many they are. deadline: when the caller gives up, time of the loop.

        Raises:
            redis.exceptions: an answer is an error; or as the class says.
        """
        if not self.usable():
            self._fail("Connection closed by server")
        if self.gone is not None:
            raise type(self.gone)(*self.gone.args)
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self._waiting:
            self._heard = self._loop.time()
        self._waiting.append(_Waiting(count, future, deadline))
        self.pending += count
        if deadline < self._due:
            self._look_at(deadline)
        self._transport.write(data)
        return future

    def usable(self) -> bool:
        """Whether it can be asked; not when its end is known and only has not been told yet."""
        return self.gone is None and not self._transport.is_closing()

    def close(self) -> None:
        """Break the connection off; whoever waits is told."""
        self._fail("the connection was closed")

    # Called by the event loop

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        replies, got, waiting, more = self._replies, self._got, self._waiting, self._more
        try:
            replies.feed(data)
            while waiting:
                count = waiting[0].count
                while len(got) < count:
                    each = replies.gets()
                    if each is more:
                        return
                    got.append(each)
                future = waiting.popleft().future
                self.pending -= count
                if not future.done():
                    self._settle(future, got)
                self._refused, self._got = False, []
                got = self._got
            if replies.gets() is not more:
                self._fail("it sent an answer that nobody asked for")
        except Exception as error:  # hiredis: these bytes are no answer of Redis
            self._fail(f"{type(error).__name__}: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._stream.connection_lost(error)
        self._fail("Connection closed by server" if error is None else str(error))

    def pause_writing(self) -> None:
        """What is sent waits in memory: it is bounded by the tasks that wait for answers."""

    def resume_writing(self) -> None:
        """The other end takes what is sent again."""

    # Within

    def _settle(self, future: asyncio.Future[list[Any]], got: list[Any]) -> None:
        if self._refused:
            wrong = next((each for each in got if isinstance(each, Exception)), None)
            if wrong is not None:
                future.set_exception(wrong)
                return
        future.set_result(got)

    def _refusal(self, text: str) -> Exception:
        self._refused = True
        return self._parse_error(text)

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = when, self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """Fail what waited too long; and everything, when nothing was heard for so long that nothing will be."""
        from redis.exceptions import TimeoutError

        self._due, self._timer = inf, None
        now, next_due = self._loop.time(), inf
        for each in self._waiting:
            if each.future.done():
                continue
            if each.deadline > now:
                next_due = min(next_due, each.deadline)
            else:
                each.future.set_exception(TimeoutError(f"no answer within {self._timeout_s} s"))
        if not self._waiting:
            return
        silent_until = self._heard + self._timeout_s
        if silent_until <= now + 0.1 * self._timeout_s:  # a deadline began a little before its request was sent
            self._fail(f"no answer within {self._timeout_s} s", TimeoutError)
        else:
            self._look_at(min(next_due, silent_until))

    def _fail(self, why: str, kind: type[Exception] | None = None) -> None:
        if self.gone is not None:
            return
        from redis.exceptions import ConnectionError

        self.gone, self.gone_at = (kind or ConnectionError)(why), time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        self.pending = 0
        for each in waiting:
            if not each.future.done():
                each.future.set_exception((kind or ConnectionError)(why))
        self._transport.abort()
