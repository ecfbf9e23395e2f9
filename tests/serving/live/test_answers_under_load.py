"""Hundreds of connections, clients that leave, workers that are killed: an answer is always that of its question."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from tests.servers.fixtures import RedisAddress
from tests.serving.live.load import load
from tests.serving.live.process import LookupServer
from tests.serving.live.rows import request_of
from tests.serving.live.talking import post

NewServer = Callable[..., LookupServer]


def test_no_answer_is_another_ones(redis_server: RedisAddress, new_server: NewServer) -> None:
    """300 connections to two workers, a third of whose questions are given up in the midst."""
    server = new_server(redis_server.url, workers=2)

    async def ask() -> None:
        async with AsyncExitStack() as stack:
            staying = await stack.enter_async_context(load(server.port, 200))
            leaving = await stack.enter_async_context(load(server.port, 100, leaving=0.5, seed=2))
            await staying.more(2000)
            await leaving.more(300)
            await leaving.until(lambda now: now.left > 100, 60.0)
        assert staying.wrong == leaving.wrong == []
        assert (staying.torn, staying.refused) == (0, {})
        assert not leaving.refused

    asyncio.run(ask())


def test_clients_that_never_finish_their_request_hinder_nobody(
    redis_server: RedisAddress, new_server: NewServer
) -> None:
    server = new_server(redis_server.url)

    async def ask() -> None:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(150)]
        for at, (_, writer) in enumerate(streams):
            writer.write(post(request_of([at]))[: 20 + at])
        async with load(server.port, 20) as tally:
            await tally.more(500)
        assert (tally.wrong, tally.refused, tally.torn) == ([], {}, 0)
        for _, writer in streams:
            writer.transport.abort()

    asyncio.run(ask())


def test_clients_that_never_read_their_answers_fill_no_memory(
    redis_server: RedisAddress, new_server: NewServer
) -> None:
    """12 connections ask for some 200 MB of answers and read none: the server makes them wait, and serves others."""
    server = new_server(redis_server.url)
    wave = post(request_of(range(400))) * 300

    async def ask() -> None:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(12)]
        async with load(server.port, 10) as tally:
            await tally.more(200)
            before = server.usage()
            for _, writer in streams:
                writer.write(wave)
            for _ in range(5):
                await tally.more(100)
                assert server.usage().rss < before.rss + (100 << 20)
        assert (tally.wrong, tally.refused, tally.torn) == ([], {}, 0)
        for _, writer in streams:
            writer.transport.abort()

    asyncio.run(ask())


def test_a_server_that_is_stopped_answers_what_it_was_asked(redis_server: RedisAddress, new_server: NewServer) -> None:
    """SIGTERM under load: no question is torn; from some moment on nobody accepts new ones."""
    server = new_server(redis_server.url, workers=2)

    async def ask() -> None:
        async with load(server.port, 40) as tally:
            await tally.more(300)
            server.signal(signal.SIGTERM)
            await tally.until(lambda now: now.away >= 40)
            assert (tally.wrong, tally.refused, tally.torn) == ([], {}, 0)

    asyncio.run(ask())


def test_a_killed_worker_costs_its_own_connections_only(redis_server: RedisAddress, new_server: NewServer) -> None:
    """One of two is killed under load, twice: what it was asked is torn, the rest is answered, and it is replaced.

    A client that comes back while the killed one is still going may be given to it once more; when it has gone, no
    connection is torn any more.
    """
    server, clients = new_server(redis_server.url, workers=2), 40

    async def ask() -> None:
        async with load(server.port, clients) as tally:
            for _ in range(2):
                await tally.more(300)
                before, torn = server.workers(), tally.torn
                os.kill(before[0], signal.SIGKILL)
                await tally.until(lambda _, killed=before[0]: killed not in server.workers())
                await tally.more(clients)
                lost = tally.torn
                assert lost - torn <= 2 * clients
                await tally.more(300)
                await tally.until(lambda _: len(server.workers()) == 2)
                await tally.more(300)
                assert tally.torn == lost
            await server.says(ready=True)
        assert (tally.wrong, tally.refused) == ([], {})

    asyncio.run(ask())
