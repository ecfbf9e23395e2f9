"""Few connections for many tasks: whatever happens to them, a task gets its own answer or an error."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
import uvloop
from tests.servers.cutting import cutting
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer
from tests.stores.redis_topologies import Sentinel, cluster, until, with_tls

from headrace.serving import AsyncClient, RetryBudget
from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.redis import RedisStore
from headrace.stores.testing import Visits, row, rows_of

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

USERS = [f"u{at}" for at in range(200)]


def fill(url: str, **options: Any) -> None:
    with RedisStore(url, **options) as store:
        store.write(Visits, rows_of(Visits, [({"user": user}, row(0, visits=at)) for at, user in enumerate(USERS)]))


async def right(client: AsyncClient, at: int, count: int = 3) -> bool:
    """Whether a lookup of some users, others for each number, is answered with their values."""
    places = [(at * 7 + step) % len(USERS) for step in range(count)]
    table = await client.features(["visits:visits"], {"user": [USERS[place] for place in places]})
    return list(table.rows) == [(place,) for place in places]


def connected(server: RedisServer) -> int:
    """Connections that the server has, besides this one."""
    with server.client() as client:
        return len(client.client_list()) - 1


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run[Any]:
    """Runs a coroutine in a loop of Python's own, and of the one that the lookup server has."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work)

    return run


def test_a_thousand_tasks_share_two_connections(new_redis: Callable[..., RedisServer], run: Run[Any]) -> None:
    server = new_redis()
    fill(server.url)

    async def ask() -> tuple[list[bool], int]:
        async with AsyncClient(server.url, [Visits], connections=2) as client:
            found = await asyncio.gather(*[right(client, at, at % 9 + 1) for at in range(1000)])
            return found, await asyncio.to_thread(connected, server)

    found, during = run(ask())
    assert all(found)
    assert 1 <= during <= 2
    until(lambda: connected(server) == 0)


def test_a_connection_that_breaks_within_an_answer_is_replaced_once(redis_server: RedisAddress, run: Run[Any]) -> None:
    """At every place where an answer may break off, the next connection gives all of it."""
    fill(redis_server.url)

    async def ask(cut: int) -> bool:
        async with cutting(redis_server, [cut]) as url, AsyncClient(url, [Visits], timeout_s=10) as client:
            return all(await asyncio.gather(*[right(client, at) for at in range(5)]))

    draw = random.Random(5)
    for cut in [*range(0, 200, 40), *(draw.randrange(200, 1200) for _ in range(15))]:
        try:
            assert run(ask(cut)), cut
        except UnreachableError:
            assert cut < 200, cut  # while logging in: there is no second try


def test_two_broken_connections_are_an_error(redis_server: RedisAddress) -> None:
    fill(redis_server.url)

    async def ask() -> None:
        cuts = [400, 400, None]
        async with cutting(redis_server, cuts) as url, AsyncClient(url, [Visits], timeout_s=10) as client:
            with pytest.raises(UnreachableError, match=r"Redis at redis://127.0.0.1:\d+/\d+ does not answer"):
                await asyncio.gather(*[right(client, at, 100) for at in range(20)])
            assert await right(client, 1)

    asyncio.run(ask())


def test_an_answer_that_is_none_breaks_the_connection(redis_server: RedisAddress) -> None:
    """Something between us and Redis that talks another language."""

    async def ask() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1 << 16):
                writer.write(b"?what\r\n" if b"HGETALL" in data else b"+OK\r\n" * data.count(b"*"))
            writer.transport.abort()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        async with server:
            url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
            async with AsyncClient(url, [Visits], timeout_s=10) as client:
                with pytest.raises(UnreachableError, match="ProtocolError"):
                    await right(client, 1)

    asyncio.run(ask())


def test_a_cancelled_task_leaves_its_answers_to_nobody(redis_server: RedisAddress) -> None:
    """Cancelled just after it has asked, on the one connection that all share."""
    fill(redis_server.url)

    async def ask() -> list[bool]:
        async with AsyncClient(redis_server.url, [Visits], connections=1) as client:
            assert await right(client, 0)
            tasks = [asyncio.create_task(right(client, at, 20)) for at in range(60)]
            await asyncio.sleep(0)  # all have asked
            for task in tasks[::3]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in done[::3])
            assert await right(client, 5)
            return [each is True for at, each in enumerate(done) if at % 3]

    assert all(asyncio.run(ask()))


