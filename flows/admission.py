"""Admission: which events enter the flow, judged one by one in arrival order (contract C3, C7-C10).

An event of partition p, time te and id i meets these questions in turn; the first yes is the verdict:

1. *duplicate*: was an event with id i taken at an instant >= bound?  It changes nothing (C9).
2. *ahead*: is te beyond the clock + `max_ahead`?                      Dead letter (C8).
3. *late*: is te < p's own watermark, its newest accepted event - `lateness`?   Dead letter, or counted (C7).
4. *behind settled log*: is te < what the flow had settled while p was silent?  Dead letter, or counted (C10).
5. otherwise *accepted*: it moves p's newest event.

bound = p's watermark or the settled instant, whichever is later. Only accepted events move a watermark. The flow's
watermark is the least over active partitions and never goes back. So a verdict depends on the topic alone: not on how
the stream is cut into batches, nor on when a snapshot was taken; with `idle_after` in a live flow also on the clock,
as silence does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.errors import DataError
from headrace.features.sources import Source
from headrace.features.time import HOUR, format_duration, format_instant
from headrace.flows import verdicts
from headrace.flows.batch import EventBatch, Ints
from headrace.flows.chain import Chain, Chained, Link, follow
from headrace.flows.deadletter import AHEAD, BEHIND, LATE, DeadLetter, Reason, payload_text
from headrace.flows.lanes import NEVER
from headrace.flows.snapshot import SnapshotError, pack, seal_of
from headrace.flows.verdicts import UNBOUNDED
from headrace.stores.checkpoints import SnapshotPart

PARTITIONS = 1 << 15
"""Partitions 0 to 32767 can be told apart in an event's position."""
WALL_AHEAD_US = HOUR
"""How far ahead of the wall clock an event may be where the source sets no `max_ahead`."""

_ID_BYTES = 32  # of an id in a snapshot, about
_REASONS: dict[int, Reason] = {verdicts.LATE: LATE, verdicts.AHEAD: AHEAD, verdicts.BEHIND: BEHIND}


class _Meta(Chained):
    """What a part of a judge's chain says beside its arrays. ids: those whose times are in the array `seen`."""

    source: str
    dedup: str | None
    ids: list[Any]


@dataclass(frozen=True)
class Admitted:
    """What became of a batch: the events taken, in arrival order, dead letters for those refused, and duplicates
    dropped.
    """

    batch: EventBatch
    dead: list[DeadLetter]
    duplicates: int


