"""Places of rows: in a flow of several sources, and where two streams become one, no two rows may stand at one place.

Ties are taken in the order of places, which is therefore fixed whatever came first. A partition of a place has 15 bits
(`EventBatch.position`); where a flow has several sources, the upper 3 tell which.
"""

from dataclasses import replace

from headrace.features.errors import DataError
from headrace.features.sources import Source
from headrace.features.streams import Flow
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter

SOURCE_BITS, PARTITION_BITS = 3, 12


class Places:
    """Of the sources of a flow.

    Raises:
        DataError: they are too many.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow.name
        self._names = tuple(dict.fromkeys(source.name for source in flow.sources))
        if len(self._names) > 1 << SOURCE_BITS:
            raise DataError(
                f"Flow '{flow.name}' reads {len(self._names)} sources, at most {1 << SOURCE_BITS} are possible. Make "
                "several flows of it."
            )

    def placed(self, rows: EventBatch, source: Source) -> EventBatch:
        """Events of a source at places of their own.

        Raises:
            DataError: the source has more partitions than fit beside other sources.
        """
        index = self._names.index(source.name)
        if len(self._names) == 1 or not len(rows):
            return rows
        if int(rows.partition.max()) >> PARTITION_BITS:
            raise DataError(
                f"Flow '{self._flow}' reads several sources, and source '{source.name}' has partition "
                f"{int(rows.partition.max())}: at most {1 << PARTITION_BITS} are possible then. Read it in a flow of "
                "its own."
            )
        partition = rows.partition + (index << PARTITION_BITS)
        return EventBatch(rows.columns, rows.time, partition.astype(rows.partition.dtype), rows.offset, rows.effective)

    def told(self, letter: DeadLetter) -> DeadLetter:
        """A letter with the source and the partition that it is of."""
        if len(self._names) == 1 or letter.topic is not None:
            return letter
        index, partition = divmod(letter.partition, 1 << PARTITION_BITS)
        source = self._names[index] if index < len(self._names) else letter.source
        return replace(letter, source=source, partition=partition)


def merged(first: EventBatch, second: EventBatch) -> EventBatch:
    """The rows of two streams as those of one: of one place, the first stream's row comes first."""
    rows = [
        EventBatch(each.columns, each.time, each.partition, each.offset * 2 + side, each.effective)
        for side, each in enumerate((first, second))
        if len(each)
    ]
    return EventBatch.concat(rows) if rows else first
