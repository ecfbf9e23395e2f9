"""The lookup client for asyncio: as `Client`, with `await`, in one round trip and without threads.

client = AsyncClient(RedisStore("redis://localhost:6379/0", project="rides"), [DriverActivity, pricing])
table = await client.features("pricing", {"driver_id": ["7", "8"]}, request={"amount": [3.5, 12.0]})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Protocol

from headrace.features.time import instant_us
from headrace.serving.asking import Entities, Part, entity_of, instant_of
from headrace.serving.caching import RowCache
from headrace.serving.catalog import Known
from headrace.serving.failing import RetryBudget, alone, failed
from headrace.serving.lookups import Lookups
from headrace.serving.table import FeatureTable
from headrace.serving.vectors import FeatureVector, FeatureVectors
from headrace.serving.watching import Watcher
from headrace.stores.errors import StoreError
from headrace.stores.lookups import Ask, Looked
from headrace.stores.online import Clock, OnlineStore, View

if TYPE_CHECKING:
    from headrace.stores.opening import Layout


class _Reader(Protocol):
    async def look_up(self, asks: Sequence[Ask], deadline: float) -> Looked: ...

    async def close(self) -> None: ...


class _InPlace:
    """A store of this machine, which answers sooner than a thread would take over."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store

    async def look_up(self, asks: Sequence[Ask], deadline: float) -> Looked:
        return self._store.look_up(asks)

    async def close(self) -> None:
        """The store is its owner's to close."""


class AsyncClient(Lookups):
    """Reads features from an online store, from the tasks of one event loop. Methods are those of `Client`.

    Args:
        store: a `RedisStore`, whose address is read by asyncio, or a store of this machine, which is read in place; or
            an address. known, on_failure, retries, cache, watchers, project, layout: see `Lookups`.
        timeout_s: for a whole call, retries included.
        connections: to Redis, the most; tasks share them (in a cluster each needs one for the time of its call).
    """

    def __init__(
        self,
        store: OnlineStore | str | PathLike[str],
        known: Known | Iterable[Known] = (),
        *,
        on_failure: Literal["raise", "partial"] = "raise",
        retries: RetryBudget | None = None,
        cache: RowCache | None = None,
        watchers: Sequence[Watcher] = (),
        project: str | None = None,
        layout: Layout | None = None,
        timeout_s: float = 5.0,
        connections: int = 16,
    ) -> None:
        from asyncio import get_running_loop  # importing it is half of what importing the package would cost

        from headrace.stores.redis import RedisStore

        super().__init__(
            store,
            known,
            on_failure=on_failure,
            retries=retries,
            cache=cache,
            watchers=watchers,
            project=project,
            layout=layout,
        )
        self.timeout_s, self._running_loop = timeout_s, get_running_loop
        self._reader: _Reader
        if isinstance(self.store, RedisStore):
            from headrace.stores.redis_async import AsyncRedisReader

            self._reader = AsyncRedisReader(self.store, timeout_s=timeout_s, connections=connections)
        else:
            self._reader = _InPlace(self.store)

    async def features(
        self,
        asked: Any,
        entities: Entities,
        /,
        *,
        request: Mapping[str, Sequence[Any]] | None = None,
        at: datetime | str | None = None,
        full_names: bool = False,
        trace: str | None = None,
    ) -> FeatureTable:
        """Features of several views for several entities, in one round trip; arguments and errors as
        `Client.features`."""
        watched, plan = self._watchers.call(trace), None
        try:
            plan = self.catalog.plan(asked, full_names)
            question = plan.question(entities, request)
            exactly = None if at is None else instant_us(at, "at")
            if self.cache is not None and exactly is None:
                kept = self.cache.kept(question.asks)
                if kept.missing:
                    kept.take(*await self._parts(kept.missing))
                clock, rows = kept.clock, kept.rows
            else:
                clock, rows = await self._parts(question.asks)
            table = question.answer(rows, instant_of(clock, exactly), exactly is not None)
        except Exception as error:
            if watched is not None:
                watched.failed(plan, error)
            raise
        if watched is not None:
            watched.answered(question, table)
        return table

    async def get(
        self,
        view: View | str,
        key: Mapping[str, Any] | None = None,
        /,
        *,
        at: datetime | str | None = None,
        **keys: Any,
    ) -> FeatureVector:
        """One entity's features of one view; arguments and errors as `Client.get`."""
        found: FeatureVector = (await self.get_many(view, [entity_of(key, keys)], at=at))[0]
        return found

    async def get_many(
        self, view: View | str, keys: Sequence[Mapping[str, Any]], /, *, at: datetime | str | None = None
    ) -> FeatureVectors:
        """The features of several entities in one read; arguments and errors as `Client.get_many`."""
        single = self.catalog.single(view)
        exactly = None if at is None else instant_us(at, "at")
        clock, (rows,) = await self._looked([single.ask(keys)])
        return single.vectors(keys, rows, instant_of(clock, exactly), exactly is not None)

    async def close(self) -> None:
        """Close the connections, and the store, if the client opened it."""
        await self._reader.close()
        self._close_store()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _parts(self, asks: Sequence[Ask]) -> tuple[Clock | None, list[Part]]:
        try:
            clock, rows = await self._looked(asks)
            return clock, [*rows]
        except StoreError as error:
            if self.on_failure == "raise":
                raise
            if not alone(asks, error):
                return None, failed(asks, error)
        return await self._one_by_one(asks)

    async def _one_by_one(self, asks: Sequence[Ask]) -> tuple[Clock | None, list[Part]]:
        clock: Clock | None = None
        found: list[Part] = []
        for ask in asks:
            try:
                clock, (rows,) = await self._looked([ask])
                found.append(rows)
            except StoreError as error:
                found.append(error)
        return clock, found

    async def _looked(self, asks: Sequence[Ask]) -> Looked:
        loop = self._running_loop()
        deadline = loop.time() + self.timeout_s
        if self.retries is None:
            return await self._reader.look_up(asks, deadline)
        self.retries.called()
        while True:
            try:
                return await self._reader.look_up(asks, deadline)
            except Exception as error:
                if loop.time() >= deadline or not self._again(error):
                    raise


__all__ = ["AsyncClient"]
