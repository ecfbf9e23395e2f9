"""Headrace's own views through Feast's compute engine: Redis holds what `fill` of the same log writes."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.materialize.feast.engine_repo import T0, Repo
from tests.servers.fixtures import RedisAddress
from tests.stores.feast_repo import feast_view

from headrace.materialize.online import fill
from headrace.serving.client import Client
from headrace.stores.layout import row_layout
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock, StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, FULL, NULLS, EveryType, Visits, instant, row, rows_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from feast import Entity, FeatureView, FileSource
    from feast.value_type import ValueType

    from headrace.materialize.feast.log import log_root

ENTITIES = [
    Entity(name=name, join_keys=[name], value_type=ValueType[dtype.upper()])
    for name, dtype in row_layout(EveryType).keys
]
SHIFT = AT / 1e6 - T0.timestamp()
"""Seconds from T0, whose side the repository counts from, to AT, whose side the rows do."""


def logged(folder: Path) -> OfflineLog:
    """
    seconds after AT   1 .. 30: a row of u0..u6 in turn, settled      40: a row of u7, provisional      60: all empty
    """
    log = OfflineLog(folder)
    pairs = [({"user": f"u{i % 7}"}, row(i * 1_000_000, visits=i)) for i in range(1, 31)]
    log.append(Visits, rows_of(Visits, pairs))
    later = [({"user": "u7"}, row(40_000_000, visits=1))]
    later += [({"user": f"u{i}"}, StoredRow({"visits": 0, "total": 0.0}, AT + 60_000_000, AT + i)) for i in range(8)]
    log.tail(Visits, rows_of(Visits, later))
    log.commit(clock=Clock(AT + 40_000_000, "stream"), settled_us={"visits": AT + 35_000_000})
    return log


def in_feast(view: Any, path: Path, **tags: str) -> FeatureView:
    """What `headrace feast apply` registers, as far as the engine looks at it."""
    found = feast_view(view)
    found.batch_source = FileSource(path=str(path / f"view={found.name}"), timestamp_field="event_timestamp")
    found.tags = {"headrace": "a fingerprint", **tags}
    return found


def repo_of(folder: Path, server: RedisAddress | dict[str, Any], *views: FeatureView, **options: Any) -> Repo:
    return Repo(folder, server, *ENTITIES, *views, **options)


def run(repo: Repo, upto: float, view: str = "visits", since: float = 0.0) -> Any:
    return repo.run(view, SHIFT + since, SHIFT + upto)


def rows_in(server: RedisAddress) -> dict[bytes, dict[bytes, bytes]]:
    """The rows in Redis, without what Headrace notes beside them."""
    with server.client() as client:
        return {key: client.hgetall(key) for key in client.scan_iter() if not key.startswith(b"{headrace")}


def flushed(server: RedisAddress) -> RedisStore:
    with server.client() as client:
        client.flushdb()
    return RedisStore(server.url, project="p", expire=False)


@pytest.mark.parametrize("upto", [20, 50, 100])
def test_redis_holds_what_a_fill_of_the_log_writes(tmp_path: Path, redis_server: RedisAddress, upto: int) -> None:
    log = logged(tmp_path / "log")
    repo = repo_of(tmp_path, redis_server, in_feast(Visits, tmp_path / "log"))
    assert run(repo, upto).error() is None
    found = rows_in(redis_server)
    visits = repo.read("visits", "visits", "user", [f"u{i}" for i in range(9)])
    expected = {20: [14, 15, 16, 17, 18, 19, 20, None, None], 50: [28, 29, 30, 24, 25, 26, 27, 1, None]}
    assert visits == expected.get(upto, [0] * 8 + [None])
    with RedisStore(redis_server.url, project="p") as store:
        assert store.clock() == (AT + upto * 1_000_000, "stream")
        vectors = Client(store).get_many(Visits, [{"user": f"u{i}"} for i in range(8)])
        assert [vector["visits"] for vector in vectors] == [value or 0 for value in visits[:8]]
        assert vectors[0].newest_event == instant({20: 14, 50: 28}.get(upto, 0) * 1_000_000)
    with flushed(redis_server) as store:
        fill(store, Visits, log=log, to_us=AT + upto * 1_000_000)
    assert found == rows_in(redis_server)


def test_every_type_is_written_as_headraces_readers_want_it(tmp_path: Path, redis_server: RedisAddress) -> None:
    """Fractions of a second and nulls in lists, which Feast's values lose, are there for them."""
    log = OfflineLog(tmp_path / "log")
    key = {"user": "u", "shop": 7, "token": b"\x00"}
    pairs = [(key, StoredRow(FULL, AT + 1, AT)), ({**key, "shop": 8}, StoredRow(NULLS, AT + 2, AT))]
    log.append(EveryType, rows_of(EveryType, pairs))
    log.commit(clock=Clock(AT + 10, "stream"))
    view = in_feast(EveryType, Path("elsewhere"), **{"headrace.log": str(tmp_path / "log")})
    repo = repo_of(tmp_path, redis_server, view)
    assert run(repo, 1, view.name).error() is None
    found = rows_in(redis_server)
    assert any(field.startswith(b"_exact:") for field in next(iter(found.values())))
    with flushed(redis_server) as store:
        fill(store, EveryType, log=log, to_us=AT + 1_000_000)
    assert found == rows_in(redis_server)


def test_the_store_with_honest_statuses_is_filled_alike(tmp_path: Path, redis_server: RedisAddress) -> None:
    logged(tmp_path / "log")
    number = redis_server.url.rpartition("/")[2]
    online = {
        "type": "headrace.materialize.feast.HeadraceOnlineStore",
        "connection_string": f"127.0.0.1:{redis_server.port},db={number}",
    }
    repo = repo_of(tmp_path, online, in_feast(Visits, tmp_path / "log"))
    assert run(repo, 50).error() is None
    assert repo.read("visits", "visits", "user", ["u0", "u7", "u8"]) == [28, 1, None]
    with RedisStore(redis_server.url, project="p") as store:
        assert Client(store).get(Visits, user="u0").newest_event == instant(28_000_000)


