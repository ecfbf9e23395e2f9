"""Re-keying: judged events of a source partition, sent on by entity, and taken in again exactly once.

A message of a repartition topic holds many events, all of one source partition and for one target partition, as an
Arrow IPC stream. Its header says which offsets of the source partition it covers, [first, next), and how far the
partition's event time has come. A sender that restarts sends again what it had sent since its checkpoint, perhaps cut
otherwise; the receiver takes of each message only the events at or after the `next` that it knows, so each counts
once, without transactions and whoever else still sends (a zombie sends the same events at the same offsets).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.errors import DataError
from headrace.features.events import EventSchema
from headrace.flows.batch import ARROW_TYPES, BatchColumn, EventBatch, Ints
from headrace.stores.keys import key_numbers

HEADER = "headrace"
MAX_BYTES = 900_000
"""A message stays below Kafka's default of 1 MB with its headers."""
EVENTS = 4_000
"""Events that are put into one message at first; cut again where they are large."""

_OFFSET, _EFFECTIVE = "headrace offset", "headrace effective"
_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


class Cover(msgspec.Struct, frozen=True):
    """What a message says of its source partition.

    partition: its number in positions. first, next: the message has all events at offsets in [first, next) that go to
    its target. newest: event time of the newest event taken by then, microseconds; None: none yet.
    """

    partition: int
    first: int
    next: int
    newest: int | None
    version: int = 1


class Versioned(Protocol):
    """A cover, of whatever kind."""

    @property
    def version(self) -> int: ...


C = TypeVar("C", bound=Versioned)


@dataclass(frozen=True)
class Routed:
    """A received message: its cover, and the events, of which some may have come before."""

    cover: Cover
    batch: EventBatch | None


def targets(batch: EventBatch, keys: Sequence[str], partitions: int) -> npt.NDArray[np.int64]:
    """(n,) partition of the repartition topic of each event; -1 where a key is null and the event concerns nobody.

    The same on every machine and in every version: the rest of `key_number`.
    """
    numbers, present = numbered(batch, keys)
    found = (numbers % np.uint64(partitions)).astype(np.int64)
    found[~present] = -1
    return found


