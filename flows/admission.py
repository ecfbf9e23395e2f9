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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.errors import DataError
from headrace.features.sources import Source
from headrace.features.time import HOUR, format_duration, format_instant
from headrace.flows import verdicts
from headrace.flows.batch import EventBatch, Ints
from headrace.flows.deadletter import AHEAD, BEHIND, LATE, DeadLetter, Reason, payload_text
from headrace.flows.lanes import NEVER
from headrace.flows.verdicts import UNBOUNDED

PARTITIONS = 1 << 15
"""Partitions 0 to 32767 can be told apart in an event's position."""
WALL_AHEAD_US = HOUR
"""How far ahead of the wall clock an event may be where the source sets no `max_ahead`."""

_VERSION = 1
_REASONS: dict[int, Reason] = {verdicts.LATE: LATE, verdicts.AHEAD: AHEAD, verdicts.BEHIND: BEHIND}


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

    Memory: three cells per partition, and one id per accepted event at or after the flow's watermark.
    """

    def __init__(self, source: Source, partitions: Iterable[int] = (), *, live: bool = False) -> None:
        self._source = source
        self._stream_clock = not live
        self._newest, self._heard, self._known = verdicts.empty_state(0)
        self._scalars = np.full(3, NEVER, dtype=np.int64)
        self._seen: dict[Any, int] = {}
        self._swept = 0
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
    ) -> Admitted:
        """Judge a batch and move the watermarks.

        clock_us: the flow's clock; None leaves it to the stream.
        settled_us: instants below it have been settled by the log; None: nothing beyond what `watermark` tells.
        wall_us: the wall clock, against which an event is judged where the source sets no `max_ahead` (one hour);
            None: no check.

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
        verdict = np.empty(n, dtype=np.uint8)
        effective = np.empty(n, dtype=np.int64)
        mark = np.empty(n, dtype=np.int64)
        verdicts.judge(
            batch.time,
            batch.partition,
            code,
            seen,
            self._newest,
            self._heard,
            self._known,
            self._scalars,
            self._rules(settled_us, wall_us),
            self._stream_clock,
            self._source.late == "count",
            verdict,
            effective,
            mark,
        )
        changed = np.flatnonzero(seen != before)
        self._seen.update((keys[i], int(seen[i])) for i in changed)
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

    @property
    def newest(self) -> int | None:
        """Time of the newest accepted event of any partition, microseconds; None before the first."""
        newest = int(self._newest.max(initial=NEVER))
        return None if newest == NEVER else newest

    def partition_watermarks(self) -> dict[int, int | None]:
        """Partition -> its own watermark in microseconds, None where it has accepted no event. For pausing those
        far ahead.
        """
        lateness = self._source.lateness_us
        return {
            int(p): None if self._newest[p] == NEVER else int(self._newest[p]) - lateness
            for p in np.flatnonzero(self._known)
        }

    def snapshot(self) -> dict[str, Any]:
        """The whole state as a dict of msgpack types: a judge restored from it gives the same verdicts."""
        floor = self._reached()
        kept = [(key, te) for key, te in self._seen.items() if te >= floor]
        partitions = np.flatnonzero(self._known)
        return {
            "version": _VERSION,
            "dedup": self._source.dedup,
            "partitions": [int(p) for p in partitions],
            "newest": [int(self._newest[p]) for p in partitions],
            "heard": [int(self._heard[p]) for p in partitions],
            "scalars": [int(each) for each in self._scalars],
            "ids": [key for key, _ in kept],
            "seen": np.array([te for _, te in kept], dtype="<i8").tobytes(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a snapshot, in place of the present one.

        Raises:
            DataError: the snapshot is of another format, or of a source that told its events apart by another column.
        """
        if state.get("version") != _VERSION:
            raise DataError(
                f"Source '{self._source.name}': the snapshot's admission state has version {state.get('version')!r}, "
                f"this Headrace reads {_VERSION}. Restart the flow from the source's beginning."
            )
        if state["dedup"] != self._source.dedup:
            raise DataError(
                f"Source '{self._source.name}': the snapshot was taken with dedup={state['dedup']!r} and the source "
                f"now has dedup={self._source.dedup!r}. Set it back, or restart the flow from the source's beginning."
            )
        self._newest, self._heard, self._known = verdicts.empty_state(0)
        for partition, newest, heard in zip(state["partitions"], state["newest"], state["heard"], strict=True):
            self._make_room(partition, partition)
            self._known[partition], self._newest[partition], self._heard[partition] = True, newest, heard
        self._scalars = np.array(state["scalars"], dtype=np.int64)
        times = np.frombuffer(state["seen"], dtype="<i8").tolist()
        self._seen = dict(zip(state["ids"], times, strict=True))
        self._swept = len(self._seen)

    def _tick(self, clock_us: int | None) -> None:
        if clock_us is not None:
            self._scalars[verdicts.CLOCK] = max(int(self._scalars[verdicts.CLOCK]), clock_us)
            if self._scalars[verdicts.STARTED] == NEVER:
                self._scalars[verdicts.STARTED] = clock_us

    def _reached(self) -> int:
        least = verdicts.least_watermark(
            self._newest, self._heard, self._known, self._scalars, self._source.lateness_us, self._idle_after()
        )
        return max(int(self._scalars[verdicts.FLOW]), int(least))

    def _idle_after(self) -> int:
        idle = self._source.idle_after_us
        return UNBOUNDED if idle is None else min(idle, UNBOUNDED)

    def _rules(self, settled_us: int | None, wall_us: int | None) -> Ints:
        ahead = self._source.max_ahead_us
        rules = np.empty(5, dtype=np.int64)
        rules[verdicts.LATENESS] = self._source.lateness_us
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
        self._swept = len(self._seen)

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
