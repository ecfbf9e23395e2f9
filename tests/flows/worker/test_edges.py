"""Rows on their way through a repartition topic come once each, whatever is sent again and however it is cut."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import Event, EventTime, Flow, IterableSource
from headrace.features.errors import DataError
from headrace.features.events import schema_of
from headrace.flows.batch import EventBatch
from headrace.flows.decode import decode_rows
from headrace.flows.graph.cutting import Edge
from headrace.flows.worker.edges import EdgeSender, StageInbox, Told

START = datetime(2026, 1, 1, tzinfo=UTC)
PARTITIONS = 3
EDGE = Edge("rows", "who")


class Row(Event):
    who: str | None
    x: int
    at: EventTime


READ = Flow("g").read(IterableSource([], Row, name="rows")).step


def batch(rows: list[tuple[str | None, int]], first: int) -> EventBatch:
    plain = [{"who": who, "x": x, "at": START + timedelta(seconds=x)} for who, x in rows]
    made, dead = decode_rows(schema_of(Row), plain, 2, np.arange(first, first + len(rows), dtype=np.int64))
    assert not dead
    return made


class Topic:
    """Messages by partition."""

    def __init__(self) -> None:
        self.messages: list[list[tuple[bytes, list[tuple[str, bytes]]]]] = [[] for _ in range(PARTITIONS)]

    def produce(self, q: int, value: bytes, headers: dict[str, bytes]) -> None:
        self.messages[q].append((value, list(headers.items())))


Taken = list[tuple[Any, ...]]


def received(topic: Topic, senders: list[str], restarts: list[bool]) -> tuple[list[Taken], list[StageInbox]]:
    """The rows that each partition's task takes, and what it knows in the end."""
    rows: list[Taken] = []
    boxes: list[StageInbox] = []
    for messages in topic.messages:
        inbox = StageInbox({EDGE: READ}, {EDGE.name: senders})
        its: Taken = []
        for n, (value, headers) in enumerate(messages):
            found = inbox.take(value, headers)
            if found is not None:
                taken = found[1]
                columns = [taken.arrow(name).to_pylist() for name in ("who", "x")]
                its += zip(*columns, taken.partition.tolist(), taken.offset.tolist(), strict=True)
            if restarts[n % len(restarts)]:
                saved, inbox = inbox.save(), StageInbox({EDGE: READ}, {EDGE.name: senders})
                inbox.load(saved)
        rows.append(its)
        boxes.append(inbox)
    return rows, boxes


keyed = st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 50))


@given(
    st.lists(keyed, max_size=30),
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_each_row_comes_once_and_in_order(
    rows: list[tuple[str | None, int]], sends: list[tuple[int, bool]], restarts: list[bool]
) -> None:
    topic = Topic()
    sender = EdgeSender(EDGE, "rows/2", PARTITIONS, 0, topic.produce)
    at = saved = step = 0
    newest: list[int] = []
    while at < len(rows):
        size, dies = sends[step % len(sends)]
        newest = [x for _, x in rows[: at + size]]
        told = Told(max(newest) - 5, max(newest))
        sender.send(batch(rows[at : at + size], at), told)
        at, step = at + size, step + 1
        if step % 3 == 0:  # a checkpoint: targets are told first
            sender.tell(told)
            saved = min(at, len(rows))
        if dies and step < 40:  # back to the checkpoint: rows since then are sent again, cut otherwise
            at, sender = saved, EdgeSender(EDGE, "rows/2", PARTITIONS, saved, topic.produce)
    sender.tell(Told(99, 100, False, {"rows/2": len(rows)}))
    taken, boxes = received(topic, ["rows/2"], restarts)
    assert Counter(each for its in taken for each in its) == Counter((who, x, 2, n) for n, (who, x) in enumerate(rows))
    assert all(its == sorted(its, key=lambda each: each[3]) for its in taken)
    for key in ("a", "b", "c"):
        assert len({q for q, its in enumerate(taken) if any(each[0] == key for each in its)}) <= 1
    assert [box.watermark_us for box in boxes] == [99] * PARTITIONS
    assert [box.ended for box in boxes] == [{"rows/2": len(rows)}] * PARTITIONS


def test_the_watermark_is_the_least_of_those_that_are_awaited() -> None:
    topic = Topic()
    one, two = (EdgeSender(EDGE, f"rows/{n}", PARTITIONS, 0, topic.produce) for n in (0, 1))
    senders = ["rows/0", "rows/1"]
    one.tell(Told(50, 60))
    assert received(topic, senders, [False])[1][0].watermark_us is None
    two.tell(Told(30, 35))
    assert received(topic, senders, [False])[1][0].watermark_us == 30
    two.tell(Told(30, 35, True))
    assert received(topic, senders, [True])[1][0].watermark_us == 50
    two.tell(Told(40, 45))
    assert received(topic, senders, [False])[1][0].watermark_us == 40
    one.tell(Told(50, 60, True))
    two.tell(Told(40, 45, True))
    assert received(topic, senders, [False])[1][0].watermark_us == 50


def test_who_was_not_waited_for_comes_back_with_what_he_says_himself() -> None:
    topic = Topic()
    one, two = (EdgeSender(EDGE, f"rows/{n}", PARTITIONS, 0, topic.produce) for n in (0, 1))
    one.tell(Told(50, 60))
    two.tell(Told(30, 35, True))
    two.tell(Told(31, 35, True))
    one.tell(Told(55, 60))
    two.tell(Told(32, 36))
    two.tell(Told(33, 36))
    for restarts in (False, True):
        inbox = StageInbox({EDGE: READ}, {EDGE.name: ["rows/0", "rows/1"]})
        back = []
        for value, headers in topic.messages[0]:
            back.append(inbox.is_back(headers))
            inbox.take(value, headers)
            if restarts:
                saved, inbox = inbox.save(), StageInbox({EDGE: READ}, {EDGE.name: ["rows/0", "rows/1"]})
                inbox.load(saved)
        assert back == [False, False, False, False, True, False]


def test_rows_that_are_missing_are_told() -> None:
    topic = Topic()
    EdgeSender(EDGE, "rows/0", PARTITIONS, 7, topic.produce).tell(Told(1, 2))
    with pytest.raises(DataError, match=r"rows 0 to 7 of the edge 'rows/who' from task 'rows/0' are missing"):
        received(topic, ["rows/0"], [False])
    inbox = StageInbox({EDGE: READ}, {EDGE.name: ["rows/0"]})
    with pytest.raises(DataError, match="without a readable 'headrace-rows' header"):
        inbox.take(b"x", [])
    EdgeSender(Edge("gone", "who"), "rows/0", 1, 0, lambda q, value, headers: topic.produce(0, value, headers)).tell(
        Told()
    )
    with pytest.raises(DataError, match="rows of the edge 'gone/who', which the flow does not have"):
        inbox.take(*topic.messages[0][-1])
