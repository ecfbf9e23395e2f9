"""Re-keying: every event reaches the partition of its entity exactly once, however often senders start again."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import Event, EventTime
from headrace.features.errors import DataError
from headrace.flows.batch import EventBatch
from headrace.flows.decode import decode_rows
from headrace.flows.worker import exchange
from headrace.flows.worker.exchange import Inbox, Sender, encode, receive, targets


class Ride(Event):
    driver: str | None
    city: int
    note: str
    at: EventTime


SCHEMA = Ride.__schema__


def rides(drivers: Sequence[str | None], first: int = 0, partition: int = 3, note: str = "n") -> EventBatch:
    rows = [
        {"driver": driver, "city": i % 3, "note": note, "at": f"2026-01-01T00:00:{i % 60:02d}Z"}
        for i, driver in enumerate(drivers)
    ]
    batch, dead = decode_rows(SCHEMA, rows, partition, first)
    assert not dead
    return batch


class Topic:
    """A repartition topic in memory."""

    def __init__(self, partitions: int) -> None:
        self.partitions: list[list[tuple[bytes, list[tuple[str, bytes]]]]] = [[] for _ in range(partitions)]

    def produce(self, target: int, value: bytes, headers: dict[str, bytes]) -> None:
        self.partitions[target].append((value, list(headers.items())))

    def received(self, target: int, inbox: Inbox) -> list[tuple[str, int]]:
        found = []
        for value, headers in self.partitions[target]:
            batch = inbox.take(receive(SCHEMA, value, headers))
            if batch is not None:
                found += list(zip(batch.values("driver").tolist(), batch.offset.tolist(), strict=True))
        return found


def test_an_entity_goes_to_one_partition_on_every_machine() -> None:
    batch = rides(["anna", "ben", "anna", None, "cleo"])
    found = targets(batch, ["driver"], 7)
    # Written down: other machines and later versions must agree, or an entity's state is in two places.
    assert found.tolist() == [targets(rides(["anna"]), ["driver"], 7)[0], *found[1:].tolist()]
    assert found[3] == -1
    assert found[0] == found[2]
    assert targets(rides(["anna", "ben", "cleo"]), ["driver"], 1 << 20).tolist() == [474296, 623525, 447633]
    two = targets(rides(["anna", "anna", "anna", "anna"]), ["driver", "city"], 1 << 20)
    assert two[0] == two[3]
    assert len(set(two.tolist())) == 3


def test_a_message_comes_back_as_it_was() -> None:
    batch = rides(["anna", None, "ben"])
    late = batch.counting_from(batch.time + np.array([0, 5, 0]))
    for sent in (batch, late):
        cover = exchange.Cover(3, 0, 3, 7)
        headers = [(exchange.HEADER, exchange.msgspec.msgpack.encode(cover))]
        routed = receive(SCHEMA, encode(sent), headers)
        assert routed.cover == cover
        assert routed.batch is not None
        for name in ("driver", "city", "note", "at"):
            assert routed.batch.arrow(name).equals(sent.arrow(name).cast(routed.batch.arrow(name).type))
        for mine, theirs in (
            (routed.batch.time, sent.time),
            (routed.batch.effective, sent.effective),
            (routed.batch.offset, sent.offset),
        ):
            assert mine.tolist() == theirs.tolist()
        assert routed.batch.partition.tolist() == [3, 3, 3]


@given(
    drivers=st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=40),
    runs=st.lists(st.tuples(st.integers(0, 40), st.lists(st.integers(0, 40), max_size=4)), min_size=1, max_size=5),
    partitions=st.integers(1, 4),
)
def test_restarted_and_undead_senders_are_taken_once(
    drivers: list[str | None], runs: list[tuple[int, list[int]]], partitions: int
) -> None:
    """Each run begins at a checkpoint, some offset that was acknowledged, and is cut where it likes."""
    topic = Topic(partitions)
    whole = rides(drivers)
    acknowledged = 0
    for begin, cuts in [*runs, (0, [])]:
        start = min(begin, acknowledged)
        sender = Sender(["driver"], partitions, 3, start, topic.produce)
        end = len(drivers) if (begin, cuts) == (0, []) else min(len(drivers), start + 15)
        points = sorted({start, end, *(cut for cut in cuts if start < cut < end)})
        for lo, hi in pairwise(points):
            sender.send(whole.take(slice(lo, hi)), hi, hi)
        sender.tell(end, end)
        acknowledged = max(acknowledged, end)
    expected: list[list[tuple[str, int]]] = [[] for _ in range(partitions)]
    for i, target in enumerate(targets(whole, ["driver"], partitions).tolist()):
        if target >= 0:
            expected[target].append((str(drivers[i]), i))
    for target in range(partitions):
        inbox = Inbox()
        assert topic.received(target, inbox) == expected[target]
        assert inbox.next == {3: len(drivers)}


def test_large_batches_are_cut_and_know_their_newest_only_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_BYTES", 6_000)
    topic = Topic(1)
    rng = np.random.default_rng(1)
    batch = rides([str(i) for i in range(200)], note="")
    notes = ["".join(map(chr, rng.integers(40, 120, 100))) for _ in range(200)]
    rows: list[dict[str, Any]] = [
        {"driver": str(i), "city": 1, "note": notes[i], "at": "2026-01-01T00:00:00Z"} for i in range(200)
    ]
    batch, _ = decode_rows(SCHEMA, rows, 0, 0)
    Sender(["driver"], 1, 0, 0, topic.produce).send(batch, 250, 99)
    covers = [receive(SCHEMA, value, headers).cover for value, headers in topic.partitions[0]]
    assert len(covers) > 3
    assert all(len(value) <= 6_000 for value, _ in topic.partitions[0])
    assert [cover.newest for cover in covers] == [None] * (len(covers) - 1) + [99]
    assert [cover.first for cover in covers[1:]] == [cover.next for cover in covers[:-1]]
    assert covers[-1].next == 250
    assert [offset for _, offset in topic.received(0, Inbox())] == list(range(200))


def test_missing_messages_are_noticed() -> None:
    topic = Topic(1)
    sender = Sender(["driver"], 1, 0, 0, topic.produce)
    sender.send(rides(["a"], 0, 0), 1, 1)
    sender.send(rides(["b"], 1, 0), 2, 1)
    sender.send(rides(["c"], 2, 0), 3, 1)
    del topic.partitions[0][1]
    with pytest.raises(DataError, match="from offset 1 to 2 are missing"):
        topic.received(0, Inbox())


def test_strangers_are_refused() -> None:
    with pytest.raises(DataError, match="Somebody else writes"):
        receive(SCHEMA, b"{}", None)
    with pytest.raises(DataError, match="Somebody else writes"):
        receive(SCHEMA, b"{}", [(exchange.HEADER, b"\xff\xff")])
