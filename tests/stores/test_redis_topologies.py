"""The Redis store over TLS, on a cluster, and through Sentinel while the master changes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.servers.redis import RedisServer
from tests.stores.redis_bulk_rows import key, said, write
from tests.stores.redis_bulk_rows import rows as bulk_rows
from tests.stores.redis_topologies import Sentinel, cluster, until, with_tls

from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.online import Portion, Reached
from headrace.stores.redis import RedisStore
from headrace.stores.redis_bulk import BulkDone
from headrace.stores.testing import AT, LastingStoreSuite, PositionedStoreSuite, Visits, row, rows_of

KEY = {"user": "a"}


def portion(position: int, visits: int, epoch: int = 1, at: int | None = None) -> Portion:
    rows = rows_of(Visits, [(KEY, row(position if at is None else at, visits))])
    return Portion("w", epoch, position, AT, [(Visits, rows)])


def test_tls_with_a_certificate_of_ones_own_and_a_password(
    new_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    port, trusted = with_tls(new_redis, tmp_path, "--requirepass", "s3cret")
    with RedisStore(f"rediss://:s3cret@localhost:{port}/0?ssl_ca_certs={trusted}") as store:
        store.write(Visits, rows_of(Visits, [(KEY, row(1))]))
        assert store.read(Visits, [KEY]) == [row(1)]
        assert repr(store) == f"RedisStore('rediss://localhost:{port}/0', project='headrace', layout='feast')"
    url = f"rediss://:s3cret@localhost:{port}/0?ssl_ca_certs={trusted}"
    assert write(url, bulk_rows(list(range(5000)), [AT] * 5000)).written == 5000
    assert write(url, bulk_rows(list(range(5000)), [AT] * 5000)).written == 5000
    with RedisStore(f"rediss://:s3cret@localhost:{port}/0") as store:
        with pytest.raises(UnreachableError, match=r"does not answer: .*certificate verify failed") as failed:
            store.read(Visits, [KEY])
        assert "s3cret" not in str(failed.value)


# A cluster


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    made: list[RedisServer] = []

    def start(**options: Any) -> RedisServer:
        made.append(RedisServer(tmp_path_factory.mktemp(f"node-{len(made)}"), **options))
        made[-1].start()
        return made[-1]

    yield cluster(start)
    for server in made:
        server.kill()


class ClusterSuite(PositionedStoreSuite, LastingStoreSuite):
    layout: Any

    @pytest.fixture(autouse=True)
    def _cluster(self, nodes: list[RedisServer]) -> Iterator[None]:
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        self.nodes = nodes
        self.opened: list[RedisStore] = []
        self.empty()
        yield
        for store in self.opened:
            store.close()

    def empty(self) -> None:
        for node in self.nodes:
            with redis.Redis(port=node.port) as client:
                client.flushall()

    def open(self, place: Path) -> RedisStore:
        self.opened.append(RedisStore(self.url, layout=self.layout))
        return self.opened[-1]

    def again(self, store: RedisStore) -> RedisStore:
        return self.open(Path())

    def forget(self, store: RedisStore) -> None:
        self.empty()

    # In a cluster a batch lies on several servers; each row is seen whole, the batch is not.
    test_a_reader_in_another_thread_sees_whole_batches = None  # type: ignore[assignment]


class TestFeastOnACluster(ClusterSuite):
    layout = "feast"


class TestPackedOnACluster(ClusterSuite):
    layout = "packed"


def test_a_cluster_is_reached_by_any_of_its_nodes(nodes: list[RedisServer]) -> None:
    users = [{"user": f"u{at}"} for at in range(300)]
    with RedisStore(f"redis+cluster://127.0.0.1:1,127.0.0.1:{nodes[1].port}", project="any", timeout_s=2) as store:
        store.write(Visits, rows_of(Visits, [(user, row(1)) for user in users]))
        assert store.read(Visits, users) == [row(1)] * 300
    held = []
    for node in nodes:
        with redis.Redis(port=node.port) as client:
            held.append(len([key for key in client.scan_iter() if key.endswith(b"any")]))
    assert min(held) > 50
    with pytest.raises(UnreachableError):
        RedisStore("redis+cluster://127.0.0.1:1", timeout_s=0.5)


def test_a_cluster_takes_bulk_rows(nodes: list[RedisServer]) -> None:
    url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
    drivers = list(range(300))
    assert write(url, bulk_rows(drivers, [AT] * 300), key_ttl_s=1000) == BulkDone(300, 300, 0)
    assert write(url, bulk_rows(drivers, [AT - 1 + each % 3 for each in drivers], [2] * 300)) == BulkDone(300, 200, 100)
    with redis.RedisCluster(host="127.0.0.1", port=nodes[0].port) as client:
        assert said(client.hgetall(key(3))) == (AT, AT)
        assert said(client.hgetall(key(4))) == (AT, 2)
        assert client.ttl(key(3)) > 900


# Sentinel


def test_a_store_follows_the_master_that_sentinel_names(new_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """The replica has all rows when the master dies, so nothing is lost; then it lags, and the loss is noticed."""
    master = new_redis()
    replica = new_redis(options=("--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"))
    master.client().config_set("repl-diskless-sync-delay", "0")
    sentinel = Sentinel(tmp_path / "sentinel", master.port)
    sentinel.start()
    watch = redis.Redis(port=sentinel.port)
    try:
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        until(lambda: watch.execute_command("SENTINEL REPLICAS features"))
        with RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/features/0", timeout_s=1) as store:
            assert store.take_over("w", 1) is None
            assert store.write_portions([portion(1, 1)]) == ["written"]
            users = [f"user {number}" for number in range(1000)]
            many = rows_of(Visits, [({"user": user}, row(1)) for user in users])
            with store.filling(Visits) as rows:
                rows.write(many)
                assert rows.flush() == 1000
            master.client().wait(1, 5000)
            master.kill()
            with store.filling(Visits) as rows:
                rows.write(many)
                with pytest.raises(UnreachableError):
                    rows.flush()
            with pytest.raises(UnreachableError):
                store.write_portions([portion(2, 2)])

            def written() -> bool:
                try:
                    return store.write_portions([portion(2, 2)]) == ["written"]
                except UnreachableError:
                    return False

            until(written)
            assert store.read(Visits, [KEY]) == [row(2, 2)]
            with store.filling(Visits) as rows:
                rows.write(many)
                assert rows.flush() == 1000
            assert store.read(Visits, [{"user": users[-1]}]) == [row(1)]
            assert store.take_over("w", 2) == Reached(2, AT)
    finally:
        watch.close()
        sentinel.kill()


def test_a_service_that_sentinel_does_not_know_is_unreachable(
    new_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    sentinel = Sentinel(tmp_path / "sentinel", new_redis().port)
    sentinel.start()
    try:
        with RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/other", timeout_s=1) as store:
            with pytest.raises(UnreachableError, match=r"redis\+sentinel://127.0.0.1:.*other"):
                store.clock()
            with pytest.raises(StoreError):
                store.read(Visits, [KEY])
    finally:
        sentinel.kill()
