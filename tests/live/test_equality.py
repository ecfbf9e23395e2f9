"""From Kafka to the online store and the log: what the oracle says, whatever way the partitions are spread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.live.definitions import LiveSource
from tests.live.drawn import drawn
from tests.live.flow import LiveFlow
from tests.live.load import send
from tests.live.outcome import check_dead, check_offline, check_online, outcome_of
from tests.live.streams import Habits, Topic, Traffic
from tests.oracle.described import Stream, View
from tests.oracle.strategies import views
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka

SECOND = 1_000_000


def views_on(seed: int, keys: list[tuple[str, ...]], stream: Stream) -> dict[str, View]:
    """A drawn view for each entity."""
    some = drawn(st.tuples(*(views(SECOND, most=5) for _ in keys)), seed)
    return {f"v{n}": replace(view, keys=keys[n], stream=stream) for n, view in enumerate(some)}


def traffic_of(source: LiveSource, seed: int, **habits: Any) -> Traffic:
    lateness = source.stream.lateness
    usual = {"delays": (0, 0, 0, lateness // 2, lateness + SECOND), "poison": 0.03, "tombstones": 0.01, "people": 20}
    return Traffic(source.topics, Habits(SECOND, **{**usual, **habits}), seed)


STREAMS = {
    "plain": Stream(lateness=3 * SECOND),
    "repeated": Stream(lateness=4 * SECOND, dedup="id"),
    "late counts": Stream(lateness=2 * SECOND, late="count"),
    "ahead": Stream(lateness=3 * SECOND, max_ahead=60 * SECOND),
    "in order": Stream(),
}
SPREAD = {
    # Keyed by the entity of all views; by one of several; by none.
    "keyed": (("who",), [("who",), ("who", "where_from")]),
    "re-keyed": ((), [("who",), ("where_from",)]),
    "both": (("who",), [("who",), ("where_from",), ("who", "where_from")]),
}


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREAD)
@pytest.mark.parametrize("kind", STREAMS)
def test_replayed_topics(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, kind: str, spread: str) -> None:
    """A topic in its own time, by one worker and by four: the oracle's rows, and the same from both."""
    seed = list(STREAMS).index(kind) * 10 + list(SPREAD).index(spread)
    keyed_by, keys = SPREAD[spread]
    stream = STREAMS[kind]
    topic = Topic(kafka.new_topic(partitions=4, name="rides"), 4, keyed_by)
    source = LiveSource([topic], views_on(seed, keys, stream), stream)
    traffic = traffic_of(source, seed, skew=SECOND, ahead=0.01 if stream.max_ahead else 0.0)
    messages = traffic.take(400) + traffic.end(30 * SECOND)
    send(kafka.bootstrap, messages)
    seen = []
    for workers in (1, 4):
        options = {"clock": "stream", "until_end": True, "online": redis_server.url, "project": f"p{workers}"}
        name = f"{topic.name}-{workers}"
        with LiveFlow(tmp_path / name, kafka.bootstrap, [source], name=name, **options) as flow:
            flow.start(workers)
            flow.ended()
            check_dead(flow, messages)
            check_offline(flow, messages, settled=True)
            check_online(flow, messages)
            seen.append(outcome_of(flow))
    one, four = seen
    for name, rows in one.log.items():
        order = sorted(rows, key=repr)
        assert order == sorted(four.log[name], key=repr), f"{name}: other rows from four workers (C18)"