def numbered(batch: EventBatch, keys: Sequence[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """(n,) `key_number` of each event's entity, and (n,) bool: no part of the key is null."""
    present = np.ones(len(batch), dtype=np.bool_)
    for key in keys:
        present &= batch.valid(key)
    return key_numbers([batch.arrow(key) for key in keys]), present


def by_target(batch: EventBatch, target: Ints, partitions: int) -> Iterator[tuple[int, EventBatch]]:
    """Each partition of the repartition topic that is the target of some events, and these in their order."""
    order = np.argsort(target, kind="stable")
    cuts = np.searchsorted(target[order], np.arange(partitions + 1))
    for q, (start, end) in enumerate(pairwise(cuts.tolist())):
        if start < end:
            yield q, batch.take(order[start:end])


class Sender:
    """Sends the events of one source partition on to the partitions of one repartition topic.

    Args:
        keys: the entity's key columns. partitions: of the repartition topic. number: of the source partition.
        next_offset: where the source partition is read from.
        produce: produce(target partition, value, headers); may block, raises if the message is too large.
    """

    def __init__(
        self,
        keys: Sequence[str],
        partitions: int,
        number: int,
        next_offset: int,
        produce: Callable[[int, bytes, dict[str, bytes]], None],
    ) -> None:
        self._keys = tuple(keys)
        self._number = number
        self._produce = produce
        self._next = [next_offset] * partitions
        self._told: list[tuple[int, int | None] | None] = [None] * partitions

    def send(self, batch: EventBatch, upto: int, newest: int | None) -> None:
        """Send the events of `batch`, which are all those taken before offset `upto`."""
        if not len(batch):
            return
        for q, part in by_target(batch, targets(batch, self._keys, len(self._next)), len(self._next)):
            self._send(q, part, upto, newest)

    def tell(self, upto: int, newest: int | None) -> None:
        """Say to every target that does not know how far the source partition has come."""
        for q, told in enumerate(self._told):
            if told != (upto, newest):
                self._emit(q, b"", upto, newest)

    def _send(self, q: int, batch: EventBatch, upto: int, newest: int | None) -> None:
        parts = list(in_messages(batch, encode))
        for i, (part, value) in enumerate(parts):
            last = i == len(parts) - 1
            # Only the last part of a batch knows that the partition has come to its newest event.
            self._emit(q, value, upto if last else int(part.offset[-1]) + 1, newest if last else None)

    def _emit(self, q: int, value: bytes, upto: int, newest: int | None) -> None:
        cover = Cover(self._number, self._next[q], upto, newest)
        self._produce(q, value, {HEADER: msgspec.msgpack.encode(cover)})
        self._next[q] = upto
        self._told[q] = (upto, newest)


def in_messages(batch: EventBatch, encoded: Callable[[EventBatch], bytes]) -> Iterator[tuple[EventBatch, bytes]]:
    """The events in order, in parts whose messages are small enough for Kafka."""
    for start in range(0, len(batch), EVENTS):
        part = batch if len(batch) <= EVENTS else batch.take(slice(start, start + EVENTS))
        yield from _halves(part, encoded)


def _halves(batch: EventBatch, encoded: Callable[[EventBatch], bytes]) -> Iterator[tuple[EventBatch, bytes]]:
    value = encoded(batch)
    if len(value) <= MAX_BYTES or len(batch) == 1:
        yield batch, value
        return
    middle = len(batch) // 2
    yield from _halves(batch.take(slice(0, middle)), encoded)
    yield from _halves(batch.take(slice(middle, len(batch))), encoded)


def encode(batch: EventBatch) -> bytes:
    """Events of one partition as an Arrow IPC stream."""
    return encode_with(batch, {_OFFSET: batch.offset})


def encode_with(batch: EventBatch, places: Mapping[str, Ints]) -> bytes:
    """Events, and more columns under their names, as an Arrow IPC stream; effective instants where they differ."""
    names, arrays = [], []
    for name in batch:
        array = batch.arrow(name)
        names.append(name)
        arrays.append(array.dictionary_decode() if pa.types.is_dictionary(array.type) else array)
    for name, numbers in places.items():
        names.append(name)
        arrays.append(pa.array(numbers))
    if batch.effective is not batch.time and not np.array_equal(batch.effective, batch.time):
        names.append(_EFFECTIVE)
        arrays.append(pa.array(batch.effective))
    record = pa.RecordBatch.from_arrays(arrays, names=names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, record.schema, options=_LZ4) as writer:
        writer.write_batch(record)
    made: bytes = sink.getvalue().to_pybytes()
    return made


def receive(schema: EventSchema, value: bytes | None, headers: Sequence[tuple[str, bytes]] | None) -> Routed:
    """A message of a repartition topic.

    Raises:
        DataError: it is none of ours, or of an event class that lacked a field of today's.
    """
    cover = cover_in(headers, HEADER, Cover)
    if not value:
        return Routed(cover, None)
    with pa.ipc.open_stream(value) as reader:
        table = reader.read_next_batch()
    return Routed(cover, _events(schema, table, cover.partition))


def cover_in(headers: Sequence[tuple[str, bytes]] | None, header: str, kind: type[C]) -> C:
    """What a message of a repartition topic says of itself, in a header of that name.

    Raises:
        DataError: it has no such header, or one of another version.
    """
    said = dict(headers or ()).get(header)
    try:
        cover = msgspec.msgpack.decode(said or b"", type=kind)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"a message without a readable '{header}' header: {error}. Somebody else writes to the repartition topic; "
            "give the flow another name, or delete the topic and start afresh"
        ) from None
    if cover.version != 1:
        raise DataError(f"a message of version {cover.version}, this Headrace reads 1. Upgrade all workers together")
    return cover


def _events(schema: EventSchema, record: pa.RecordBatch, partition: int) -> EventBatch:
    columns, effective = columns_sent(schema, record)
    time = columns[schema.time_field].values()
    return EventBatch.of(columns, time, partition, ints_sent(record, _OFFSET), effective)


def columns_sent(schema: EventSchema, record: pa.RecordBatch) -> tuple[dict[str, BatchColumn], Ints | None]:
    """The columns of events that were sent on, and their effective instants; None where these are their own.

    Raises:
        DataError: a field is not there.
    """
    n = record.num_rows
    columns: dict[str, BatchColumn] = {}
    have = set(record.schema.names)
    for field in schema.fields:
        if field.name in have:
            array = record.column(field.name)
        elif field.nullable:
            array = pa.nulls(n, ARROW_TYPES[field.dtype])
        else:
            raise DataError(
                f"events without the field '{field.name}', which {schema.name} has now: they were sent on before the "
                "field was added. Declare it `| None`, or let the flow of before finish them first"
            )
        columns[field.name] = BatchColumn(field.dtype, arrow=array)
    return columns, ints_sent(record, _EFFECTIVE) if _EFFECTIVE in have else None


def ints_sent(record: pa.RecordBatch, name: str) -> Ints:
    """(n,) int64, one of the columns sent beside the events."""
    values: Ints = record.column(name).to_numpy()
    return values


class Inbox:
    """What a receiver knows of each source partition: which events it has taken, so that each counts once."""

    def __init__(self) -> None:
        self.next: dict[int, int] = {}

    def take(self, routed: Routed) -> EventBatch | None:
        """The events of a message that have not come before.

        Raises:
            DataError: events are missing between this message and those before it.
        """
        cover, batch = routed.cover, routed.batch
        known = self.next.get(cover.partition)
        if known is not None and cover.first > known:
            raise DataError(
                f"events of source partition {cover.partition} from offset {known} to {cover.first} are missing. Were "
                "messages of the repartition topic deleted? Start the flow afresh"
            )
        self.next[cover.partition] = max(cover.next, -1 if known is None else known)
        if batch is None or known is None or known <= cover.first:
            return batch
        fresh = batch.offset >= known
        return None if not fresh.any() else batch if fresh.all() else batch.take(fresh)
