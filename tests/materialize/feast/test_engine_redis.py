"""The engine's Redis: where Feast's connection string leads, when keys end; and the engine from the command line."""

import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis
import yaml
from feast import FeatureStore, Field
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Int64
from tests.materialize.feast.engine_repo import DRIVER, OURS, Repo, at, hashes, rides, trips_view, write
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer
from tests.stores.redis_topologies import cluster

from headrace.materialize.feast import reading, writing
from headrace.materialize.feast.place import feast_redis_address
from headrace.materialize.feast.reading import MaterializeError
from headrace.stores.errors import UnreachableError
from headrace.stores.redis_bulk import BulkWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "rides.parquet", rides((1, 0, 10), (1, 20, 12), (2, 5, 20), (1, 10, 11)))


@pytest.mark.parametrize(
    ("said", "kind", "shown", "plain"),
    [
        ("localhost:6379", "redis", "redis://localhost:6379", "redis://localhost:6379/"),
        ("r:7,db=3,password=p@/:x", "redis", "redis://r:7/3", "redis://:p%40%2F%3Ax@r:7/3"),
        ("r:7,username=u,password=123", "redis", "redis://r:7", "redis://u:123@r:7/"),
        ("r:7,ssl=true,ssl_cert_reqs=none", "redis", "rediss://r:7", "rediss://r:7/?ssl_cert_reqs=none"),
        ("r:7,ssl=false,socket_timeout=2.5", "redis", "redis://r:7", "redis://r:7/?socket_timeout=2.5"),
        ("a:1,b:2,password=p", "redis_cluster", "redis+cluster://a:1,b:2", "redis://:p@a:1/"),
        ("a:1,b:2,db=4", "redis_sentinel", "redis+sentinel://a:1,b:2/mine/4", "redis://a:1/4"),
    ],
)
def test_feasts_connection_string_leads_to_the_same_server(said: str, kind: str, shown: str, plain: str) -> None:
    config = RedisOnlineStoreConfig(connection_string=said, redis_type=kind, sentinel_master="mine")
    address = feast_redis_address(config)
    assert (address.shown, address.plain) == (shown, plain)


def test_a_cluster_is_written(tmp_path: Path, path: Path, new_redis: Callable[..., RedisServer]) -> None:
    servers = cluster(new_redis)
    nodes = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    online = {"type": "redis", "redis_type": "redis_cluster", "connection_string": nodes}
    repo = Repo(tmp_path, online, trips_view(path))
    write(path, rides(*((driver, 0, driver) for driver in range(40))))
    repo.materialize()
    assert repo.read("trips_of", values=range(40)) == list(range(40))
    kept = []
    for server in servers:
        with redis.Redis(port=server.port) as client:
            kept.append(client.dbsize())
    assert sum(kept) == 40
    assert min(kept) > 0


def test_keys_end_by_the_ttl_of_their_views_if_all_have_one(tmp_path: Path, redis_server: RedisAddress) -> None:
    soon, far = timedelta(days=10_000), timedelta(days=20_000)
    path = write(tmp_path / "rides.parquet", rides((1, 0, 1)))
    views = [trips_view(path, "soon", ttl=soon), trips_view(path, "far", ttl=far)]
    repo = Repo(tmp_path, redis_server, *views, engine={"type": OURS, "expire": True})
    repo.materialize(views=["soon"])
    (key,) = hashes(redis_server)
    with redis_server.client() as client:
        assert client.pexpiretime(key) == (at(0) + soon).timestamp() * 1000
        repo.materialize()
        assert client.pexpiretime(key) == (at(0) + far).timestamp() * 1000
        repo.store.apply([trips_view(path, "forever", ttl=timedelta(0))])
        client.flushdb()
        repo.materialize()
        assert client.ttl(key) == -1
        assert len(client.hgetall(key)) == 6


