"""A way to a server that breaks off within an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.servers.fixtures import RedisAddress


@contextlib.asynccontextmanager
async def cutting(server: RedisAddress, after: list[int | None]) -> AsyncIterator[str]:
    """The address of a way to the server; each connection breaks after so many bytes of answers, None: never."""
    cuts = iter(after)
    ways: set[asyncio.Task[None] | None] = set()

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ways.add(asyncio.current_task())
        left = next(cuts, None)
        its_reader, its_writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def out() -> None:
            while data := await reader.read(1 << 16):
                its_writer.write(data)

        async def back() -> None:
            nonlocal left
            while data := await its_reader.read(1 << 16):
                writer.write(data if left is None else data[:left])
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        return

        both = [asyncio.create_task(out()), asyncio.create_task(back())]
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in both:
                each.cancel()
            for end in (writer, its_writer):
                end.transport.abort()

    way_in = await asyncio.start_server(through, "127.0.0.1", 0)
    async with way_in:
        yield server.url.replace(str(server.port), str(way_in.sockets[0].getsockname()[1]))
    for way in ways:
        if way is not None:
            way.cancel()
    await asyncio.sleep(0)  # they break their connections off
