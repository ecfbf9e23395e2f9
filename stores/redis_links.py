"""The few connections over which all tasks of an event loop ask Redis; see redis_link.py.

redis-py makes them: address, TLS, user and password, database, and whom Sentinel names as the master now.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from headrace.stores.redis_link import RedisLink
from headrace.stores.sharing import Shared

DEEP = 128
"""So many answers may be due on a connection before another one is opened. Small requests thus share one, which costs
the fewest system calls; large ones, whose answers take Redis a while, spread."""


class RedisLinks:
    """Connections, opened when they are needed.

    Args:
        pool: of redis-py for asyncio; it only makes connections. timeout_s: for opening one, and for silence.
        connections: the most.
    """

    def __init__(self, pool: Any, timeout_s: float, connections: int) -> None:
        self._pool, self._timeout_s, self._most = pool, timeout_s, connections
        # Maps and notices of the newer protocol are of no use here, and would come between the answers.
        pool.connection_kwargs["protocol"] = 2
        self._open: list[RedisLink] = []
        self._opening = Shared(self._connect)
        self._began = 0.0

    def ready(self) -> RedisLink | None:
        """A connection to ask through now; None when there is none yet."""
        best = None
        for link in self._open:
            if not link.usable():
                return self._without_gone()
            if link.pending < DEEP:
                return link
            if best is None or link.pending < best.pending:
                best = link
        if best is not None and len(self._open) < self._most:
            self._opening.start()  # for those who come later
        return best

    async def get(self, deadline: float) -> RedisLink:
        """A connection; one that is opened if need be.

        Raises:
            redis.exceptions: none is open by `deadline`, time of the loop; or as redis-py's `connect`.
        """
        from redis import exceptions

        found = self.ready()
        if found is not None:
            return found
        begun_before = self._opening.running  # perhaps before the server closed all that there were
        try:
            return await self._opened(deadline)
        except exceptions.ConnectionError:
            if not begun_before:
                raise
        return await self._opened(deadline)

    async def instead_of(self, dead: RedisLink, deadline: float) -> RedisLink:
        """A connection that was opened after `dead` had gone: what closed that one has closed older ones, too, though
        they may not know it yet. Raises as `get`."""
        from redis import exceptions

        while True:
            for link in self._open:
                if link.began > dead.gone_at and link.usable():
                    return link
            older = self._began <= dead.gone_at and self._opening.running
            try:
                await self._opened(deadline)
            except exceptions.ConnectionError:
                if not older:
                    raise

    def close(self) -> None:
        """Break all connections off."""
        self._opening.cancel()
        for link in self._open:
            link.close()
        self._open = []

    def _without_gone(self) -> RedisLink | None:
        self._open = [link for link in self._open if link.usable()]
        return self.ready()

    async def _opened(self, deadline: float) -> RedisLink:
        from redis import exceptions

        try:
            return await self._opening.result(deadline)
        except TimeoutError:
            raise exceptions.TimeoutError(f"no connection within {self._timeout_s} s") from None

    async def _connect(self) -> RedisLink:
        from redis import exceptions

        began = self._began = time.monotonic()
        connection = self._pool.make_connection()
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, RuntimeError):  # uvloop, where redis-py writes to a connection that has just ended
                raise exceptions.ConnectionError(str(error)) from error
            raise
        reader, writer = connection._reader, connection._writer
        connection._reader = connection._writer = None  # redis-py's part is done: it would close what it finds there
        link = RedisLink(writer, self._timeout_s, began)
        if reader.at_eof():  # its end has been told already, and will not be again
            link.close()
        self._open.append(link)
        return link
