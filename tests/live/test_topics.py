"""What a flow makes of its topics: where it begins, gaps, transactions, several topics, partitions that are added."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from headrace import Client
from headrace.features import DataError, Entity, Event, EventTime, FeatureView, KafkaSource
from headrace.flows.kafka.errors import UnknownTopicError, UnreachableClusterError
from headrace.flows.kafka.topics import Cluster
from headrace.flows.recording import Summary
from headrace.flows.snapshot import SnapshotError
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.reading import SourceReader
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog
from tests.servers.kafka import Kafka
from tests.servers.process import free_port

AT_MS = 1_777_636_800_000


class Ride(Event):
    driver: str
    at: EventTime


def ride(second: int, driver: str = "7") -> dict[str, str]:
    return {"driver": driver, "at": f"2026-05-01T12:00:{second:02d}Z"}


def view(kafka: Kafka, topic: Any, **options: Any) -> Any:
    options = {"keyed_by": "driver", "bootstrap_servers": kafka.bootstrap, "name": "rides", **options}

    class Drivers(FeatureView, source=KafkaSource(topic, Ride, **options), entity=Entity("driver", key="driver")):
        rides = Ride.count(last="30m")

    return Drivers


def run(view: Any, data: Path) -> Summary:
    return run_worker([view], FlowSettings(name="topics", data=str(data), clock="stream", until_end=True))


def rides_of(view: Any, data: Path, driver: str = "7") -> Any:
    with EmbeddedStore(data / "online", read_only=True) as store:
        return Client(store).get(view, driver=driver).to_dict()["rides"]


@pytest.mark.parametrize(
    ("start", "taken"),
    [("earliest", 4), ("latest", 0), ("2026-05-01T12:00:00.020Z", 2), ("2026-05-01T12:00:00.030001Z", 0)],
)
def test_where_a_flow_begins(start: str, taken: int, kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(1)
    kafka.produce(topic, [ride(i) for i in range(4)], timestamp_ms=[AT_MS + 10 * i for i in range(4)])
    drivers = view(kafka, topic, start=start)
    assert run(drivers, tmp_path).taken == taken
    kafka.produce(topic, [ride(9)])
    assert run(drivers, tmp_path).taken == 1  # from the checkpoint, whatever `start` says
    assert rides_of(drivers, tmp_path) == taken + 1


def test_the_latest_offset_is_looked_for_once(kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies before its first checkpoint goes on where it began, not at what is the latest by then."""
    topic = kafka.new_topic(2)
    kafka.produce(topic, [ride(0)], partition=1)
    drivers = view(kafka, topic, start="latest")

    class Sending(Silent):
        def assigned(self, part: str, topic: str, partition: int) -> None:
            if partition == 1:
                kafka.produce(topic, [ride(1), ride(2)], partition=1)

    def dies(*_: Any) -> None:
        raise ConnectionAbortedError

    with monkeypatch.context() as patched:
        patched.setattr(SourceReader, "handle", dies)
        with pytest.raises(ConnectionAbortedError):
            run_worker([drivers], FlowSettings(name="topics", data=str(tmp_path), clock="stream"), observer=Sending())
    assert run(drivers, tmp_path).taken == 2
    assert rides_of(drivers, tmp_path) == 2


def test_messages_deleted_before_they_were_read(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(1)
    kafka.produce(topic, [ride(0)])
    assert run(view(kafka, topic), tmp_path).taken == 1
    kafka.produce(topic, [ride(i) for i in range(1, 6)])
    Cluster({"bootstrap.servers": kafka.bootstrap}).delete_records({(topic, 0): 4})
    with pytest.raises(DataError, match=r"goes on at offset 1, and the broker has offsets 4 to 6\. .*on_gap='skip'"):
        run(view(kafka, topic), tmp_path)
    drivers = view(kafka, topic, on_gap="skip")
    assert run(drivers, tmp_path).taken == 2
    assert rides_of(drivers, tmp_path) == 3


def test_aborted_transactions_are_not_read_and_their_marks_are_no_gap(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(1)
    drivers = view(kafka, topic)
    transactions(kafka, topic, (True, False, True, False))
    assert kafka.ends(topic) == {0: 8}
    assert run(drivers, tmp_path).taken == 2
    kafka.produce(topic, [ride(9)])
    assert run(drivers, tmp_path).taken == 1
    assert rides_of(drivers, tmp_path) == 3


def test_a_restart_comes_to_where_rows_are_by_a_mark_of_a_transaction(kafka: Kafka, tmp_path: Path) -> None:
    """The dead worker had told the store the end of the topic, behind such a mark, and had not committed yet."""
    topic = kafka.new_topic(1)
    drivers = view(kafka, topic)
    transactions(kafka, topic, (True, False))
    assert run(drivers, tmp_path / "data").taken == 1
    shutil.copytree(tmp_path / "data" / "log", tmp_path / "log")
    transactions(kafka, topic, (True, False))
    assert run(drivers, tmp_path / "data").taken == 1
    shutil.rmtree(tmp_path / "data" / "log")
    shutil.copytree(tmp_path / "log", tmp_path / "data" / "log")
    assert run(drivers, tmp_path / "data").taken == 1
    assert rides_of(drivers, tmp_path / "data") == 2
    assert run(drivers, tmp_path / "data").taken == 0


def transactions(kafka: Kafka, topic: str, kept: Sequence[bool]) -> None:
    """A ride by each transaction, which is committed or aborted."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    for second, good in enumerate(kept):
        producer.begin_transaction()
        producer.produce(topic, f'{{"driver": "7", "at": "2026-05-01T12:00:{second:02d}Z"}}', partition=0)
        assert producer.flush(30) == 0
        if good:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)


def test_several_topics(kafka: Kafka, tmp_path: Path) -> None:
    old, new = kafka.new_topic(1, "old"), kafka.new_topic(2, "new")
    kafka.produce(old, [ride(0, "1"), "poison"], partition=0)
    kafka.produce(new, [ride(1, "2"), None, "poison"], partition=1)
    drivers = view(kafka, [old, new])
    summary = run(drivers, tmp_path)
    assert (summary.taken, summary.dead["malformed"]) == (2, 2)
    assert [rides_of(drivers, tmp_path, driver) for driver in "12"] == [1, 1]
    letters = read_dead_letters(OfflineLog(tmp_path / "log")).to_pylist()
    assert sorted((each["topic"], each["partition"], each["offset"]) for each in letters) == sorted(
        [(old, 0, 1), (new, 1, 2)]
    )


def test_partitions_that_are_added_move_keys_away_from_their_state(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(1)
    kafka.produce(topic, [ride(0)])
    drivers = view(kafka, topic)
    assert run(drivers, tmp_path).taken == 1
    kafka.grow(topic, 2)
    with pytest.raises(SnapshotError, match="had 1 partitions, and now it has 2: entities have moved"):
        run(drivers, tmp_path)


def test_a_topic_that_is_not_there(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(1, "pickups")
    with pytest.raises(UnknownTopicError, match=rf"has no topic '{topic[:-1]}'; did you mean '{topic}'\?"):
        run(view(kafka, topic[:-1]), tmp_path)


def test_a_broker_that_is_not_there(kafka: Kafka, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableClusterError, match=f"no answer from Kafka at {address}"):
        run(view(kafka, "rides", bootstrap_servers=address), tmp_path)
