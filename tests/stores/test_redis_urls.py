"""Addresses of Redis: their forms, what is refused, and that nothing secret is shown."""

from pathlib import Path

import pytest

from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import MissingStoreError, StoreError
from headrace.stores.opening import open_online
from headrace.stores.redis import RedisStore
from headrace.stores.redis_urls import redis_address


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("redis://localhost", "server", "redis://localhost:6379"),
        ("redis://ann:pw@[::1]:7000/3", "server", "redis://[::1]:7000/3"),
        ("rediss://:pw@cache.example:6380/0?ssl_cert_reqs=none", "server", "rediss://cache.example:6380/0"),
        ("unix://ann:pw@/run/redis.sock?db=2&password=pw", "server", "unix:///run/redis.sock"),
        ("redis+cluster://u:pw@a:7000,b:7001", "cluster", "redis+cluster://a:7000,b:7001"),
        ("rediss+cluster://a/0", "cluster", "rediss+cluster://a:6379/0"),
        ("redis+sentinel://u:pw@a,b:1/main/4", "sentinel", "redis+sentinel://a:26379,b:1/main/4"),
        ("rediss+sentinel://a/main?sentinel_password=pw", "sentinel", "rediss+sentinel://a:26379/main"),
    ],
)
def test_forms(url: str, kind: str, shown: str) -> None:
    found = redis_address(url)
    assert (found.kind, found.shown) == (kind, shown)
    assert "pw" not in repr(found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host", "begins with 'http://'. Expected one of: redis://host:6379/0"),
        ("u:pw@host:6379", "has no known scheme"),
        ("redis://u:pw/w@host/0", "written %2F"),
        ("redis://u:pw@a:1,b:2/0", "of an unknown form"),
        ("redis://u:pw@a/x", "of an unknown form"),
        ("redis://u:pw@a:port/0", "has a host of an unknown form"),
        ("redis+cluster://u:pw@a/3", "has the database 0 only, got 3"),
        ("redis+sentinel://u:pw@a", "lacks the name of the service"),
    ],
)
def test_what_is_refused(url: str, said: str) -> None:
    with pytest.raises(StoreError) as failed:
        redis_address(url)
    assert said in str(failed.value)
    assert "pw" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_an_option_that_does_not_exist_is_named() -> None:
    with pytest.raises(StoreError, match=r"an option of the address has a wrong value: .*tiemout"):
        RedisStore("redis://u:pw@localhost/0?tiemout=3")
    with pytest.raises(StoreError, match="an option of the address"):
        RedisStore("redis://localhost/0?socket_timeout=soon")


def test_the_address_says_which_store_it_is(tmp_path: Path) -> None:
    with RedisStore("redis://localhost") as expected:
        store = open_online("redis://localhost", project="rides", layout="packed", expire=False)
        assert isinstance(store, RedisStore)
        assert (store.project, store.layout, store.expire) == ("rides", "packed", False)
        assert store.address == expected.address
    made = open_online(tmp_path / "online")
    assert isinstance(made, EmbeddedStore)
    made.close()
    open_online(str(tmp_path / "online"), read_only=True).close()
    with pytest.raises(MissingStoreError):
        open_online(tmp_path / "nothing", read_only=True)
    with pytest.raises(StoreError, match=r"No online store is known for addresses like s3://\.\.\. Give a folder"):
        open_online("s3://bucket/online")
