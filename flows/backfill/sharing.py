"""Which partition of the topic an event of the history belongs to, for it to be judged and counted there.

its own columns say so           exact, whatever the producer did
the topic has one partition      that one
the topic is keyed               the partition to which producers send its key: found from the topic's own messages
otherwise                        nobody knows, and no view is computed beside a partition: judged as one stream
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.errors import DataError
from headrace.features.events import EventMeta
from headrace.features.kafka_history import PARTITIONERS
from headrace.features.kafka_source import KafkaSource
from headrace.features.message_parts import MessageKey
from headrace.features.sources import FileSource, FrameSource
from headrace.flows.backfill.topics import TopicNow
from headrace.flows.batch import EventBatch
from headrace.flows.kafka.partitioners import KNOWN, fitting

Numbers = npt.NDArray[np.int32]

_ENCODINGS: dict[str, Callable[[Any], bytes]] = {
    "text": lambda value: value if isinstance(value, bytes) else str(value).encode(),
    "int": lambda value: int(value).to_bytes(8, "big", signed=True),
    "int of 4 bytes": lambda value: int(value).to_bytes(4, "big", signed=True),
    "json": msgspec.json.encode,
}
_POSSIBLE = {"string": ("text", "json"), "int64": ("text", "int", "int of 4 bytes"), "bytes": ("text",)}
"""How a key of one column may be written, by the column's type."""


@dataclass(frozen=True)
class Sharing:
    """How a history is shared out among the partitions of its topic.

    known: whether each event has a partition; otherwise all are judged as one stream. exact: whether history and topic
    tell their place by offsets. how: in words. numbers: (batch) -> (n,) partition number of each event; can be
    pickled.
    """

    known: bool
    exact: bool
    how: str
    numbers: Callable[[EventBatch], Numbers]


def sharing_of(source: KafkaSource, now: TopicNow) -> Sharing:
    """How the history of `source` is shared out.

    Raises:
        DataError: the topic is keyed, and what its producers do with keys cannot be told, or is not what it seems.
    """
    if source.history_position is not None:
        partition, _ = source.history_position
        return Sharing(
            True, True, f"by its column '{partition}'", _Told(partition, source.name, source.topic, now.numbers)
        )
    first = now.numbers[0]
    if len(now.numbers) == 1:
        return Sharing(True, False, "all to the only partition", _AllTo(first))
    if source.keyed_by is None or len(source.topics) > 1:
        return Sharing(False, False, "as one stream", _AllTo(first))
    return _by_key(source, now, source.keyed_by)


def with_position(source: KafkaSource) -> FileSource | FrameSource:
    """The history of a source, with the columns of partition and offset where it has them."""
    history = source.history
    assert history is not None, "only sources with history are handed over"
    missing = [name for name in source.history_position or () if name not in history.schema]
    if not missing:
        return history
    made = copy(history)
    event = EventMeta(history.event.__name__, (history.event,), {"__annotations__": dict.fromkeys(missing, int)})
    object.__setattr__(made, "event", event)
    return made


@dataclass(frozen=True)
class _AllTo:
    number: int

    def __call__(self, batch: EventBatch) -> Numbers:
        return np.full(len(batch), self.number, dtype=np.int32)


@dataclass(frozen=True)
class _Told:
    """By a column. source, topic: for the error. known: the topic's partitions."""

    column: str
    source: str
    topic: str
    known: tuple[int, ...]

    def __call__(self, batch: EventBatch) -> Numbers:
        numbers: Numbers = batch.values(self.column).astype(np.int32)
        strange = np.flatnonzero(~np.isin(numbers, self.known))
        if len(strange):
            raise DataError(
                f"Source '{self.source}': its history has an event of partition {int(numbers[strange[0]])}, and topic "
                f"'{self.topic}' has {len(self.known)}. Is it the history of this topic?"
            )
        return numbers