class Admission:
    """The judge of one source's events; one per flow, fed every event of the source in arrival order.

    source: gives `lateness`, `max_ahead`, `dedup`, `idle_after` and `late`.
    partitions: those known from the start. Until such a partition has sent an event, or has been silent for
        `idle_after`, the flow has no watermark. A partition that is not named counts from its first accepted event.
    live: the clock is the one passed in (wall clock). Otherwise the stream is its own clock: the newest accepted
        event, or the instant passed in, whichever is later.
    repair: no event is late, however long after the newest it comes; there is no watermark to speak of then.

    Memory: three cells per partition, and one id per accepted event at or after the flow's watermark (of every event
    with `repair`).
    """

    def __init__(
        self, source: Source, partitions: Iterable[int] = (), *, live: bool = False, repair: bool = False
    ) -> None:
        self._source = source
        self._lateness = UNBOUNDED if repair else source.lateness_us
        self._stream_clock = not live
        self._newest, self._heard, self._known = verdicts.empty_state(0)
        self._scalars = np.full(3, NEVER, dtype=np.int64)
        self._seen: dict[Any, int] = {}
        self._came_by: dict[Any, int] = {}  # of events that were judged before, the partition
        self._swept = 0
        self._chain = Chain()
        self._fresh: dict[Any, int] | None = None  # ids taken since the last snapshot
        for partition in partitions:
            self._make_room(partition, partition)
            self._known[partition] = True

    def admit(
        self,
        batch: EventBatch,
        clock_us: int | None = None,
        settled_us: int | None = None,
        *,
        wall_us: int | None = None,
        judged: bool = False,
    ) -> Admitted:
        """Judge a batch and move the watermarks.

        clock_us: the flow's clock; None leaves it to the stream.
        settled_us: instants below it have been settled by the log; None: nothing beyond what `watermark` tells.
        wall_us: the wall clock, against which an event is judged where the source sets no `max_ahead` (one hour);
            None: no check.
        judged: the events of each partition have passed a judge of their own. Only an id that came by another partition
            is a repetition then: how far an event's own partition had come is not known here so exactly.

        Raises:
            DataError: a partition number outside 0 to 32767.
        """
        self._tick(clock_us)
        n = len(batch)
        if n == 0:
            return Admitted(batch, [], 0)
        self._make_room(int(batch.partition.min()), int(batch.partition.max()))
        keys, code, seen = self._ids(batch)
        before = seen.copy()
        came_by = np.fromiter((self._came_by.get(key, -1) for key in keys), dtype=np.int64, count=len(keys))
        verdict = np.empty(n, dtype=np.uint8)
        effective = np.empty(n, dtype=np.int64)
        mark = np.empty(n, dtype=np.int64)
        verdicts.judge(
            _writable(batch.time),
            _writable(batch.partition),
            code,
            seen,
            came_by,
            self._newest,
            self._heard,
            self._known,
            self._scalars,
            self._rules(settled_us, wall_us),
            self._stream_clock,
            self._source.late == "count",
            judged,
            verdict,
            effective,
            mark,
        )
        if keys:
            changed = np.flatnonzero(seen != before)
            taken = {keys[i]: int(seen[i]) for i in changed}
            self._seen.update(taken)
            if judged:
                self._came_by.update((keys[i], int(came_by[i])) for i in changed)
            if self._fresh is not None:
                self._fresh.update(taken)
            self._forget(settled_us)
        return self._sorted_out(batch, verdict, effective, mark)

    def watermark(self, clock_us: int | None = None) -> int | None:
        """The flow's watermark in microseconds: instants below it will get no further event. None: there is none yet.

        clock_us: the flow's clock, by which silent partitions stop counting.
        """
        self._tick(clock_us)
        self._scalars[verdicts.FLOW] = self._reached()
        flow = int(self._scalars[verdicts.FLOW])
        return None if flow == NEVER else flow

    def hear(self, partition: int, newest_us: int, clock_us: int | None = None) -> None:
        """Another judge has taken events of `partition` up to the newest at `newest_us`, not all of them for us.

        The watermark of the partition follows (contract C10), and it counts as heard at the clock.
        """
        self._tick(clock_us)
        self._make_room(partition, partition)
        if not self._known[partition] or verdicts.silent(partition, self._heard, self._scalars, self._idle_after()):
            # It joins and may hold the flow back from here on: what the flow had reached without it stays.
            self._scalars[verdicts.FLOW] = self._reached()
        self._known[partition] = True
        self._newest[partition] = max(int(self._newest[partition]), newest_us)
        clock = int(self._scalars[verdicts.CLOCK])
        if self._stream_clock and newest_us > clock:
            self._scalars[verdicts.CLOCK] = clock = newest_us
            if self._scalars[verdicts.STARTED] == NEVER:
                self._scalars[verdicts.STARTED] = newest_us
        self._heard[partition] = max(int(self._heard[partition]), clock)

    def of_partition(self, partition: int) -> "Admission":
        """Another judge, of `partition` alone, which knows of it what this one knows of all partitions together."""
        made = Admission(self._source, [partition], live=not self._stream_clock)
        made._newest[partition] = self._newest.max(initial=NEVER)
        made._heard[partition] = self._heard.max(initial=NEVER)
        made._scalars = self._scalars.copy()
        made._seen = dict(self._seen)
        made._came_by = dict(self._came_by)
        made._swept = len(made._seen)
        return made

    @property
    def newest(self) -> int | None:
        """Time of the newest accepted event of any partition, microseconds; None before the first."""
        newest = int(self._newest.max(initial=NEVER))
        return None if newest == NEVER else newest

    def partition_watermarks(self) -> dict[int, int | None]:
        """Partition -> its own watermark in microseconds, None where it has accepted no event. For pausing those
        far ahead.
        """
        lateness = self._lateness
        return {
            int(p): None if self._newest[p] == NEVER else int(self._newest[p]) - lateness
            for p in np.flatnonzero(self._known)
        }

    def save(self, full: bool = False) -> SnapshotPart:
        """The state for a checkpoint: a judge that has loaded it gives the same verdicts.

        A delta has the ids that were taken since the part saved last.

        Args:
            full: everything, whatever was saved before.
        """
        if full:
            self._chain.begin()
        floor = self._reached()
        delta = self._fresh is not None and self._chain.bears(len(self._fresh) * _ID_BYTES)
        ids = self._fresh if delta and self._fresh is not None else self._seen
        kept = [(key, te) for key, te in ids.items() if te >= floor]
        partitions = np.flatnonzero(self._known)
        arrays = {
            "partitions": partitions.astype(np.int64),
            "newest": self._newest[partitions],
            "heard": self._heard[partitions],
            "scalars": self._scalars.copy(),
        }
        source = self._source
        self._fresh = {} if source.dedup is not None else None

        def packed(link: Link) -> bytes:
            meta = _Meta(link, source.name, source.dedup, [key for key, _ in kept])
            arrays["seen"] = np.array([te for _, te in kept], dtype=np.int64)
            arrays["came_by"] = np.array([self._came_by.get(key, -1) for key, _ in kept], dtype=np.int64)
            return pack(msgspec.to_builtins(meta, builtin_types=(bytes,)), arrays)

        return self._chain.add(len(kept) * _ID_BYTES, packed, delta=delta)

    def load(self, chain: Sequence[bytes]) -> None:
        """Take over the state of a full part and the deltas saved after it, in place of the present one.

        Raises:
            SnapshotError: a part is damaged or missing, or of a source that told its events apart by another column.
        """
        source = self._source
        parts = follow(chain, _Meta, f"source '{source.name}'")
        for meta, _ in parts:
            if meta.dedup != source.dedup:
                raise SnapshotError(
                    f"Source '{source.name}': the snapshot was taken with dedup={meta.dedup!r} and the source now has "
                    f"dedup={source.dedup!r}. Set it back, or restart the flow from the source's beginning."
                )
        arrays = parts[-1][1]
        self._newest, self._heard, self._known = verdicts.empty_state(0)
        if len(arrays["partitions"]):
            self._make_room(int(arrays["partitions"].min()), int(arrays["partitions"].max()))
            self._known[arrays["partitions"]] = True
            self._newest[arrays["partitions"]] = arrays["newest"]
            self._heard[arrays["partitions"]] = arrays["heard"]
        self._scalars = arrays["scalars"]
        self._seen, self._came_by = {}, {}
        for meta, its in parts:
            self._seen.update(zip(meta.ids, its["seen"].tolist(), strict=True))
            came_by = its.get("came_by", np.full(len(meta.ids), -1))  # a snapshot of before 2026-11-23 has none
            self._came_by.update((key, at) for key, at in zip(meta.ids, came_by.tolist(), strict=True) if at >= 0)
        self._swept = len(self._seen)
        self._fresh = {} if source.dedup is not None else None
        self._chain.resume(seal_of(chain[-1]), [len(meta.ids) * _ID_BYTES for meta, _ in parts])

    def _tick(self, clock_us: int | None) -> None:
        if clock_us is not None:
            self._scalars[verdicts.CLOCK] = max(int(self._scalars[verdicts.CLOCK]), clock_us)
            if self._scalars[verdicts.STARTED] == NEVER:
                self._scalars[verdicts.STARTED] = clock_us

    def _reached(self) -> int:
        least = verdicts.least_watermark(
            self._newest, self._heard, self._known, self._scalars, self._lateness, self._idle_after()
        )
        return max(int(self._scalars[verdicts.FLOW]), int(least))

    def _idle_after(self) -> int:
        idle = self._source.idle_after_us
        return UNBOUNDED if idle is None else min(idle, UNBOUNDED)

    def _rules(self, settled_us: int | None, wall_us: int | None) -> Ints:
        ahead = self._source.max_ahead_us
        rules = np.empty(5, dtype=np.int64)
        rules[verdicts.LATENESS] = self._lateness
        rules[verdicts.AHEAD_OF_CLOCK] = UNBOUNDED if ahead is None else min(ahead, UNBOUNDED)
        rules[verdicts.NEWEST_ALLOWED] = UNBOUNDED if ahead is not None or wall_us is None else wall_us + WALL_AHEAD_US
        rules[verdicts.IDLE_AFTER] = self._idle_after()
        rules[verdicts.SETTLED] = NEVER if settled_us is None else settled_us
        return rules

    def _make_room(self, first: int, last: int) -> None:
        if first < 0 or last >= PARTITIONS:
            wrong = first if first < 0 else last
            raise DataError(f"Source '{self._source.name}': partition {wrong} is outside 0 to {PARTITIONS - 1}.")
        have = len(self._newest)
        if last >= have:
            newest, heard, known = verdicts.empty_state(last + 1)
            newest[:have], heard[:have], known[:have] = self._newest, self._heard, self._known
            self._newest, self._heard, self._known = newest, heard, known

    def _ids(self, batch: EventBatch) -> tuple[list[Any], Ints, Ints]:
        """The batch's distinct ids, which one each event has (-1: none), and when each was first taken (NEVER: not
        yet).
        """
        if self._source.dedup is None:
            return [], np.full(len(batch), -1, dtype=np.int64), np.empty(0, dtype=np.int64)
        ids = batch.arrow(self._source.dedup)
        if pa.types.is_timestamp(ids.type):
            ids = ids.cast(pa.int64())
        coded = ids if pa.types.is_dictionary(ids.type) else ids.dictionary_encode()
        if pa.types.is_dictionary(ids.type) and pc.count_distinct(ids.dictionary).as_py() < len(ids.dictionary):
            coded = ids.dictionary_decode().dictionary_encode()  # two codes of one id would be two ids
        keys = coded.dictionary.to_pylist()
        code = pc.fill_null(coded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        seen = np.fromiter((self._seen.get(key, NEVER) for key in keys), dtype=np.int64, count=len(keys))
        return keys, np.array(code), seen

    def _forget(self, settled_us: int | None) -> None:
        """Drop ids that can no longer make an event a duplicate, each time their number has doubled."""
        if len(self._seen) <= 2 * self._swept + 1_024:
            return
        floor = max(self._reached(), NEVER if settled_us is None else settled_us)
        self._seen = {key: te for key, te in self._seen.items() if te >= floor}
        self._came_by = {key: at for key, at in self._came_by.items() if key in self._seen}
        self._swept = len(self._seen)
        if self._fresh is not None:
            self._fresh = {key: te for key, te in self._fresh.items() if te >= floor}

    def _sorted_out(self, batch: EventBatch, verdict: npt.NDArray[np.uint8], effective: Ints, mark: Ints) -> Admitted:
        worst = int(verdict.max())
        if worst == verdicts.ACCEPTED:
            return Admitted(batch, [], 0)
        kept = verdict <= verdicts.COUNTED
        taken = batch if kept.all() else batch.take(kept)
        if (verdict == verdicts.COUNTED).any():
            taken = taken.counting_from(effective[kept])
        refused = np.flatnonzero(verdict > verdicts.DUPLICATE)
        dead = self._letters(batch.take(refused), verdict[refused], mark[refused])
        return Admitted(taken, dead, int((verdict == verdicts.DUPLICATE).sum()))

    def _letters(self, refused: EventBatch, verdict: npt.NDArray[np.uint8], mark: Ints) -> list[DeadLetter]:
        if not len(refused):
            return []
        columns = {name: refused.arrow(name).to_pylist() for name in refused}
        return [
            DeadLetter(
                _REASONS[int(verdict[i])],
                self._detail(int(verdict[i]), int(refused.time[i]), int(mark[i])),
                self._source.name,
                int(refused.partition[i]),
                int(refused.offset[i]),
                int(refused.time[i]),
                payload_text({name: values[i] for name, values in columns.items()}),
            )
            for i in range(len(refused))
        ]

    def _detail(self, verdict: int, te: int, mark: int) -> str:
        gap, limit = format_duration(abs(te - mark)), format_instant(mark)
        if verdict == verdicts.LATE:
            lateness = format_duration(self._source.lateness_us)
            return f"{gap} older than its partition's watermark {limit} (lateness {lateness})"
        if verdict == verdicts.BEHIND:
            return f"{gap} older than the log had settled, {limit}, while its partition was silent"
        return f"{gap} later than the newest instant allowed by the clock, {limit}"


def _writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array itself or a copy. A kernel is compiled and loaded once more for arrays that may not be written to."""
    return array if array.flags.writeable and array.flags.c_contiguous else array.copy()
