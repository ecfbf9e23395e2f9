"""Messages for Kafka from a seed, in the order in which they are produced, with all that goes wrong in them."""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.live.poison import POISON
from tests.oracle.described import Sent
from tests.oracle.strategies import CITIES, JANUARY

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AMOUNTS = (None, 0.0, 0.1, 0.2, 0.3, 1.0, -1.0, 12.5, 1e-3, 1e15 + 0.5, -1e15)
COUNTS = (None, 0, 1, 2, 3, -1, 2**53, 2**62, -(2**62), 2**63 - 1)
PARTITION_BITS = 10  # a source of several topics numbers its partitions topic << 10 | partition


@dataclass(frozen=True)
class Topic:
    """A topic as producers see it.

    Attributes:
        partitions: how many. keyed_by: columns of the message's key; empty: any partition will do.
    """

    name: str
    partitions: int = 4
    keyed_by: tuple[str, ...] = ()

    def place(self, columns: Mapping[str, Any], rng: random.Random) -> int:
        """The partition of an event."""
        if not self.keyed_by:
            return rng.randrange(self.partitions)
        text = "|".join(str(columns[name]) for name in self.keyed_by)
        return zlib.crc32(text.encode()) % self.partitions


@dataclass(frozen=True)
class Message:
    """One message: an event, poison (`sent` is None), or a tombstone (no payload either)."""

    topic: str
    partition: int
    payload: bytes | None
    sent: Sent | None = None


@dataclass(frozen=True)
class Habits:
    """How a stream behaves. Durations are microseconds.

    Attributes:
        unit: the step in which time goes on; instants are multiples of it, give or take a microsecond. delays: how far
            behind an event may be, any of these. skew: partition n is this much behind partition n - 1. jumps: chance
            of a silence that empties windows. poison, tombstones, ahead: chances of such messages. repeats: that an
            event is sent again, to its partition. people: entities.
    """

    unit: int
    delays: tuple[int, ...] = (0,)
    skew: int = 0
    jumps: float = 0.02
    poison: float = 0.0
    tombstones: float = 0.0
    ahead: float = 0.0
    repeats: float = 0.05
    people: int = 6
    amounts: Sequence[float | None] = AMOUNTS


@dataclass
class Traffic:
    """An endless stream into the topics of one source. Offsets are those that an empty topic gives."""

    topics: Sequence[Topic]
    habits: Habits
    seed: int
    now: int = JANUARY
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._poison = self._kinds()
        self._ids = itertools.count()
        self._recent: deque[tuple[Topic, Sent]] = deque(maxlen=30)

    def take(self, n: int) -> list[Message]:
        """The next `n` messages."""
        return [self._one() for _ in range(n)]

    def end(self, after: int) -> list[Message]:
        """One more event for every partition, `after` microseconds past everything: what came before settles.

        It is of an entity of its own for each partition, and fits the key of none: nobody else's values change.
        """
        self.now += after
        out = []
        for topic in self.topics:
            for partition in range(topic.partitions):
                who = f"end-{topic.name}-{partition}"
                out.append(self._message(topic, partition, self._columns(who) | {"id": None}, self.now))
        return out

    def _one(self) -> Message:
        rng, habits = self.rng, self.habits
        self.now += habits.unit * (rng.choice((8, 20)) if rng.random() < habits.jumps else rng.choice((0, 0, 1, 1, 2)))
        topic = rng.choice(self.topics)
        dice = rng.random()
        if dice < habits.poison:
            return self.put(topic, rng.randrange(topic.partitions), next(self._poison))
        if dice < habits.poison + habits.tombstones:
            return self.put(topic, rng.randrange(topic.partitions), None)
        if self._recent and rng.random() < habits.repeats:
            topic, sent = rng.choice(self._recent)
            return self._message(topic, self._partition(sent), dict(sent.columns), sent.time)
        columns = self._columns(f"e{rng.randrange(habits.people)}")
        partition = topic.place(columns, rng)
        jitter = rng.choice((-1, 0, 0, 0, 1)) if habits.unit > 1 else 0
        time = self.now - rng.choice(habits.delays) - partition * habits.skew + jitter
        if rng.random() < habits.ahead:
            time += 36_000_000_000
        return self._message(topic, partition, columns, time)

    def _columns(self, who: str) -> dict[str, Any]:
        rng = self.rng
        return {
            "who": who,
            "where_from": rng.choice((1, 2)),
            "id": None if rng.random() < 0.1 else f"{self.seed}-{next(self._ids)}",
            "amount": rng.choice(self.habits.amounts),
            "units": rng.choice(COUNTS),
            "city": rng.choice(CITIES),
            "paid": rng.choice((None, True, False)),
        }

    def _message(self, topic: Topic, partition: int, columns: dict[str, Any], time: int) -> Message:
        index = self.topics.index(topic)
        number = partition if len(self.topics) == 1 else index << PARTITION_BITS | partition
        sent = Sent(time, columns, number, self.offsets.get((topic.name, partition), 0))
        at = (EPOCH + timedelta(microseconds=time)).isoformat()
        self._recent.append((topic, sent))
        return self.put(topic, partition, self._written(columns | {"at": at}), sent)

    def _partition(self, sent: Sent) -> int:
        return sent.partition if len(self.topics) == 1 else sent.partition & ((1 << PARTITION_BITS) - 1)

    def _written(self, event: dict[str, Any]) -> bytes:
        """JSON as one producer or another writes it: compact, in lines, escaped, with fields that nobody asked for."""
        form = self.rng.randrange(8)
        if form == 0:
            return json.dumps(event, indent=2).encode()
        if form == 1:
            return json.dumps({"more": {"who": [None, 1]}, **dict(reversed(event.items()))}).encode()
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()

    def put(self, topic: Topic, partition: int, payload: bytes | None, sent: Sent | None = None) -> Message:
        """The next message of a partition."""
        place = (topic.name, partition)
        self.offsets[place] = self.offsets.get(place, 0) + 1
        return Message(topic.name, partition, payload, sent)

    def _kinds(self) -> Iterator[bytes]:
        while True:
            kinds = list(POISON.values())
            self.rng.shuffle(kinds)
            yield from kinds
