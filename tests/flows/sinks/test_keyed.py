"""Redis sinks: a hash has its key's newest row and never goes back, a stream each row once; server or flow killed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.flows.sinks.simulated import Flow, place, rows
from tests.servers.fixtures import RedisAddress
from tests.servers.redis import RedisServer

from headrace.features.errors import DefinitionError
from headrace.features.sinks import RedisSink
from headrace.flows.sinks import delivery, writer_of
from headrace.stores.errors import StoreError


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_S", 0.05)


def hashes(client: Any) -> dict[bytes, int]:
    return {key: int(client.hget(key, "number")) for key in client.scan_iter("alert:*")}


def entries(client: Any, key: str = "alerts") -> list[int]:
    return [int(fields[b"number"]) for _, fields in client.xrange(key)]


def test_a_hash_has_the_newest_row_of_its_key(redis_server: RedisAddress, tmp_path: Path) -> None:
    flow = Flow(RedisSink(redis_server.url, "alert:{driver_id}"), tmp_path)
    flow.send(10)
    flow.end()
    with redis_server.client() as client:
        assert hashes(client) == {b"alert:d0": 9, b"alert:d1": 7, b"alert:d2": 8}
        found = client.hgetall("alert:d1")
        order = found.pop(b"_headrace")
        assert found == {b"number": b"7", b"driver_id": b"d1", b"fare": b"1.75", b"at": b"2026-01-01T00:00:00.5Z"}
        assert len(order) == 20 + 1 + 20 + 1 + 10
        assert client.ttl("alert:d1") == -1
        assert b"raw" in client.hgetall("alert:d2")


def test_a_hash_does_not_go_back(redis_server: RedisAddress, tmp_path: Path) -> None:
    """Rows out of order, and after a kill again: what a reader sees never has a lower event time than before."""
    writer = writer_of(RedisSink(redis_server.url, "alert:{driver_id}", expire="1h"), place(tmp_path))
    writer.open(None)
    seen = []
    with redis_server.client() as client:
        for start, stop in ((3, 6), (0, 3), (6, 9), (3, 8), (9, 10)):
            writer.write(rows(start, stop))
            writer.flush()
            seen.append(hashes(client)[b"alert:d0"])
        assert 0 < client.ttl("alert:d0") <= 3600
    writer.close()
    assert seen == [3, 3, 6, 6, 9]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 9)),
        st.tuples(st.just("checkpoint"), st.sampled_from(["", "", "flushed", "counted", "shown"])),
        st.tuples(st.just("kill"), st.none()),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=14,
)


@settings(
    max_examples=max(5, settings().max_examples // 3),
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it empties the database itself
)
@given(steps=STEPS)
def test_a_stream_has_each_row_once(
    redis_server: RedisAddress, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    with redis_server.client() as client:
        client.flushdb()
        flow = Flow(RedisSink(redis_server.url, "alerts", into="stream"), tmp_path_factory.mktemp("data"))
        newest = 0
        for step, argument in steps:
            if step == "send":
                flow.send(argument)
            elif step == "checkpoint":
                flow.checkpoint(argument)
            elif step == "flush":  # rows are there, and no checkpoint: killed next, they come again
                flow.writer.flush()
                flow.restart()
            else:
                flow.writer.close()
                flow.writer._thread.join()  # a process that is gone sends nothing any more
                flow.restart()
            there = entries(client)
            assert there == list(range(len(there)))
            newest = max(newest, len(there))
            assert len(there) == newest >= flow.counted
        flow.send(max(0, newest - flow.sent))
        flow.end()
        assert entries(client) == list(range(flow.sent))
        left = [key for key in client.scan_iter("*") if key != b"alerts"]
        assert all(client.ttl(key) > 0 for key in left)
        last = client.xrevrange("alerts", count=1)
        if last:
            assert last[0][1][b"headrace-id"] == f"pickups.alerts/0-{flow.sent - 1}-0".encode()


def test_streams_by_key_and_their_length(redis_server: RedisAddress, tmp_path: Path) -> None:
    flow = Flow(RedisSink(redis_server.url, "s:{driver_id}:{number}", into="stream", max_length=5), tmp_path)
    flow.send(4)
    flow.end()
    with redis_server.client() as client:
        assert sorted(client.scan_iter("*")) == [b"s:d0:0", b"s:d0:3", b"s:d1:1", b"s:d2:2"]


def test_something_else_under_a_key_is_a_dead_letter(redis_server: RedisAddress, tmp_path: Path) -> None:
    with redis_server.client() as client:
        client.set("alert:d1", "a note")
        flow = Flow(RedisSink(redis_server.url, "alert:{driver_id}"), tmp_path)
        flow.send(3)
        flow.end()
        assert client.get("alert:d1") == b"a note"
    assert [letter.offset for letter in flow.dead] == [1]
    assert "has something else under its key" in flow.dead[0].detail


def test_a_server_that_is_away(
    new_redis: Callable[..., RedisServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis(persist=True)
    flow = Flow(RedisSink(server.url, "alerts", into="stream"), tmp_path)
    flow.send(5)
    flow.checkpoint()
    server.kill()
    with caplog.at_level(logging.WARNING, "headrace.sinks"):
        flow.send(5)
        server.start()  # scripts it had loaded are gone with it
        flow.end()
    with server.client() as client:
        assert entries(client) == list(range(10))
    assert [record.getMessage().partition(" takes")[0] for record in caplog.records][-1:] == [
        f"Step 'pickups.alerts': Redis at redis://127.0.0.1:{server.port}/0"
    ]


def test_a_wrong_password_is_said_at_once(new_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    server = new_redis()
    with server.client() as client:
        client.config_set("requirepass", "right")
    with pytest.raises(StoreError, match="does not let us in"):
        Flow(RedisSink(server.url, "alert:{driver_id}"), tmp_path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RedisSink("redis://h", "alert"), "every row would go to one hash"),
        (lambda: RedisSink("redis://h", "alert:{driver_id"), "a brace of the pattern is open"),
        (lambda: RedisSink("redis://:pw@h", "alert:{driver_id}"), "has a password in it"),
        (lambda: RedisSink("redis://h", "a:{b}", into="list"), "Choose one of 'hash', 'stream'"),
        (lambda: RedisSink("redis://h", "a:{b}", max_length=3), "of a stream"),
        (lambda: RedisSink("redis://h", "a:{fair}").check(place(Path()).schema), "has no column 'fair'"),
    ],
)
def test_definitions_that_are_wrong(make: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        make()


def test_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not to a cluster"):
        writer_of(RedisSink("redis+cluster://h:7000", "a:{driver_id}"), place(tmp_path))
