"""Re-keying: judged events of a source partition, sent on by entity, and taken in again exactly once.

A message of a repartition topic holds many events, all of one source partition and for one target partition, as an
Arrow IPC stream. Its header says which offsets of the source partition it covers, [first, next), and how far the
partition's event time has come. A sender that restarts sends again what it had sent since its checkpoint, perhaps cut
otherwise; the receiver takes of each message only the events at or after the `next` that it knows, so each counts
once, without transactions and whoever else still sends (a zombie sends the same events at the same offsets).
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.errors import DataError
from headrace.features.events import EventSchema
from headrace.flows.batch import ARROW_TYPES, BatchColumn, EventBatch, Ints
from headrace.stores.keys import encode_key

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


@dataclass(frozen=True)
class Routed:
    """A received message: its cover, and the events, of which some may have come before."""

    cover: Cover
    batch: EventBatch | None


def targets(batch: EventBatch, keys: Sequence[str], partitions: int) -> npt.NDArray[np.int64]:
    """(n,) partition of the repartition topic of each event; -1 where a key is null and the event concerns nobody.

    The same on every machine and in every version: CRC-32 of the keys' canonical bytes, combined column by column.
    """
    mixed = np.zeros(len(batch), dtype=np.uint64)
    present = np.ones(len(batch), dtype=np.bool_)
    for key in keys:
        array = batch.arrow(key)
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        words = coded.dictionary
        if pa.types.is_timestamp(words.type):
            words = words.cast(pa.int64())
        hashes = np.fromiter(
            (zlib.crc32(encode_key((word,))) for word in words.to_pylist()), dtype=np.uint64, count=len(words)
        )
        here = batch.valid(key)
        codes = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        if len(hashes):
            mixed = (mixed * np.uint64(0x9E3779B1) + hashes[codes]) & np.uint64(0xFFFFFFFF)
        present &= here
    found = (mixed % np.uint64(partitions)).astype(np.int64)
    found[~present] = -1
    return found


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
        target = targets(batch, self._keys, len(self._next))
        order = np.argsort(target, kind="stable")
        cuts = np.searchsorted(target[order], np.arange(len(self._next) + 1))
        for q, (start, end) in enumerate(pairwise(cuts.tolist())):
            if start < end:
                self._send(q, batch.take(order[start:end]), upto, newest)

    def tell(self, upto: int, newest: int | None) -> None:
        """Say to every target that does not know how far the source partition has come."""
        for q, told in enumerate(self._told):
            if told != (upto, newest):
                self._emit(q, b"", upto, newest)

    def _send(self, q: int, batch: EventBatch, upto: int, newest: int | None) -> None:
        parts = list(_cut(batch))
        for i, (part, value) in enumerate(parts):
            last = i == len(parts) - 1
            # Only the last part of a batch knows that the partition has come to its newest event.
            self._emit(q, value, upto if last else int(part.offset[-1]) + 1, newest if last else None)

    def _emit(self, q: int, value: bytes, upto: int, newest: int | None) -> None:
        cover = Cover(self._number, self._next[q], upto, newest)
        self._produce(q, value, {HEADER: msgspec.msgpack.encode(cover)})
        self._next[q] = upto
        self._told[q] = (upto, newest)


def _cut(batch: EventBatch) -> Iterator[tuple[EventBatch, bytes]]:
    """The events in order, in parts whose messages are small enough for Kafka."""
    for start in range(0, len(batch), EVENTS):
        yield from _halves(batch if len(batch) <= EVENTS else batch.take(slice(start, start + EVENTS)))


def _halves(batch: EventBatch) -> Iterator[tuple[EventBatch, bytes]]:
    value = encode(batch)
    if len(value) <= MAX_BYTES or len(batch) == 1:
        yield batch, value
        return
    middle = len(batch) // 2
    yield from _halves(batch.take(slice(0, middle)))
    yield from _halves(batch.take(slice(middle, len(batch))))


def encode(batch: EventBatch) -> bytes:
    """Events of one partition as an Arrow IPC stream."""
    names, arrays = [], []
    for name in batch:
        array = batch.arrow(name)
        names.append(name)
        arrays.append(array.dictionary_decode() if pa.types.is_dictionary(array.type) else array)
    names.append(_OFFSET)
    arrays.append(pa.array(batch.offset))
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
    said = dict(headers or ()).get(HEADER)
    try:
        cover = msgspec.msgpack.decode(said or b"", type=Cover)
    except msgspec.MsgspecError as error:
        raise DataError(
            f"a message without a readable '{HEADER}' header: {error}. Somebody else writes to the repartition topic; "
            "give the flow another name, or delete the topic and start afresh"
        ) from None
    if cover.version != 1:
        raise DataError(f"a message of version {cover.version}, this Headrace reads 1. Upgrade all workers together")
    if not value:
        return Routed(cover, None)
    with pa.ipc.open_stream(value) as reader:
        table = reader.read_next_batch()
    return Routed(cover, _events(schema, table, cover.partition))


def _events(schema: EventSchema, record: pa.RecordBatch, partition: int) -> EventBatch:
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
    time = columns[schema.time_field].values()
    effective: Any = None
    if _EFFECTIVE in have:
        effective = record.column(_EFFECTIVE).to_numpy()
    return EventBatch.of(columns, time, partition, _ints(record.column(_OFFSET)), effective)


def _ints(array: pa.Array) -> Ints:
    values: Ints = array.to_numpy()
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
