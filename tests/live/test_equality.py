"""From Kafka to the online store and the log: what the oracle says, whatever way the partitions are spread."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from headrace.flows.recording import LOG
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.offline import OfflineLog
from tests.live.definitions import LiveSource
from tests.live.drawn import drawn
from tests.live.flow import LiveFlow
from tests.live.load import Sink, send
from tests.live.outcome import check_dead, check_offline, check_online, check_verified, outcome_of
from tests.live.poison import POISON
from tests.live.scene import VIEW
from tests.live.settling import until_settled
from tests.live.streams import Habits, Topic, Traffic
from tests.oracle.described import Feature, Stream, View, Window
from tests.oracle.strategies import views
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka

SECOND = 1_000_000


def views_on(seed: int, keys: list[tuple[str, ...]], stream: Stream) -> dict[str, View]:
    """A drawn view for each entity."""
    some = drawn(st.tuples(*(views(SECOND, most=5) for _ in keys)), seed)
    return {f"v{n}": replace(view, keys=keys[n], stream=stream) for n, view in enumerate(some)}


def steady(view: View) -> View:
    """The view without values that fade from instant to instant: an answer that is a moment old has others."""
    fading = {f.name for f in view.features if isinstance(f, Feature) and f.kind.startswith("decayed")}
    kept = [f for f in view.features if not {f.name, getattr(f, "left", ""), getattr(f, "right", "")} & fading]
    return replace(view, features=tuple(kept) or (Feature("rows", "count", Window("lifetime")),))


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


CASES = [
    ("plain", "both"),  # as the others of "both" it has views of each kind
    ("repeated", "keyed"),
    ("repeated", "re-keyed"),
    ("late counts", "both"),
    ("ahead", "both"),
    ("in order", "re-keyed"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "spread"), CASES)
def test_replayed_topics(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, kind: str, spread: str) -> None:
    """A topic in its own time, by one worker and by three: the oracle's rows, and the same from both."""
    seed = list(STREAMS).index(kind) * 10 + list(SPREAD).index(spread)
    keyed_by, keys = SPREAD[spread]
    stream = STREAMS[kind]
    topic = Topic(kafka.new_topic(partitions=4, name="rides"), 4, keyed_by)
    source = LiveSource([topic], views_on(seed, keys, stream), stream)
    traffic = traffic_of(source, seed, skew=SECOND, ahead=0.01 if stream.max_ahead else 0.0)
    messages = traffic.take(400) + traffic.end(30 * SECOND)
    send(kafka.bootstrap, messages)
    seen = []
    for workers in (1, 3):
        options = {"clock": "stream", "until_end": True, "online": redis_server.url, "project": f"p{workers}"}
        name = f"{topic.name}-{workers}"
        with LiveFlow(tmp_path / name, kafka.bootstrap, [source], name=name, **options) as flow:
            flow.start(workers)
            flow.ended()
            check_dead(flow, messages)
            check_offline(flow, messages)
            check_online(flow, messages)
            if workers > 1:
                check_verified(flow, tmp_path / "verified")
            seen.append(outcome_of(flow))
    one, three = seen
    for name, rows in one.log.items():
        order = sorted(rows, key=repr)
        assert order == sorted(three.log[name], key=repr), f"{name}: other rows from three workers (C18)"


@pytest.mark.slow
def test_several_topics_and_sources(kafka: Kafka, tmp_path: Path) -> None:
    """Two topics as one source, a third of one partition as another: a flow of three workers and an embedded store."""
    two = [Topic(kafka.new_topic(partitions=n, name="trips"), n, ("who",)) for n in (3, 2)]
    single = Topic(kafka.new_topic(partitions=1, name="single"), 1)
    streams = STREAMS["plain"], STREAMS["repeated"]
    sources = [
        LiveSource(two, views_on(100, [("who",), ("where_from",)], streams[0]), streams[0]),
        LiveSource([single], {f"s{n}": v for n, v in views_on(101, [("where_from",)], streams[1]).items()}, streams[1]),
    ]
    messages = []
    for number, source in enumerate(sources):
        traffic = traffic_of(source, number, skew=SECOND)
        messages += traffic.take(300) + traffic.end(30 * SECOND)
    send(kafka.bootstrap, messages)
    options = {"clock": "stream", "until_end": True}
    with LiveFlow(tmp_path / "flow", kafka.bootstrap, sources, **options) as flow:
        flow.start(3)
        flow.ended()
        check_dead(flow, messages)
        check_offline(flow, messages)
        check_online(flow, messages)


