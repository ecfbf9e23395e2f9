"""Where the topic joins the history, for each partition: the first offset to read, and what of it the history has."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.features.message_parts import MessageTime
from headrace.features.time import format_instant
from headrace.flows.backfill.topics import TopicNow
from headrace.flows.worker.seam import Seam


@dataclass(frozen=True)
class Reached:
    """How far the history of a partition came.

    newest, watermark: of the events let in, microseconds; None: there was none. following: the offset after the newest
    row, where rows have offsets.
    """

    newest: int | None
    watermark: int | None
    following: int | None = None


@dataclass(frozen=True)
class Joint:
    """first: the offset from which a partition is read. seam: what of that the history has."""

    first: int
    seam: Seam


def by_offset(source: KafkaSource, now: TopicNow, reached: Mapping[int, Reached], allow_gap: bool) -> dict[int, Joint]:
    """Each partition goes on after its last row.

    Raises:
        DataError: what follows was deleted, or the history is of another topic.
    """
    joints = {}
    for number in now.numbers:
        following = reached[number].following
        begin, end = now.begins[number], now.ends[number]
        topic, partition = source.place(number)
        if following is not None and following > end:
            raise DataError(
                f"Source '{source.name}': its history has offset {following - 1:,} of topic '{topic}', partition "
                f"{partition}, which ends at {end:,}. Is it the history of another topic, or was the topic made anew?"
            )
        if begin > (following or 0) and not allow_gap:
            raise DataError(
                f"Source '{source.name}': the history of topic '{topic}', partition {partition}, ends before offset "
                f"{following or 0:,}, and the topic begins at {begin:,}: the events between are in neither. "
                "Export them too, or go on without them: --allow-gap."
            )
        first = max(begin, following or 0)
        joints[number] = Joint(first, Seam(end=first, until=None))
    return joints


def by_time(
    source: KafkaSource, now: TopicNow, reached: Mapping[int, Reached], to_us: int | None, allow_gap: bool
) -> dict[int, Joint]:
    """The topic is read from where it can have events that the history has not.

    to_us: the history is whole up to here; None: up to its newest event.

    Raises:
        DataError: a partition's oldest events have been deleted, and the history may not reach to those that are left.
    """
    newest = max((each.newest for each in reached.values() if each.newest is not None), default=None)
    until = newest if to_us is None else to_us
    if not allow_gap:
        for number in now.numbers:
            _check_gap(source, now, number, until)
    own = {number: reached[number].newest for number in now.numbers}
    first = dict(now.begins)
    if isinstance(source.columns.get(source.schema.time_field), MessageTime):
        for number, us in own.items():
            if us is not None:  # event time is what the broker's index is of
                first[number] = min(now.stamped_after(us)[number], now.ends[number])
    joints = {}
    for number, us in own.items():
        ids_from = reached[number].watermark if source.dedup is not None else None
        joints[number] = Joint(max(first[number], now.begins[number]), Seam(now.ends[number], us, ids_from))
    return joints


def _check_gap(source: KafkaSource, now: TopicNow, number: int, until: int | None) -> None:
    if not now.begins[number]:
        return  # nothing has been deleted
    oldest = now.oldest_us(number)
    if oldest is not None and until is not None and oldest <= until:
        return
    topic, partition = source.place(number)
    left = "no event that can be read" if oldest is None else f"the oldest event left is of {format_instant(oldest)}"
    ends = "is empty" if until is None else f"ends at {format_instant(until)}"
    raise DataError(
        f"Source '{source.name}': the first {now.begins[number]:,} messages of topic '{topic}', partition {partition}, "
        f"were deleted, {left}, and the history {ends}: events between may be in neither. Give a history that reaches "
        "into the topic, or go on all the same: --allow-gap."
    )
