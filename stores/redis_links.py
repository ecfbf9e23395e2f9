"""The few connections over which all tasks of an event loop ask Redis; see redis_link.py.

redis-py makes them: address, TLS, user and password, database, and whom Sentinel names as the master now.
"""

from __future__ import annotations

import asyncio
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

    def ready(self) -> RedisLink | None:
        """A connection to ask through now; None when there is none yet."""
        best = None
        for link in self._open:
            if link.gone is not None:
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
        try:
            return await self._opening.result(deadline)
        except TimeoutError:
            raise exceptions.TimeoutError(f"no connection within {self._timeout_s} s") from None

    def close(self) -> None:
        """Break all connections off."""
        self._opening.cancel()
        for link in self._open:
            link.close()
        self._open = []

    def _without_gone(self) -> RedisLink | None:
        self._open = [link for link in self._open if link.gone is None]
        return self.ready()

    async def _connect(self) -> RedisLink:
        connection = self._pool.make_connection()
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        writer = connection._writer
        connection._reader = connection._writer = None  # redis-py's part is done: it would close what it finds there
        link = RedisLink(writer, self._timeout_s)
        self._open.append(link)
        return link