@pytest.mark.slow
def test_workers_come_and_go(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> None:
    """A topic is replayed by workers of which some leave, some die and others join: rows as by one that stays."""
    topic = Topic(kafka.new_topic(partitions=6, name="rides"), 6)
    stream = STREAMS["repeated"]
    source = LiveSource([topic], views_on(7, [("who",), ("where_from",)], stream), stream)
    traffic = traffic_of(source, 7, people=40)
    messages = traffic.take(800) + traffic.end(30 * SECOND)
    options = {"clock": "stream", "online": redis_server.url, "batch_size": 20, "checkpoint_every": "100ms"}
    with LiveFlow(tmp_path / "flow", kafka.bootstrap, [source], **options) as flow:
        sink = Sink(kafka.bootstrap)
        first = flow.start(2)
        for number, start in enumerate(range(0, len(messages), 150)):
            sink.put(messages[start : start + 150])
            if number == 1:
                flow.start(2)
            if number == 2:
                first[0].kill()
            if number == 3:
                first[1].stop()
                flow.start()
            time.sleep(1)
        sink.flush()
        until_settled(flow, kafka, messages)
        flow.stop()
        check_online(flow, messages)
        check_dead(flow, messages)
        check_offline(flow, messages, tail=False)


@pytest.mark.slow
def test_an_old_topic_by_the_clock_on_the_wall(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> None:
    """Events of long ago: the log is that of their time, and what is served is of today."""
    topic = Topic(kafka.new_topic(partitions=2, name="rides"), 2, ("who",))
    stream = STREAMS["plain"]
    some = {name: steady(view) for name, view in views_on(8, [("who",), ("where_from",)], stream).items()}
    source = LiveSource([topic], some, stream)
    traffic = traffic_of(source, 8)
    messages = traffic.take(300) + traffic.end(30 * SECOND)
    send(kafka.bootstrap, messages)
    with LiveFlow(tmp_path / "flow", kafka.bootstrap, [source], online=redis_server.url) as flow:
        flow.start(2)
        until_settled(flow, kafka, messages)
        check_online(flow, messages, lag_us=SECOND)
        flow.stop()
        check_dead(flow, messages)
        check_offline(flow, messages, tail=False)


@pytest.mark.slow
@pytest.mark.parametrize("keyed_by", [("who",), ()], ids=["keyed", "re-keyed"])
def test_poison_of_every_kind(
    kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, keyed_by: tuple[str, ...]
) -> None:
    """Each is put aside with its place, its reason and what it was; the events around it count (contract C15)."""
    topic = Topic(kafka.new_topic(partitions=2, name="rides"), 2, keyed_by)
    source = LiveSource([topic], {"v": VIEW}, VIEW.stream)
    traffic = traffic_of(source, 9, poison=0, tombstones=0)
    messages, places = [], {}
    for kind, payload in POISON.items():
        messages += traffic.take(3)
        for partition in range(2):
            places[topic.name, partition, traffic.offsets.get((topic.name, partition), 0)] = kind
            messages.append(traffic.put(topic, partition, payload))
            messages.append(traffic.put(topic, partition, None))
    messages += traffic.end(30 * SECOND)
    send(kafka.bootstrap, messages)
    options = {"clock": "stream", "until_end": True, "online": redis_server.url}
    with LiveFlow(tmp_path / "flow", kafka.bootstrap, [source], **options) as flow:
        flow.start()
        flow.ended()
        check_dead(flow, messages)
        check_offline(flow, messages)
        check_online(flow, messages)
        for letter in read_dead_letters(OfflineLog(flow.data / LOG)).to_pylist():
            kind = places.get((letter["topic"], letter["partition"], letter["offset"]))
            if kind is not None:
                assert letter["detail"], kind
                _check_payload(kind, json.loads(letter["payload"]))


def _check_payload(kind: str, kept: Any) -> None:
    """A dead letter keeps the message: as JSON where it is some, as text, or as bytes."""
    sent = POISON[kind]
    if isinstance(kept, dict) and set(kept) == {"base64"}:
        assert base64.b64decode(kept["base64"]) == sent, kind
    elif isinstance(kept, str):
        assert kept.encode("utf-8", "surrogatepass") == sent or json.loads(sent) == kept, kind
    else:
        assert kept == json.loads(sent), kind