def test_tasks_of_a_stalled_server_all_end_in_time_and_the_next_ones_are_served(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis()
    fill(server.url)

    async def ask() -> float:
        async with AsyncClient(server.url, [Visits], timeout_s=0.4) as client:
            assert await right(client, 0)
            server.pause()
            try:
                began = time.monotonic()
                waiting = [asyncio.create_task(right(client, at)) for at in range(50)]
                await asyncio.sleep(0.1)
                waiting += [asyncio.create_task(right(client, at)) for at in range(50)]
                done = await asyncio.gather(*waiting, return_exceptions=True)
                spent = time.monotonic() - began
                assert all(isinstance(each, UnreachableError) for each in done)
                assert all("within 0.4 s" in str(each) for each in done)
                with pytest.raises(UnreachableError):  # a new connection is taken, and never greeted
                    await right(client, 0)
            finally:
                server.resume()
            assert all(await asyncio.gather(*[right(client, at) for at in range(50)]))
            return spent

    assert asyncio.run(ask()) < 5


def test_slow_answers_are_late_for_their_task_alone(new_redis: Callable[..., RedisServer]) -> None:
    """Who gave up gets an error; the connection is heard of again, so who waits longer gets the answer."""
    server = new_redis()
    fill(server.url)

    async def ask() -> None:
        async with AsyncClient(server.url, [Visits], timeout_s=30, connections=1) as client:
            assert await right(client, 0)
            server.pause()
            waiting = asyncio.create_task(right(client, 4))
            hurried = asyncio.create_task(client._reader.look_up([], asyncio.get_running_loop().time() + 0.2))
            try:
                with pytest.raises(UnreachableError):
                    await hurried
                assert not waiting.done()
            finally:
                server.resume()
            assert await waiting
            assert await right(client, 5)

    asyncio.run(ask())


def test_tasks_go_on_when_a_killed_server_is_back(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis(persist=True)
    fill(server.url)
    counts = {"right": 0, "failed": 0}

    async def ask() -> None:
        async with AsyncClient(server.url, [Visits], timeout_s=5) as client:
            stop = asyncio.Event()

            async def go_on(seed: int) -> None:
                at = seed
                while not stop.is_set():
                    at += 16
                    try:
                        assert await right(client, at)
                        counts["right"] += 1
                    except UnreachableError:
                        counts["failed"] += 1
                        await asyncio.sleep(0.01)

            tasks = [asyncio.create_task(go_on(seed)) for seed in range(16)]
            for _ in range(2):
                while counts["right"] < 200:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(server.kill)
                failed = counts["failed"]
                while counts["failed"] == failed:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(server.start)
                counts["right"] = 0
            while counts["right"] < 200:
                await asyncio.sleep(0.01)
            stop.set()
            await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(ask(), 60))


def test_connections_that_the_server_closed_are_replaced_unnoticed(
    new_redis: Callable[..., RedisServer], run: Run[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """All of them at once, under load: what is asked again is not asked on another one that is dead, too."""
    server = new_redis()
    fill(server.url)

    async def ask() -> None:
        counts, done = [0] * 30, asyncio.Event()
        async with AsyncClient(server.url, [Visits], timeout_s=20) as client:

            async def go_on(seed: int) -> None:
                while not done.is_set():
                    assert await right(client, seed + counts[seed], 40)
                    counts[seed] += 1

            tasks = [asyncio.create_task(go_on(seed)) for seed in range(30)]
            with server.client() as other:
                for _ in range(10):
                    # Each has three answers after each time, the first perhaps of before: no call sees two ends.
                    while min(counts) < 3 and not any(task.done() for task in tasks):
                        await asyncio.sleep(0.001)
                    await asyncio.to_thread(other.client_kill_filter, _type="normal", skipme=True)
                    counts[:] = [0] * 30
            done.set()
            await asyncio.gather(*tasks)

    with caplog.at_level("WARNING", "asyncio"):
        run(ask())
    assert caplog.records == []


def allow(admin: Any, *rules: str) -> None:
    admin.execute_command("ACL SETUSER", *rules)


def test_an_error_of_the_server_is_its_tasks_alone(new_redis: Callable[..., RedisServer]) -> None:
    """A user who may not read rows of one project; who asks for it beside others, is told so, alone."""
    server = new_redis()
    fill(server.url, project="mine")
    with server.client() as admin:
        allow(admin, "reader", "on", ">s3cret", "~*mine*", "+@read", "+@connection")
    url = server.url.replace("redis://", "redis://reader:s3cret@")

    async def ask() -> None:
        async with AsyncClient(url, [Visits], project="mine") as client:
            assert await right(client, 1)
            with server.client() as admin:
                allow(admin, "reader", "-hmget")
            with pytest.raises(StoreError, match="refuses a command") as refused:
                await right(client, 1)
            assert "s3cret" not in str(refused.value)
            with server.client() as admin:
                allow(admin, "reader", "+hmget")
            assert await right(client, 2)
        async with AsyncClient(url.replace("s3cret", "wrong"), [Visits], project="mine") as client:
            with pytest.raises(StoreError, match="does not let us in") as unknown:
                await right(client, 1)
            assert not isinstance(unknown.value, UnreachableError)

    asyncio.run(ask())


def test_tls(new_redis: Callable[..., RedisServer], tmp_path: Path, run: Run[Any]) -> None:
    port, trusted = with_tls(new_redis, tmp_path, "--requirepass", "s3cret")
    url = f"rediss://:s3cret@localhost:{port}/3?ssl_ca_certs={trusted}"
    fill(url)

    async def ask() -> None:
        async with AsyncClient(url, [Visits]) as client:
            assert all(await asyncio.gather(*[right(client, at, 100) for at in range(50)]))
        async with AsyncClient(f"rediss://:s3cret@localhost:{port}/3", [Visits]) as client:
            with pytest.raises(UnreachableError, match="certificate verify failed"):
                await right(client, 1)

    run(ask())


def test_a_cluster(new_redis: Callable[..., RedisServer]) -> None:
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster(new_redis))
    fill(url)

    async def ask() -> None:
        async with AsyncClient(url, [Visits]) as client:
            assert all(await asyncio.gather(*[right(client, at) for at in range(50)]))

    asyncio.run(ask())


def test_it_follows_the_master_that_sentinel_names(new_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    master = new_redis()
    replica = new_redis(options=("--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"))
    master.client().config_set("repl-diskless-sync-delay", "0")
    sentinel = Sentinel(tmp_path / "sentinel", master.port)
    sentinel.start()
    watch = redis.Redis(port=sentinel.port)
    until(lambda: replica.client().info("replication")["master_link_status"] == "up")
    until(lambda: watch.execute_command("SENTINEL REPLICAS features"))
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/features/0"
    fill(url)
    master.client().wait(1, 5000)

    async def ask() -> None:
        async with AsyncClient(url, [Visits], timeout_s=2) as client:
            assert await right(client, 1)
            await asyncio.to_thread(master.kill)
            while True:
                try:
                    assert await right(client, 2)
                    return
                except UnreachableError:
                    await asyncio.sleep(0.05)

    try:
        asyncio.run(asyncio.wait_for(ask(), 30))
    finally:
        watch.close()
        sentinel.kill()


def test_retries_end_with_the_call(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis()
    fill(server.url)

    async def ask() -> float:
        budget = RetryBudget(1.0, at_least=1_000_000)
        async with AsyncClient(server.url, [Visits], timeout_s=0.5, retries=budget) as client:
            assert await right(client, 1)
            server.kill()
            began = time.monotonic()
            with pytest.raises(UnreachableError):
                await right(client, 1)
            return time.monotonic() - began

    assert asyncio.run(ask()) < 5


def test_a_closed_client_says_so(redis_server: RedisAddress) -> None:
    fill(redis_server.url)

    async def ask() -> None:
        client = AsyncClient(redis_server.url, [Visits])
        assert await right(client, 1)
        await client.close()
        with pytest.raises(StoreError, match="is closed"):
            await right(client, 1)

    asyncio.run(ask())
