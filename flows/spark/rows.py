"""What goes from task to task through Spark: messages of tasks to tasks of later levels, and reports."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

REPORT = -1
"""The level of rows that are for the driver."""
SENT = pa.schema(
    [
        pa.field("level", pa.int32()),
        pa.field("target", pa.int32()),
        pa.field("sender", pa.int32()),
        pa.field("number", pa.int64()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.binary()),
    ]
)
"""Of messages between tasks: level and task that they are for, the task that they are from, and their order there."""
SENT_DDL = "level int, target int, sender int, number long, value binary, headers binary"
CHUNK_BYTES = 8 << 20
"""Messages go to Spark in batches of at most so many bytes, or one by one."""


@dataclass(frozen=True)
class Sent:
    """A message of a task: to which topic of a worker, which partition of it."""

    topic: str
    target: int
    value: bytes
    headers: dict[str, bytes]


class Message:
    """A message of a task, as what is used of one of a repartition topic."""

    __slots__ = ("_headers", "_offset", "_value")

    def __init__(self, offset: int, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        self._offset, self._value, self._headers = offset, value, headers

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def offset(self) -> int:
        return self._offset


def messages(batch: pa.RecordBatch, offset: int) -> list[Message]:
    """Messages of tasks to one task, all of one offset; rows that only say that it is to run are none."""
    values, headers = batch.column("value").to_pylist(), batch.column("headers").to_pylist()
    return [
        Message(offset, value, list(msgspec.msgpack.decode(its, type=dict[str, bytes]).items()))
        for value, its in zip(values, headers, strict=True)
        if its is not None
    ]


def rows(sent: Sequence[tuple[int, int, int, int, bytes, bytes]]) -> Iterator[pa.RecordBatch]:
    """Messages as rows of `SENT`, in batches that are not too large."""
    chunk: list[tuple[int, int, int, int, bytes, bytes]] = []
    size = 0
    for row in sent:
        if chunk and size + len(row[4]) > CHUNK_BYTES:
            yield _batch(chunk)
            chunk, size = [], 0
        chunk.append(row)
        size += len(row[4])
    if chunk:
        yield _batch(chunk)


def _batch(chunk: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(zip(*chunk, strict=True), SENT, strict=True)],
        schema=SENT,
    )
