"""Lookups in Redis for asyncio: the same requests and answers as `RedisStore.look_up`, without a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.stores.lookups import Ask, Looked
from headrace.stores.redis import RedisStore
from headrace.stores.redis_lookups import RedisLookups
from headrace.stores.redis_project import TRIES, ProjectViews
from headrace.stores.redis_talk import Command
from headrace.stores.redis_urls import connect, speaking_to


class AsyncRedisReader:
    """Reads the rows of a `RedisStore` from tasks of one event loop.

    Args:
        store: says where, which project and which layout; its own connections are not used.
        timeout_s: for connecting and for each answer. connections: the most at a time; a task that needs one more
            waits.
    """

    def __init__(self, store: RedisStore, *, timeout_s: float = 5.0, connections: int = 64) -> None:
        self._address = store.address
        self._cluster = store.address.kind == "cluster"
        self._views: ProjectViews = store.reading_views()
        self._lookups = RedisLookups(self._views, store.clock_key)
        self._client: Any = connect(store.address, timeout_s, connections, tasks=True)

    async def look_up(self, asks: Sequence[Ask]) -> Looked:
        """As `OnlineStore.look_up`."""
        for _ in range(TRIES):
            if not self._views.looked_at:
                await self._look_at_views()
            request = self._lookups.request(asks)
            if self._cluster:
                answers = await self._spread(request.commands())
            else:
                answers = await self._exchange(*request.packed())
            looked = request.looked(answers)
            if looked is not None:
                return looked
            await self._look_at_views()
        raise self._views.restless("one of them")

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        if not self._cluster:
            await self._client.connection_pool.disconnect()

    async def _look_at_views(self) -> None:
        with speaking_to(self._address):
            data = await self._client.execute_command(*self._views.command)
        found: Mapping[bytes, bytes] = data
        self._views.take(found)

    async def _exchange(self, data: bytes, count: int) -> list[Any]:
        with speaking_to(self._address):
            try:
                return await self._exchanged(data, count)
            except Exception as error:
                if type(error).__name__ != "ConnectionError":
                    raise
            return await self._exchanged(data, count)  # the connection was dead

    async def _exchanged(self, data: bytes, count: int) -> list[Any]:
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command([data], check_health=False)
            read = connection.read_response
            return [await read() for _ in range(count)]
        except BaseException:
            await connection.disconnect(nowait=True)  # answers that are still to come belong to nobody
            raise
        finally:
            await pool.release(connection)

    async def _spread(self, commands: Sequence[Command]) -> list[Any]:
        with speaking_to(self._address):
            pipe = self._client.pipeline()
            for command in commands:
                pipe.execute_command(*command)
            found: list[Any] = await pipe.execute()
            return found