def _by_key(source: KafkaSource, now: TopicNow, keyed_by: Sequence[str]) -> Sharing:
    """By the function of the key that explains the topic's messages."""
    shown = f"Source '{source.name}': topic '{source.topic}' is keyed by {' and '.join(keyed_by)}"
    out = (
        "Ways out: a history with the columns of partition and offset (history_position=, as Kafka Connect's sinks "
        "write them); partitioner= of the source, if all its producers have the same; or leave keyed_by out, and the "
        "flow re-keys the events itself"
    )
    if len(keyed_by) > 1:
        raise DataError(f"{shown}: how one key is made of several columns is not known. {out}.")
    column = keyed_by[0]
    possible = _POSSIBLE.get(source.schema.field(column).dtype, ())
    if not possible:
        raise DataError(f"{shown}, which is no text, integer or bytes: how it is written as a key is not known. {out}.")
    found: dict[tuple[bytes, int], object] = {}
    for number, keyed in now.sample():
        values = keyed.batch.arrow(column).to_pylist()
        for key, value, offset in zip(keyed.keys, values, keyed.batch.offset.tolist(), strict=True):
            if key is None:
                raise DataError(f"{shown}, and its message at partition {number}, offset {offset} has no key. {out}.")
            found.setdefault((key, number), value)
    if not found:
        return _by_word(source, now, column, possible, shown, out)
    encodings = [name for name in possible if all(_written(name, v) == key for (key, _), v in found.items())]
    if not encodings:
        wrongly = [next(at for at, v in found.items() if _written(name, v) != at[0]) for name in possible]
        key, number = wrongly[0]
        raise DataError(
            f"{shown}, and its message in partition {number} with {column} {found[key, number]!r} has the key {key!r}: "
            f"not all keys are the {column} written as {' or '.join(possible)}. {out}."
        )
    index = {number: at for at, number in enumerate(now.numbers)}
    keyed_at = [(key, index[number]) for key, number in found]
    tried = [source.partitioner] if source.partitioner is not None else list(PARTITIONERS)
    wrong = {name: fitting(name, keyed_at, len(now.numbers)) for name in tried}
    right = [name for name, against in wrong.items() if against is None]
    if not right:
        said = "; ".join(
            f"{name} sends the key {against[0]!r} to partition {against[2]}, and it is in {against[1]}"
            for name, against in wrong.items()
            if against is not None
        )
        raise DataError(f"{shown}, and no known partitioner explains where its messages are: {said}. {out}.")
    if len(right) > 1:
        raise DataError(
            f"{shown}, and its {len(found)} different keys are explained by {' as well as by '.join(right)}. Say which "
            "one its producers have: partitioner=."
        )
    return _keyed(now, column, encodings[0], right[0])


def _by_word(source: KafkaSource, now: TopicNow, column: str, possible: Sequence[str], shown: str, out: str) -> Sharing:
    """The topic is empty: the source itself says it."""
    if source.partitioner is None:
        raise DataError(
            f"{shown} and holds no message from which to tell to which partition its producers send a key. Say so with "
            f"partitioner= ('murmur2' of Java's clients, 'crc32' of librdkafka's). {out}."
        )
    part = source.columns.get(column)
    encoding = "text"
    if isinstance(part, MessageKey) and part.encoding != "text":
        encoding = part.encoding
        if encoding not in possible or part.field is not None:
            raise DataError(
                f"{shown}, as a part of a JSON key, and holds no message to see how those are written. {out}."
            )
    return _keyed(now, column, encoding, source.partitioner)


class _Keyed:
    """By a function of the key, of which `column` is the one value."""

    def __init__(self, column: str, encoding: str, partitioner: str, numbers: Sequence[int]) -> None:
        self._how = column, encoding, partitioner, tuple(numbers)
        self._there: dict[Any, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _Keyed, self._how

    def __call__(self, batch: EventBatch) -> Numbers:
        array = batch.arrow(self._how[0])
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        words = np.array([self._place(value) for value in [*coded.dictionary.to_pylist(), None]], dtype=np.int32)
        codes = coded.indices.cast(pa.int64()).fill_null(len(words) - 1).to_numpy(zero_copy_only=False)
        found: Numbers = words[codes]
        return found

    def _place(self, value: Any) -> int:
        _, encoding, partitioner, numbers = self._how
        if value is None:  # concerns nobody; it is judged somewhere
            return numbers[0]
        found = self._there.get(value)
        if found is None:
            if len(self._there) > _REMEMBERED:
                self._there.clear()
            at = KNOWN[partitioner](_ENCODINGS[encoding](value), len(numbers))
            found = self._there[value] = numbers[at]
        return found


def _keyed(now: TopicNow, column: str, encoding: str, partitioner: str) -> Sharing:
    how = f"by {partitioner} of {column} as {encoding}"
    return Sharing(True, False, how, _Keyed(column, encoding, partitioner, now.numbers))


def _written(encoding: str, value: Any) -> bytes | None:
    try:
        return None if value is None else _ENCODINGS[encoding](value)
    except (OverflowError, ValueError):
        return None


_REMEMBERED = 1_000_000
"""Keys whose partition is remembered."""
