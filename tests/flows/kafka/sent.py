"""Messages for the tests of decoding, as a consumer hands them out, and batches as rows to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Message

from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.kafka.decoding import MessageDecoder

AT_MS = 1_777_636_800_000
AT = "2026-05-01T12:00:00Z"
AT_US = AT_MS * 1_000


def message(
    value: bytes | None,
    *,
    key: bytes | None = None,
    headers: Sequence[tuple[str, bytes | None]] | None = None,
    at_ms: int | None = AT_MS,
    topic: str = "rides",
    partition: int = 0,
    offset: int = 0,
) -> Message:
    return Message(
        topic=topic,
        partition=partition,
        offset=offset,
        key=key,
        value=value,
        headers=None if headers is None else list(headers),
        timestamp=(0, 0) if at_ms is None else (1, at_ms),
    )


def messages(values: Sequence[bytes | None]) -> list[Message]:
    """A message for each payload, at offsets 0, 1, ..."""
    return [message(value, offset=i) for i, value in enumerate(values)]


def rows_of(batch: EventBatch) -> list[dict[str, Any]]:
    """The events by name, with instants in microseconds."""
    columns = {
        name: [v if ok else None for v, ok in zip(batch.values(name).tolist(), batch.valid(name).tolist(), strict=True)]
        for name in batch
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def placed_rows(batch: EventBatch) -> dict[tuple[int, int], Mapping[str, Any]]:
    """(partition number, offset) -> event."""
    places = zip(batch.partition.tolist(), batch.offset.tolist(), strict=True)
    return dict(zip(places, rows_of(batch), strict=True))


def one(decoder: MessageDecoder, value: bytes | None, **parts: Any) -> Any:
    """What becomes of one message: its event, or the detail of its dead letter, or None for a tombstone."""
    batch, dead, gone = decoder.decode([message(value, **parts)])
    assert len(batch) + len(dead) + gone == 1
    return rows_of(batch)[0] if len(batch) else dead[0].detail if dead else None


def decoded_one_by_one(
    decoder: MessageDecoder, sent: Sequence[Message]
) -> tuple[dict[Any, Any], list[DeadLetter], int]:
    events: dict[tuple[int, int], Mapping[str, Any]] = {}
    letters: list[DeadLetter] = []
    tombstones = 0
    for each in sent:
        batch, dead, gone = decoder.decode([each])
        events |= placed_rows(batch)
        letters += dead
        tombstones += gone
    return events, letters, tombstones


EVENT_SCHEMA = {
    "type": "record",
    "name": "Tick",
    "fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
}
