"""What a handover from files to a topic refuses, because it would be wrong in silence; and what it survives."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from tests.flows.test_handover import Case, Flow, Topic
from tests.oracle.definitions import Happening, definition_of
from tests.oracle.described import Feature, Sent, Stream, View, Window
from tests.oracle.operator import rows_of

from headrace.features import FileSource, KafkaSource
from headrace.features.errors import DataError, DefinitionError, HeadraceError
from headrace.flows.backfill.committing import Commit
from headrace.flows.backfill.handover import hand_over
from headrace.flows.backfill.sharing import sharing_of
from headrace.flows.kafka.partitioners import KNOWN
from headrace.flows.worker.unfinished import refuse_unfinished
from headrace.stores.commits import parts
from headrace.stores.offline import OfflineLog
from headrace.stores.places import open_place

MINUTE = 60_000_000
VIEW = View((Feature("n", "count", Window("lifetime")),), stream=Stream(lateness=MINUTE))
COLUMNS = {"where_from": 1, "id": None, "amount": 1.0, "units": 1, "city": "oslo", "paid": True}
PEOPLE = [f"p{i}" for i in range(12)]


def events_by(partitioner: str, count: int = 60, partitions: int = 3) -> list[list[Sent]]:
    """One a minute, of all people in turn, where a producer with this partitioner sends them."""
    made: list[list[Sent]] = [[] for _ in range(partitions)]
    for i in range(count):
        who = PEOPLE[i % len(PEOPLE)]
        number = KNOWN[partitioner](who.encode(), partitions)
        made[number].append(Sent((i + 1) * MINUTE, {**COLUMNS, "who": who}, number, len(made[number])))
    return made


def topic_of(events: list[list[Sent]], begin: int = 0) -> Topic:
    return Topic(
        events, {n: min(begin, len(e)) for n, e in enumerate(events)}, {n: len(e) for n, e in enumerate(events)}
    )


def case_of(events: list[list[Sent]], minutes: int, way: str = "keyed") -> Case:
    """The files have the first minutes."""
    past = sorted(
        (event for event in itertools.chain(*events) if event.time <= minutes * MINUTE), key=lambda event: event.time
    )
    topic = topic_of(events)
    return Case(way, way == "keyed", VIEW, events, past, dict(topic.begins), dict(topic.ends), None)


def source(**options: Any) -> KafkaSource:
    return KafkaSource("happenings", Happening, keyed_by="who", **options)


@pytest.mark.parametrize("name", ["murmur2", "crc32", "fnv1a"])
def test_partitioners_are_those_of_librdkafka(name: str) -> None:
    told = {"murmur2": "murmur2_random", "crc32": "consistent_random", "fnv1a": "fnv1a_random"}[name]
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "partitioner": told, "log_level": 0})
    partitions = len(producer.list_topics("keys", timeout=10).topics["keys"].partitions)
    placed: dict[bytes, int] = {}
    for i in range(120):
        key = bytes((i * 37 + j * 91) % 256 for j in range(i % 23 + 1))
        producer.produce(
            "keys", b"", key=key, on_delivery=lambda _, m: placed.update({m.key() or b"": m.partition() or 0})
        )
    assert producer.flush(20) == 0
    assert len(placed) > 100
    assert partitions > 1
    assert {key: KNOWN[name](key, partitions) for key in placed} == placed


@pytest.mark.parametrize("name", ["murmur2", "crc32", "fnv1a"])
def test_the_partitioner_is_found_from_the_keys(name: str) -> None:
    events = events_by(name)
    sharing = sharing_of(source(), topic_of(events))
    assert sharing.how == f"by {name} of who as text"
    with pytest.raises(DataError, match=r"(?s)sends the key .* to partition .*, and it is in .*history_position"):
        sharing_of(source(partitioner=next(other for other in KNOWN if other != name)), topic_of(events))


def test_a_partition_that_nothing_explains_is_refused() -> None:
    events = events_by("murmur2")
    stray = replace(events[0][-1], columns={**COLUMNS, "who": next(e.columns["who"] for e in events[1])})
    events[0].append(replace(stray, offset=len(events[0])))
    with pytest.raises(DataError, match=r"(?s)no known partitioner explains.*leave keyed_by out"):
        sharing_of(source(), topic_of(events))


def test_too_few_keys_to_tell_and_an_empty_topic_need_a_word() -> None:
    same = next(who for who in map(str, range(99)) if len({KNOWN[name](who.encode(), 2) for name in KNOWN}) == 1)
    number = KNOWN["murmur2"](same.encode(), 2)
    few: list[list[Sent]] = [[], []]
    few[number].append(Sent(MINUTE, {**COLUMNS, "who": same}, number, 0))
    with pytest.raises(DataError, match=r"explained by murmur2 as well as by crc32.*partitioner="):
        sharing_of(source(), topic_of(few))
    assert sharing_of(source(partitioner="crc32"), topic_of(few)).how.startswith("by crc32")
    with pytest.raises(DataError, match=r"holds no message.*partitioner="):
        sharing_of(source(), topic_of([[], []]))
    assert sharing_of(source(partitioner="fnv1a"), topic_of([[], []])).how.startswith("by fnv1a")


def test_a_topic_that_has_lost_what_the_files_may_not_have(tmp_path: Path) -> None:
    events = events_by("murmur2")
    case = replace(case_of(events, 20), begins=dict.fromkeys(range(3), 10))
    flow = Flow(case, topic_of(events, 10), tmp_path)
    with pytest.raises(DataError, match=r"(?s)first 10 messages.*deleted.*--allow-gap"):
        flow.hand_over()
    assert parts(tmp_path / "log") == []
    near = Flow(replace(case_of(events, 55), begins=dict.fromkeys(range(3), 10)), topic_of(events, 10), tmp_path)
    near.hand_over()  # its files reach to what is left
    near.run(7, 1.0, killed=False)
    near.check()


def test_offsets_that_are_missing_or_in_disorder(tmp_path: Path) -> None:
    events = events_by("murmur2")
    case = case_of(events, 20, "offsets")
    with pytest.raises(DataError, match=r"ends before offset .* begins at 15.*--allow-gap"):
        Flow(case, topic_of(events, 15), tmp_path / "1").hand_over()
    twice = replace(case, history=[*case.history, case.history[-1]])
    with pytest.raises(DataError, match=r"(?s)offset \d+ of partition \d+, after offset.*Order its rows"):
        Flow(twice, topic_of(events), tmp_path / "2").hand_over()
    short = [some[:2] for some in events]
    with pytest.raises(DataError, match=r"ends at 2\. Is it the history of another topic"):
        Flow(case, topic_of(short), tmp_path / "3").hand_over()


def test_killed_between_two_parts_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = events_by("murmur2")
    case = case_of(events, 30)
    pq.write_table(case.table(), tmp_path / "past.parquet")
    flow = Flow(case, topic_of(events), tmp_path / "data")
    past = FileSource(str(tmp_path / "past.parquet"), Happening)
    view = definition_of(VIEW, source=source(history=past, lateness="1m"))

    def hand_over_again(settings: Any = flow.settings, **options: Any) -> None:
        hand_over([view], settings, look=lambda *_: flow.topic, **options)

    commit, left = Commit.__call__, iter((True, True))

    def dying(job: Commit, site: Any) -> Any:
        if not next(left, False):
            raise KeyboardInterrupt
        return commit(job, site)

    with monkeypatch.context() as killed:
        killed.setattr(Commit, "__call__", dying)
        with pytest.raises(KeyboardInterrupt):
            hand_over_again()
    with pytest.raises(DataError, match="has not come to its end"):
        refuse_unfinished(open_place(tmp_path / "data" / "log"))
    with pytest.raises(DataError, match="unfinished backfill of other"):
        hand_over_again(repair=True)
    hand_over_again()
    refuse_unfinished(open_place(tmp_path / "data" / "log"))
    assert not (tmp_path / "data" / "backfill").exists()
    flow.run(7, 1.0, killed=False)
    flow.check()
    with pytest.raises(DataError, match="holds what a flow wrote"):
        hand_over_again()


def test_late_events_of_the_files_are_repaired(tmp_path: Path) -> None:
    events = events_by("murmur2")
    case = case_of(events, 30)
    late = replace(case.history[3], time=case.history[3].time + 1)
    flow = Flow(replace(case, history=[*case.history, late]), topic_of(events), tmp_path)
    flow.hand_over(repair=True)
    flow.run(9, 1.0, killed=False)
    rows = rows_of(OfflineLog(tmp_path / "log").scan(flow.definition))
    assert sum(max(row["n"] for row in rows if row["who"] == who) for who in PEOPLE) == 61
    assert [row["n"] for row in rows if row["event_timestamp"] == late.time] == [2]


def test_what_a_definition_refuses() -> None:
    past = FileSource("past/*.parquet", Happening)
    with pytest.raises(DefinitionError, match="history= is a str; give FileSource"):
        source(history="past/*.parquet")
    with pytest.raises(DefinitionError, match=r"history_position=.*name the two columns"):
        source(history=past, history_position="kafka_offset")
    with pytest.raises(DefinitionError, match="there is no history="):
        source(history_position=("p", "o"))
    with pytest.raises(DefinitionError, match="partitioner='murmur'"):
        source(partitioner="murmur")
    assert "history=FileSource('past/*.parquet', Happening)" in repr(source(history=past))


def test_a_topic_without_history_is_not_handed_over(tmp_path: Path) -> None:
    flow = Flow(case_of(events_by("murmur2"), 10), topic_of(events_by("murmur2")), tmp_path)
    with pytest.raises(HeadraceError, match=r"names no history.*history=FileSource"):
        hand_over([definition_of(VIEW, source=source())], flow.settings)
