"""Lookups in Redis for asyncio: the same requests and answers as `RedisStore.look_up`, without a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.lookups import Ask, Looked
from headrace.stores.redis import RedisStore
from headrace.stores.redis_links import RedisLinks
from headrace.stores.redis_lookups import RedisLookups, packed
from headrace.stores.redis_project import TRIES, ProjectViews
from headrace.stores.redis_talk import Command
from headrace.stores.redis_urls import connect, has_hiredis, speaking_to
from headrace.stores.sharing import Shared


class AsyncRedisReader:
    """Reads the rows of a `RedisStore` from tasks of one event loop.

    Many tasks share few connections. In a cluster, and without the package hiredis, each has one of redis-py's own for
    the time of its call.

    Args:
        store: says where, which project and which layout; its own connections are not used.
        timeout_s: for connecting, and for silence of a connection on which answers are due. connections: the most.
    """

    def __init__(self, store: RedisStore, *, timeout_s: float = 5.0, connections: int = 16) -> None:
        self._address, self._timeout_s = store.address, timeout_s
        self._views: ProjectViews = store.reading_views()
        self._lookups = RedisLookups(self._views, store.clock_key)
        self._client: Any = connect(store.address, timeout_s, connections, tasks=True)
        self._links: RedisLinks | None = None
        if store.address.kind != "cluster" and has_hiredis():
            self._links = RedisLinks(self._client.connection_pool, timeout_s, connections)
        self._looking = Shared(self._look_at_views)
        self._turns = asyncio.Semaphore(connections)
        self._closed = False

    async def look_up(self, asks: Sequence[Ask], deadline: float) -> Looked:
        """As `OnlineStore.look_up`.

        Args:
            deadline: when the caller gives up, time of the event loop.

        Raises:
            UnreachableError: no answer by then, or the server cannot do it just now.
        """
        for _ in range(TRIES):
            if not self._views.looked_at:
                await self._looked_at_views(deadline)
            request = self._lookups.request(asks)
            if self._links is not None:
                answers = await self._exchange(self._links, *request.packed(), deadline)
            else:
                answers = await self._spread(request.commands(), deadline)
            looked = request.looked(answers)
            if looked is not None:
                return looked
            await self._looked_at_views(deadline)
        raise self._views.restless("one of them")

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._looking.cancel()
        if self._links is not None:
            self._links.close()
        await self._client.aclose()
        if self._address.kind == "cluster":
            return
        pool = self._client.connection_pool
        await pool.disconnect()
        if self._address.kind == "sentinel":
            for sentinel in pool.sentinel_manager.sentinels:
                await sentinel.aclose()

    async def _looked_at_views(self, deadline: float) -> None:
        """Tasks that find the views unknown or changed look at them together."""
        try:
            await self._looking.result(deadline)
        except TimeoutError:
            raise self._late() from None

    async def _look_at_views(self) -> None:
        command, deadline = self._views.command, asyncio.get_running_loop().time() + self._timeout_s
        if self._links is not None:
            (data,) = await self._exchange(self._links, packed(command), 1, deadline)
        else:
            (data,) = await self._spread([command], deadline)
        self._views.take(data)

    async def _exchange(self, links: RedisLinks, data: bytes, count: int, deadline: float) -> list[Any]:
        link = links.ready()
        try:
            if link is None:
                if self._closed:
                    raise self._is_closed()
                link = await links.get(deadline)
            return await link.ask(data, count, deadline)
        except Exception as error:
            with speaking_to(self._address):
                if link is None or link.gone is None or type(error).__name__ != "ConnectionError" or self._closed:
                    raise
                return await (await links.instead_of(link, deadline)).ask(data, count, deadline)

    async def _spread(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        if self._closed:
            raise self._is_closed()
        try:
            # In a cluster redis-py raises an error where a task should wait for a connection, so it waits here.
            async with asyncio.timeout_at(deadline), self._turns:
                with speaking_to(self._address):
                    pipe = self._client.pipeline(transaction=False)
                    for command in commands:
                        pipe.execute_command(*command)
                    found: list[Any] = await pipe.execute()
                    return found
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> UnreachableError:
        return UnreachableError(
            f"Redis at {self._address.shown} does not answer: no answer within {self._timeout_s} s."
        )

    def _is_closed(self) -> StoreError:
        return StoreError(f"The connection to Redis at {self._address.shown} is closed. Open another client.")