def test_a_row_corrected_before_the_start_of_the_range_is_corrected_in_redis(
    tmp_path: Path, redis_server: RedisAddress
) -> None:
    """What was provisional at the first run may differ at the second, at an instant before the first one's end."""
    log = logged(tmp_path / "log")
    repo = repo_of(tmp_path, redis_server, in_feast(Visits, tmp_path / "log"))
    assert run(repo, 50).error() is None
    log.append(Visits, rows_of(Visits, [({"user": "u7"}, row(45_000_000, visits=2))]))
    log.tail(Visits, rows_of(Visits, []))
    log.commit(clock=Clock(AT + 70_000_000, "stream"), settled_us={"visits": AT + 60_000_000})
    assert run(repo, 55, since=50).error() is None
    assert repo.read("visits", "visits", "user", ["u7", "u0"]) == [2, 28]


def test_a_range_that_was_asked_for_again_is_written_again(tmp_path: Path, redis_server: RedisAddress) -> None:
    log = logged(tmp_path / "log")
    log.commit(clock=Clock(AT + 90_000_000, "stream"), settled_us={"visits": AT + 80_000_000})
    repo = repo_of(tmp_path, redis_server, in_feast(Visits, tmp_path / "log"))
    assert run(repo, 30).error() is None
    before = rows_in(redis_server)
    with redis_server.client() as client:
        client.delete(*[key for key in before if b"u2" in key or b"u3" in key])  # of 30 s and of 24 s
    assert run(repo, 30, since=29).error() is None
    assert sorted(before.keys() - rows_in(redis_server).keys()) == [key for key in before if b"u3" in key]
    assert run(repo, 30).error() is None
    assert rows_in(redis_server) == before


def test_a_log_of_the_walls_clock_is_asked_until_now(tmp_path: Path, redis_server: RedisAddress) -> None:
    """A provisional row of the time to come is not written before it is due."""
    log = logged(tmp_path / "log")
    soon = time.time_ns() // 1000 + 3_600_000_000
    log.tail(Visits, rows_of(Visits, [({"user": "u0"}, StoredRow({"visits": -1, "total": 0.0}, soon, AT))]))
    log.commit(clock=Clock(AT + 40_000_000, "wall"))
    repo = repo_of(tmp_path, redis_server, in_feast(Visits, tmp_path / "log"))
    assert run(repo, (soon - AT) / 1e6 + 3600).error() is None
    assert repo.read("visits", "visits", "user", ["u0"]) == [28]


def test_another_online_store_gets_the_rows_by_feasts_own_class(tmp_path: Path) -> None:
    logged(tmp_path / "log")
    online = {"type": "sqlite", "path": str(tmp_path / "online.db")}
    repo = repo_of(tmp_path, online, in_feast(Visits, tmp_path / "log"))
    assert run(repo, 50).error() is None
    assert repo.read("visits", "visits", "user", ["u0", "u7", "u8"]) == [28, 1, None]
    assert repo.read("visits", "newest_event", "user", ["u0"]) == [AT + 28_000_000]


def test_feasts_progress_counts_every_entity_once(tmp_path: Path, redis_server: RedisAddress) -> None:
    logged(tmp_path / "log")
    repo = repo_of(tmp_path, redis_server, in_feast(Visits, tmp_path / "log"))
    made: list[Bar] = []

    def builder(total: int) -> Bar:
        made.append(Bar(total))
        return made[-1]

    assert repo.run("visits", SHIFT, SHIFT + 50, tqdm_builder=builder).error() is None
    assert [(bar.total, bar.done) for bar in made] == [(8, 8)]


@dataclass
class Bar:
    """As much of a progress bar as Feast's engines use."""

    total: int
    done: int = 0

    def set_description(self, text: str) -> None:
        assert text == "visits"

    def update(self, rows: int) -> None:
        self.done += rows

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("views", "said"),
    [
        ({"visits": "elsewhere"}, "has nothing of it; it has visits. Run the flow that writes it first"),
        ({"total": "totals"}, "has no column 'totals' of it; did you mean 'total'? Its columns are: user, event_time"),
    ],
)
def test_what_the_log_does_not_have(
    tmp_path: Path, redis_server: RedisAddress, views: dict[str, str], said: str
) -> None:
    logged(tmp_path / "log")
    view = in_feast(Visits, tmp_path / "log", **{"headrace.log": str(tmp_path / "log")})
    view.name = views.get("visits", "visits")
    for field in view.features:
        field.name = views.get(field.name, field.name) if field.name != "visits" else "visits"
    repo = repo_of(tmp_path, redis_server, view)
    assert said in str(run(repo, 50, view.name).error())
    assert rows_in(redis_server) == {}


def test_a_view_without_a_log_is_none_of_ours(tmp_path: Path) -> None:
    """The tag alone does not make it one: a source that is no log is read as it is."""
    view = in_feast(Visits, tmp_path / "log")
    view.batch_source = FileSource(path=str(tmp_path / "visits.parquet"), timestamp_field="event_timestamp")
    assert log_root(work_of(view, tmp_path)) is None
    assert log_root(work_of(in_feast(Visits, tmp_path / "log"), tmp_path)) == str(tmp_path / "log")
    view.tags = {}
    assert log_root(work_of(view, tmp_path)) is None


def work_of(view: FeatureView, folder: Path) -> Any:
    return SimpleNamespace(view=view, config=SimpleNamespace(repo_path=folder))