@pytest.mark.parametrize("written", [False, True])
def test_a_view_on_demand_keeps_keys_forever_if_it_writes_its_features(
    tmp_path: Path, path: Path, redis_server: RedisAddress, written: bool
) -> None:
    view = trips_view(path, ttl=timedelta(days=10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @on_demand_feature_view(
            entities=[DRIVER], sources=[view], schema=[Field(name="more", dtype=Int64)], write_to_online_store=written
        )
        def more(frame: pd.DataFrame) -> pd.DataFrame:
            return frame.assign(more=frame["trips"] + 1)

    repo = Repo(tmp_path, redis_server, view, more, engine={"type": OURS, "expire": True})
    repo.materialize(views=["trips_of"])
    assert repo.read("more", "more") == [13, 21] if not written else [None, None]
    with redis_server.client() as client:
        assert {client.ttl(key) == -1 for key in hashes(redis_server)} == {written}


def test_keys_live_as_long_as_feasts_store_says(tmp_path: Path, path: Path, redis_server: RedisAddress) -> None:
    string = f"127.0.0.1:{redis_server.port},db={redis_server.url.rpartition('/')[2]}"
    online = {"type": "redis", "connection_string": string, "key_ttl_seconds": 5000}
    (tmp_path / "both").mkdir()
    both = Repo(
        tmp_path / "both", online, trips_view(path, ttl=timedelta(days=1)), engine={"type": OURS, "expire": True}
    )
    assert "batch_engine has expire: true and online_store has key_ttl_seconds: 5000" in str(
        both.run("trips_of").error()
    )
    Repo(tmp_path, online, trips_view(path)).materialize()
    with redis_server.client() as client:
        assert all(4000 < client.ttl(key) <= 5000 for key in client.scan_iter())
        assert client.dbsize() == 2


def test_headraces_own_online_store_is_written_straight_from_the_columns(
    tmp_path: Path, path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    string = f"127.0.0.1:{redis_server.port},db={redis_server.url.rpartition('/')[2]}"
    online = {"type": "headrace.materialize.feast.HeadraceOnlineStore", "connection_string": string}
    repo = Repo(tmp_path, online, trips_view(path))
    monkeypatch.setattr(writing, "_write_by_feast", None)
    repo.materialize()
    assert repo.read("trips_of") == [12, 20]


def test_a_store_that_writes_in_its_own_way_is_left_to_it(
    tmp_path: Path, path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repo(tmp_path, redis_server, trips_view(path))
    written: list[int] = []

    class Counting(RedisOnlineStore):
        def online_write_batch(self, config: Any, table: Any, data: Any, progress: Any) -> None:
            written.append(len(data))
            super().online_write_batch(config, table, data, progress)

    monkeypatch.setattr(repo.store._get_provider().batch_engine, "online_store", Counting())
    repo.materialize()
    assert written == [2]
    assert repo.read("trips_of") == [12, 20]


def test_what_a_broken_run_left_the_next_one_completes(
    tmp_path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "many.parquet", rides(*((driver, 0, driver) for driver in range(5000))))
    repo = Repo(tmp_path, redis_server, trips_view(path))
    monkeypatch.setattr(reading, "_BATCH_ROWS", 2048)
    taken: list[int] = []
    whole = BulkWriter.write

    def breaking(self: BulkWriter, batch: Any) -> None:
        taken.append(batch.num_rows)
        if len(taken) == 2:
            raise UnreachableError("Redis went away.")
        whole(self, batch)

    with monkeypatch.context() as broken:
        broken.setattr(BulkWriter, "write", breaking)
        with pytest.raises(MaterializeError, match="Redis went away"):
            repo.materialize()
    assert taken[0] < 5000
    assert repo.store.get_feature_view("trips_of").materialization_intervals == []
    before = hashes(redis_server)
    assert len(before) <= taken[0]
    repo.materialize()
    after = hashes(redis_server)
    assert len(after) == 5000
    assert before.items() <= after.items()
    assert repo.read("trips_of", values=range(5000)) == list(range(5000))


def test_feasts_command_line_materializes(
    tmp_path: Path, path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner
    from feast.cli.cli import cli

    said = {
        "project": "p",
        "provider": "local",
        "registry": str(tmp_path / "registry.db"),
        "online_store": {
            "type": "redis",
            "connection_string": f"127.0.0.1:{redis_server.port},db={redis_server.url.rpartition('/')[2]}",
        },
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
        "batch_engine": {"type": OURS},
    }
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump(said))
    store = FeatureStore(repo_path=str(tmp_path))
    store.apply([DRIVER, trips_view(Path(path.name), ttl=timedelta(days=36500))])  # below the repository
    run = ["--chdir", str(tmp_path), "materialize-incremental"]
    first = CliRunner().invoke(cli, [*run, at(10).isoformat()])
    assert first.exit_code == 0, first.output
    read = store.get_online_features(features=["trips_of:trips"], entity_rows=[{"driver_id": 1}])
    assert read.to_dict()["trips"] == [11]
    path.unlink()
    second = CliRunner().invoke(cli, [*run, at(20).isoformat()])
    assert second.exit_code != 0
    assert "there is no Parquet file" in str(second.exception)
