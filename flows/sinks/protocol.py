"""What a flow and a sink say to each other."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.events import EventSchema
from headrace.flows.batch import ARROW_TYPES, EventBatch, Ints
from headrace.flows.deadletter import DeadLetter


@dataclass(frozen=True, eq=False)
class SinkRows:
    """n rows of a stream.

    table: the columns of the schema in its order, plain Arrow types. time_us: (n,) int64, event time.
    position: (n,) int64, as `EventBatch.position`, of the event that a row comes from; index: (n,) int32, which of the
    rows made of that event. The two tell a row from every other of the step, and are the same after a restart.
    """

    table: pa.Table
    time_us: Ints
    position: Ints
    index: npt.NDArray[np.int32]

    @classmethod
    def of(cls, batch: EventBatch, schema: EventSchema, index: npt.ArrayLike = 0) -> "SinkRows":
        """The rows of a batch of the schema's events; a scalar `index` is everybody's."""
        columns = []
        for each in schema.fields:
            column = batch.arrow(each.name)
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            columns.append(column.cast(ARROW_TYPES[each.dtype]))
        numbers = np.broadcast_to(np.asarray(index, dtype=np.int32), (len(batch),))
        return cls(pa.table(columns, names=list(schema.names)), batch.time, batch.position, numbers)

    @classmethod
    def concat(cls, several: Sequence["SinkRows"]) -> "SinkRows":
        """The rows of one or more, one after the other."""
        if len(several) == 1:
            return several[0]
        return cls(
            pa.concat_tables([each.table for each in several]),
            np.concatenate([each.time_us for each in several]),
            np.concatenate([each.position for each in several]),
            np.concatenate([each.index for each in several]),
        )

    def __len__(self) -> int:
        return len(self.time_us)

    def slice(self, start: int, stop: int) -> "SinkRows":
        """Rows start to stop, stop not among them."""
        part = slice(start, stop)
        return SinkRows(
            self.table.slice(start, max(0, stop - start)), self.time_us[part], self.position[part], self.index[part]
        )


@dataclass(frozen=True)
class SinkPlace:
    """Where in which flow a sink stands.

    flow, step: names. part: of the flow, where several processes share it; "" otherwise. schema: of the rows.
    data: the folder of the run. give_up: set when waiting for a sink that is away is to end; what it has not taken then
    does not count. kafka: settings of the run for Kafka clients.
    """

    flow: str
    step: str
    schema: EventSchema
    data: Path
    part: str = ""
    give_up: threading.Event = field(default_factory=threading.Event, compare=False)
    kafka: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The step's name in its flow: "pickups.alerts"; a sink's letters and ids begin with it."""
        return f"{self.flow}.{self.step}"

    @property
    def slug(self) -> str:
        """The name of this writer as a file has it: "pickups.alerts-rides-0003"."""
        return f"{self.name}-{self.part}" if self.part else self.name

    def ids(self, rows: SinkRows) -> list[str]:
        """The id of each row, the same whenever the row is written again.

        "pickups.alerts/0-17-0": row 17 of partition 0, and of what was made of it the first. A part stands before it.
        """
        prefix = f"{self.name}/{self.part}/" if self.part else f"{self.name}/"
        places = zip((rows.position >> 48).tolist(), (rows.position & ((1 << 48) - 1)).tolist(), rows.index.tolist(),
                     strict=True)  # fmt: skip
        return [f"{prefix}{partition}-{offset}-{index}" for partition, offset, index in places]


class SinkWriter(Protocol):
    """Writes the rows of one step. One thread calls it; at most one checkpoint is under way at a time."""

    def open(self, state: bytes | None) -> None:
        """Called once, first. state: what `flush` gave for the checkpoint that the flow goes on from.

        Finishes what that checkpoint promised, and drops what was staged after it.

        Raises:
            StoreError: the place cannot be written; nothing has begun.
        """

    def write(self, rows: SinkRows) -> None:
        """Take rows; waits where the sink is slower than the flow.

        Raises:
            StoreError: as `flush`.
        """

    def flush(self) -> bytes:
        """All rows written are acknowledged or staged durably; what a restart must know goes into the checkpoint.

        Raises:
            StoreError: they are not, and no trying again helps; or the flow was told to give up.
        """

    def committed(self) -> None:
        """The checkpoint of the last `flush` counts: what was staged becomes visible."""

    def dead(self) -> Sequence[DeadLetter]:
        """Rows that the sink will never take, since it was asked last; all of those flushed are there after `flush`."""

    def close(self) -> None:
        """Give up what was not flushed."""
