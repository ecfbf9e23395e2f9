"""A proxy before Redis that hands answers on in shreds, stops in the midst of one, and closes connections there."""

import asyncio
import random
import threading
from collections.abc import Callable
from types import TracebackType


class ShreddingProxy:
    """Listens on a port of its own, in a thread of its own, while the `with` statement lasts.

    Args:
        target: port of the server. seed: of what is torn where.

    Attributes:
        tearing: the share of shreds after which both ends are closed; may be set at any time. holding: the share after
            which nothing more comes on that connection, which stays open. torn, held: how often that was done.
    """

    def __init__(self, target: int, seed: int = 1) -> None:
        self.target, self.port = target, 0
        self.tearing = self.holding = 0.0
        self.torn = self.held = 0
        self._draw = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="shredding-proxy")
        self._started = threading.Event()
        self._stop = asyncio.Event()

    def __enter__(self) -> "ShreddingProxy":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        open_ones: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            open_ones.add(task)
            try:
                await self._forward(reader, writer)
            except (OSError, asyncio.CancelledError):
                writer.transport.abort()
            finally:
                open_ones.discard(task)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        # Whoever was accepted a moment ago takes some turns of the loop to be among the open ones.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in open_ones:
                task.cancel()
            await asyncio.wait(others, timeout=0.01)
        await asyncio.sleep(0.01)  # what was broken off is closed in the loop's next turn

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self.target)
        except BaseException:
            writer.transport.abort()
            raise
        try:
            there = asyncio.create_task(_pass_on(reader, to_redis.write))
            back = asyncio.create_task(self._shred(from_redis, writer))
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            writer.transport.abort()
            to_redis.transport.abort()

    async def _shred(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            while data:
                size = self._draw.choice([1, 3, 17, 200, 5000])
                writer.write(data[:size])
                await writer.drain()
                data = data[size:]
                await asyncio.sleep(0)  # so that they come apart, mostly
                luck = self._draw.random()
                if luck < self.tearing:
                    self.torn += 1
                    return
                if luck < self.tearing + self.holding:
                    self.held += 1
                    await self._stop.wait()


async def _pass_on(reader: asyncio.StreamReader, write: Callable[[bytes], None]) -> None:
    while data := await reader.read(1 << 16):
        write(data)
