"""What the oracle says of a stream that came through Kafka.

Each partition is judged by itself (contract C7): the verdict on an event depends on the partition's order alone, and so
do ids that repeat. The log of all partitions together holds the oracle's rows, each once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from tests.live.streams import Message
from tests.oracle.described import Sent, Stream, View
from tests.oracle.naive import FAR, Judged, Oracle, judge

Dead = tuple[str, int, int, str]
"""Topic, partition, offset, reason."""


def judged_apart(stream: Stream, events: Iterable[Sent]) -> Judged:
    """What became of the events, where the order of events of different partitions means nothing."""
    partitions: dict[int, list[Sent]] = {}
    for event in events:
        partitions.setdefault(event.partition, []).append(event)
    each = [judge(stream, some) for some in partitions.values()]
    return Judged(
        tuple(one for judged in each for one in judged.taken),
        tuple(one for judged in each for one in judged.dead),
        sum(judged.duplicates for judged in each),
        min((judged.watermark for judged in each), default=-FAR),
        max((judged.clock for judged in each), default=-FAR),
    )


def oracle_of(view: View, messages: Iterable[Message], people: Collection[str] | None = None) -> Oracle:
    """The oracle on the events among the messages, judged by the view's stream; if given, about these people only."""
    events = [message.sent for message in messages if message.sent is not None]
    judged = judged_apart(view.stream, events)
    if people is not None:
        judged = replace(judged, taken=tuple(one for one in judged.taken if one.event.columns["who"] in people))
    return Oracle(view, events, judged)


def dead_of(stream: Stream, messages: Sequence[Message]) -> list[Dead]:
    """Every dead letter that these messages of one source must leave, sorted."""
    offsets: dict[tuple[str, int], int] = {}
    dead: list[Dead] = []
    places: dict[tuple[int, int], tuple[str, int]] = {}
    for message in messages:
        place = (message.topic, message.partition)
        offset = offsets.get(place, 0)
        offsets[place] = offset + 1
        if message.sent is not None:
            assert message.sent.offset == offset
            places[message.sent.partition, offset] = place
        elif message.payload is not None:
            dead.append((*place, offset, "malformed"))
    judged = judged_apart(stream, [message.sent for message in messages if message.sent is not None])
    for event, reason in judged.dead:
        dead.append((*places[event.partition, event.offset], event.offset, reason))
    return sorted(dead)
