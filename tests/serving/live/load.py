"""Many clients that ask without a pause, each for entities of its own, and judge every answer."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.serving.live.rows import USERS, judged, request_of
from tests.serving.live.talking import AwayError, Connection, TornError, post

Judge = Callable[[Sequence[int], bytes], str | None]


@dataclass
class Tally:
    """What a load has seen.

    Attributes:
        right: answers of status 200 that are those of their questions. wrong: what is wrong with the others.
        refused: other statuses, how often. torn: questions whose connection the server closed before the answer was
            whole. away: how often nobody accepted a connection. left: questions that the client gave up by itself.
        slowest_s: the longest that any question took, seconds.
    """

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    torn: int = 0
    away: int = 0
    left: int = 0
    slowest_s: float = 0.0

    async def until(self, met: Callable[["Tally"], bool], timeout_s: float = 60.0) -> None:
        """Wait until the load has seen something.

        Raises:
            AssertionError: it has not within the time.
        """
        began = time.monotonic()
        while not met(self):
            assert time.monotonic() < began + timeout_s, f"Not seen within {timeout_s} s: {self}"
            assert not self.wrong, self.wrong[:3]
            await asyncio.sleep(0.01)

    async def more(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait for so many right answers more."""
        enough = self.right + count
        await self.until(lambda now: now.right >= enough, timeout_s)

    async def calm(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait for so many right answers with no refusal and no torn connection among them."""
        right, trouble = self.right, -1

        def met(now: Tally) -> bool:
            nonlocal right, trouble
            seen = sum(now.refused.values()) + now.torn + now.away
            if seen != trouble:
                right, trouble = now.right, seen
            return now.right >= right + count

        await self.until(met, timeout_s)


@asynccontextmanager
async def load(
    port: int,
    clients: int,
    *,
    entities: int = 8,
    leaving: float = 0.0,
    pause_s: float = 0.0,
    judge: Judge = judged,
    seed: int = 1,
) -> AsyncIterator[Tally]:
    """Clients ask until the block ends; those that wait for an answer then get it, or the block fails.

    Args:
        entities: of a question, at most. leaving: the share of questions whose client leaves before the answer came.
        pause_s: of a client between two questions, and after one that failed at least 10 ms. judge: of answers.
    """
    tally, stop = Tally(), asyncio.Event()

    async def ask(number: int) -> None:
        connection = Connection(port)
        try:
            await ask_on(connection, random.Random(seed * 10_000 + number))
        finally:
            connection.tear()

    async def ask_on(connection: Connection, draw: random.Random) -> None:
        while not stop.is_set():
            numbers = [draw.randrange(USERS + USERS // 10) for _ in range(draw.randint(1, entities))]
            request = post(request_of(numbers))
            if draw.random() < leaving:
                tally.left += await _left(connection, request, draw)
                continue
            began = time.monotonic()
            try:
                status, answer = await connection.ask(request)
            except TornError:
                tally.torn += 1
                await asyncio.sleep(0.01)
                continue
            except AwayError:
                tally.away += 1
                await asyncio.sleep(0.01)
                continue
            finally:
                tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)
            if status != 200:
                tally.refused[status] += 1
                await asyncio.sleep(0.01)
                continue
            trouble = judge(numbers, answer)
            if trouble is None:
                tally.right += 1
            else:
                tally.wrong.append(trouble)
            await asyncio.sleep(pause_s)

    tasks = [asyncio.create_task(ask(number)) for number in range(clients)]
    try:
        yield tally
        stop.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _left(connection: Connection, request: bytes, draw: random.Random) -> bool:
    """Whether it went in the midst of the request, or soon after it was sent."""
    try:
        if draw.random() < 0.3:
            await connection.begin(request, draw.random())
            return True
        async with asyncio.timeout(draw.random() / 50):
            await connection.ask(request)
    except TimeoutError:
        return True
    except (AwayError, TornError):
        await asyncio.sleep(0.01)
    return False
