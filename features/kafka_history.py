"""What a Kafka source says of its past: files of events from before the topic, and how keys find their partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.features.events import schema_of
from headrace.features.sources import FileSource, FrameSource, one_of

PARTITIONERS = ("murmur2", "crc32", "fnv1a")
"""Java's and librdkafka's `murmur2`, librdkafka's `consistent` and its `fnv1a` (also Sarama's), `_random` or not."""


def checked_history(given: Any, event: Any, shown: str) -> FileSource | FrameSource | None:
    """The history of a source, if it is one. Raises DefinitionError."""
    if given is None:
        return None
    if not isinstance(given, FileSource | FrameSource):
        raise DefinitionError(
            f"{shown}: history= is a {type(given).__name__}; give FileSource('rides/*.parquet', {event.__name__}) or a "
            "FrameSource."
        )
    if given.schema != schema_of(event):
        raise DefinitionError(
            f"{shown}: history= has events of {given.schema.name}, and the topic of {event.__name__}. Both must be of "
            "one event class; map columns of other names with columns= of the FileSource."
        )
    return given


def checked_position(given: Any, history: Any, topics: int, shown: str) -> tuple[str, str] | None:
    """Names of the columns of partition and offset. Raises DefinitionError."""
    if given is None:
        return None
    if (
        not isinstance(given, Sequence)
        or isinstance(given, str)
        or len(given) != 2
        or not all(isinstance(name, str) and name for name in given)
    ):
        raise DefinitionError(
            f"{shown}: history_position={given!r}; name the two columns of the history that hold the Kafka partition "
            "and offset, as in ('kafka_partition', 'kafka_offset')."
        )
    if history is None:
        raise DefinitionError(f"{shown}: history_position= says where history= came from, and there is no history=.")
    if topics > 1:
        raise DefinitionError(f"{shown}: history_position= is for a source of one topic; this one reads {topics}.")
    return str(given[0]), str(given[1])


def checked_partitioner(given: Any, shown: str) -> str | None:
    """The name of a partitioner. Raises DefinitionError."""
    return None if given is None else one_of("partitioner", given, PARTITIONERS, shown)
