"""Dead letters at rest: events that a flow could not take, as Parquet beside the log and committed with it.

So a restart neither loses nor repeats one. `OfflineLog.dead_letters` stages them; `read_dead_letters` reads those that
count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from headrace.stores.errors import CorruptError
from headrace.stores.parquet import read_parquet

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.stores.offline import OfflineLog


def dead_letter_schema() -> pa.Schema:
    """Columns of dead letters: why, where the event stands in its source (`topic` of Kafka, else null), its time if it
    had one, and the event itself."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("reason", pa.string(), nullable=False),
            pa.field("detail", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("topic", pa.string()),
            pa.field("partition", pa.int32(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("event_time", pa.timestamp("us", tz="UTC")),
            pa.field("payload", pa.string(), nullable=False),
        ]
    )


def dead_letter_table(records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A table from records of reason, detail, source, partition, offset, event_time_us (microseconds or None), payload
    and, of messages, topic."""
    import pyarrow as pa

    schema = dead_letter_schema()
    rows = list(records)
    arrays = []
    for field in schema:
        if field.name == "event_time":
            times = pa.array([row["event_time_us"] for row in rows], pa.int64())
            arrays.append(times.cast(field.type))
        else:
            arrays.append(pa.array([row.get(field.name) for row in rows], field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def conform_letters(rows: pa.Table | pa.RecordBatch) -> pa.Table:
    """`rows` with the columns of dead letters; columns that came with a later version are null."""
    import pyarrow as pa

    schema = dead_letter_schema()
    missing = [field for field in schema if field.name not in rows.schema.names]
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    for field in missing:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def read_dead_letters(log: OfflineLog) -> pa.Table:
    """Every committed dead letter of a log: part by part, in the order in which they came.

    Raises:
        CorruptError: a file is missing.
    """
    import pyarrow as pa

    while True:
        files = log.manifest().dead_letters
        try:
            tables = [conform_letters(read_parquet(log.place, file.place)) for file in files]
        except FileNotFoundError as error:
            if log.manifest().dead_letters == files:  # else a commit meanwhile merged it into another
                raise CorruptError(
                    f"The log at {log.place} lacks a file of dead letters: {error}. Restore it from a backup."
                ) from error
            continue
        return pa.concat_tables(tables) if tables else dead_letter_schema().empty_table()
