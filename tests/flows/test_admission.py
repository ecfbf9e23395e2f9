"""Admission against a naive judge that keeps lists and goes event by event, for any cut into batches and any
restart.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.errors import DataError
from headrace.features.events import Event, EventTime
from headrace.features.sources import IterableSource
from headrace.flows.admission import Admission, Admitted
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.snapshot import SnapshotError

S = 1_000_000
DAY = 1_767_225_600 * S  # 2026-01-01T00:00:00Z


class Click(Event):
    id: str | None
    at: EventTime


@dataclass(frozen=True)
class Sent:
    partition: int
    te: int
    id: str | None = None


def batch_of(sent: list[Sent], first: int = 0) -> EventBatch:
    te = np.array([e.te for e in sent], dtype=np.int64)
    columns = {
        "id": BatchColumn("string", arrow=pa.array([e.id for e in sent], type=pa.string())),
        "at": BatchColumn("timestamp", values=te),
    }
    partition = np.array([e.partition for e in sent], dtype=np.int32)
    return EventBatch.of(columns, te, partition, np.arange(first, first + len(sent)))


def source(**options: Any) -> IterableSource:
    return IterableSource([], Click, name="clicks", **options)


def verdicts(results: list[Admitted]) -> tuple[dict[int, int], dict[int, str], int]:
    """Offset -> effective instant of those taken, offset -> reason of those refused, and how many duplicates."""
    taken = {int(o): int(u) for r in results for o, u in zip(r.batch.offset, r.batch.effective, strict=True)}
    return taken, {d.offset: d.reason for r in results for d in r.dead}, sum(r.duplicates for r in results)


@dataclass
class Naive:
    """The rules one event at a time: no arrays, nothing dropped, the flow's watermark worked out after every event."""

    lateness: int
    ahead: int | None
    idle: int | None
    dedup: bool
    count: bool
    newest: dict[int, int | None]
    heard: dict[int, int] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    clock: int | None = None
    started: int | None = None
    flow: int | None = None

    def judge(self, e: Sent) -> tuple[str, int]:
        newest = self.newest.get(e.partition)
        own = None if newest is None else newest - self.lateness
        bound = max([b for b in (own, self.flow) if b is not None], default=-(10**18))
        if self.dedup and e.id is not None and self.ids.get(e.id, -(10**19)) >= bound:
            verdict, counts_from = "duplicate", e.te
        elif self.ahead is not None and self.clock is not None and e.te > self.clock + self.ahead:
            verdict, counts_from = "ahead", e.te
        elif e.te < bound and self.count:
            verdict, counts_from = "taken", bound
        elif own is not None and e.te < own:
            verdict, counts_from = "late", e.te
        elif e.te < bound:
            verdict, counts_from = "behind settled log", e.te
        else:
            verdict, counts_from = "taken", e.te
            self.newest[e.partition] = max(e.te, newest if newest is not None else e.te)
            self.clock = max(e.te, self.clock if self.clock is not None else e.te)
            self.started = self.started if self.started is not None else self.clock
        if e.partition in self.newest and self.clock is not None:
            self.heard[e.partition] = self.clock
        if verdict == "taken" and e.id is not None:
            self.ids[e.id] = counts_from
        self.settle()
        return verdict, counts_from

    def settle(self) -> None:
        marks = {p: None if n is None else n - self.lateness for p, n in self.newest.items()}
        active = [m for p, m in marks.items() if not self.silent(p)]
        if active and None in active:
            return
        reached = min(active) if active else max((m for m in marks.values() if m is not None), default=None)
        if reached is not None:
            self.flow = reached if self.flow is None else max(self.flow, reached)

    def silent(self, p: int) -> bool:
        if self.idle is None or self.clock is None:
            return False
        return self.clock - max(self.heard.get(p, self.started), self.started) >= self.idle


ids = st.sampled_from([None, "a", "b", "c", "d", "e"])
scattered = st.lists(
    st.builds(Sent, st.integers(0, 3), st.integers(0, 60).map(lambda s: DAY + s * S), ids), max_size=60
)


@st.composite
def streams(draw: st.DrawFn) -> list[Sent]:
    """Events roughly in order, a few seconds apart, with partitions that go silent for a while and come back."""
    now, sent = DAY, []
    for _ in range(draw(st.integers(0, 8))):
        speaking = draw(st.lists(st.integers(0, 3), min_size=1, max_size=2))
        for _ in range(draw(st.integers(1, 8))):
            now += draw(st.integers(0, 6)) * S
            back = draw(st.sampled_from([0, 0, 1, 3, 4, 25]))
            sent.append(Sent(draw(st.sampled_from(speaking)), now - back * S, draw(ids)))
    return sent


@given(
    scattered | streams(),
    st.data(),
    st.sampled_from([0, 3, 20]),
    st.sampled_from([None, 30]),
    st.sampled_from([None, 5, 25]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 2, 4]),
)
def test_any_cut_and_restart_gives_the_verdicts_of_a_naive_judge(
    sent: list[Sent],
    data: st.DataObject,
    lateness: int,
    ahead: int | None,
    idle: int | None,
    dedup: bool,
    count: bool,
    known: int,
) -> None:
    clicks = source(
        lateness=f"{lateness}s",
        max_ahead=None if ahead is None else f"{ahead}s",
        idle_after=None if idle is None else f"{idle}s",
        dedup="id" if dedup else None,
        late="count" if count else "dead_letter",
    )
    naive = Naive(
        lateness * S, ahead and ahead * S, idle and idle * S, dedup, count, newest=dict.fromkeys(range(known))
    )
    expected = [naive.judge(e) for e in sent]

    admission, results, at = Admission(clicks, range(known)), [], 0
    chain: list[bytes] = []
    while at < len(sent):
        end = data.draw(st.integers(at + 1, len(sent)))
        results.append(admission.admit(batch_of(sent[at:end], at)))
        at = end
        action = data.draw(st.sampled_from(["go on", "ask", "save", "restart"]))
        if action == "ask":
            admission.watermark()
        elif action != "go on":
            part = admission.save()
            chain = [*chain, part.data] if part.delta else [part.data]
        if action == "restart":
            admission = Admission(clicks, range(known))
            admission.load(chain)

    taken, dead, duplicates = verdicts(results)
    assert taken == {i: u for i, (v, u) in enumerate(expected) if v == "taken"}
    assert dead == {i: v for i, (v, _) in enumerate(expected) if v not in ("taken", "duplicate")}
    assert duplicates == sum(v == "duplicate" for v, _ in expected)
    assert admission.watermark() == naive.flow
    assert admission.newest == max((n for n in naive.newest.values() if n is not None), default=None)


def admit(admission: Admission, *sent: Sent, **options: Any) -> Admitted:
    return admission.admit(batch_of(list(sent)), **options)


def at(seconds: int, partition: int = 0, id: str | None = None) -> Sent:
    return Sent(partition, DAY + seconds * S, id)


def test_an_event_exactly_at_the_watermark_is_taken_and_one_microsecond_earlier_is_late() -> None:
    #  t   90         99.999999 100       110
    #      watermark = 110 - 10 ^
    admission = Admission(source(lateness="10s"))
    result = admit(admission, at(110), at(100), Sent(0, DAY + 100 * S - 1))
    assert result.batch.time.tolist() == [DAY + 110 * S, DAY + 100 * S]
    (letter,) = result.dead
    assert (letter.reason, letter.source, letter.partition, letter.offset) == ("late", "clicks", 0, 2)
    assert letter.detail == "1us older than its partition's watermark 2026-01-01T00:01:40Z (lateness 10s)"
    assert msgspec.json.decode(letter.payload) == {"id": None, "at": "2026-01-01T00:01:39.999999+00:00"}


def test_lateness_is_judged_against_the_events_own_partition() -> None:
    admission = Admission(source(lateness="10s"), range(2))
    result = admit(admission, at(1_000, 0), at(20, 1), at(10, 1), at(9, 1))
    assert [d.offset for d in result.dead] == [3]
    assert admission.watermark() == DAY + 10 * S
    assert admission.partition_watermarks() == {0: DAY + 990 * S, 1: DAY + 10 * S}


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_judged_before_is_a_repetition_only_by_another_partition(restarted: bool) -> None:
    """Partition 0 had come to 100 when it took the id again; here it is heard of later."""
    clicks = source(lateness="10s", dedup="id")
    admission = Admission(clicks, range(2))
    assert admit(admission, at(20, 0, "a"), at(20, 1, "b"), judged=True).duplicates == 0
    if restarted:
        saved = admission.save().data
        admission = Admission(clicks, range(2))
        admission.load([saved])
    result = admit(admission, at(20, 0, "b"), at(25, 0, "a"), at(25, 1, "a"), judged=True)
    assert (result.duplicates, result.batch.offset.tolist()) == (2, [1])
    result = admit(admission, at(25, 0, "a"))
    assert result.duplicates == 1


def test_an_event_too_far_ahead_of_the_clock_does_not_move_the_watermark() -> None:
    admission = Admission(source(lateness="10s", max_ahead="60s"), live=True)
    result = admit(admission, at(0), at(61), at(60), clock_us=DAY)
    assert [(d.offset, d.reason) for d in result.dead] == [(1, "ahead")]
    assert admission.newest == DAY + 60 * S


def test_without_max_ahead_an_hour_of_the_wall_clock_is_allowed_where_there_is_one() -> None:
    far = (at(0), at(3_600), at(3_601))
    assert [d.offset for d in admit(Admission(source()), *far, wall_us=DAY).dead] == [2]
    assert admit(Admission(source()), *far).dead == []


def test_a_replay_takes_its_newest_event_or_the_instant_it_was_told_for_the_clock() -> None:
    clicks = source(max_ahead="60s")
    assert [d.offset for d in admit(Admission(clicks), at(0), at(61), at(60), at(120)).dead] == [1]
    assert admit(Admission(clicks), at(0), at(61), clock_us=DAY + 1 * S).dead == []


def test_a_repeated_id_changes_nothing_while_its_first_event_is_within_lateness() -> None:
    admission = Admission(source(lateness="10s", dedup="id"), range(2))
    first = admit(admission, at(0, id="a"), at(0, 1), at(5, id="a"), at(4, 1, id="a"))
    assert (len(first.batch), first.duplicates, first.dead) == (2, 2, [])
    later = admit(admission, at(11), at(11, id="a"), at(12, 1, id="a"))
    assert (len(later.batch), later.duplicates) == (2, 1)


def test_a_late_event_leaves_its_id_free_and_a_null_id_is_never_a_repetition() -> None:
    admission = Admission(source(lateness="10s", dedup="id"))
    result = admit(admission, at(100), at(0, id="a"), at(100, id="a"), at(100), at(100))
    assert (len(result.batch), result.duplicates, len(result.dead)) == (4, 0, 1)


def test_ids_below_the_watermark_leave_memory() -> None:
    admission = Admission(source(lateness="10s", dedup="id"))
    for minute in range(200):
        admit(admission, *(at(60 * minute + i // 100, id=f"{minute}-{i}") for i in range(100)))
    assert len(admission._seen) < 2_000
    restored = Admission(source(lateness="10s", dedup="id"))
    restored.load([admission.save().data])
    assert len(restored._seen) == 100


def test_ids_at_or_after_the_watermark_stay_however_many_they_are() -> None:
    admission = Admission(source(lateness="10s", dedup="id"))
    sent = [at(i // 500, id=str(i)) for i in range(5_000)]
    for first in range(0, 5_000, 250):
        admit(admission, *sent[first : first + 250])
    assert admit(admission, *sent).duplicates == 5_000


def test_a_late_event_may_count_from_the_watermark_at_its_arrival() -> None:
    result = admit(Admission(source(lateness="10s", late="count")), at(0), at(100), at(50), at(95))
    assert result.batch.time.tolist() == [DAY, DAY + 100 * S, DAY + 50 * S, DAY + 95 * S]
    assert result.batch.effective.tolist() == [DAY, DAY + 100 * S, DAY + 90 * S, DAY + 95 * S]


def test_a_silent_partition_stops_counting_and_what_it_sends_below_the_settled_log_is_refused_with_that_reason() -> (
    None
):
    # clock   0    ...    40                     partition 1 is silent from 1 on
    # p0      o o o o o o o      watermark 30
    # p1      o                o(29)   o(30)
    admission = Admission(source(lateness="10s", idle_after="20s"), range(2), live=True)
    admit(admission, at(0, 0), at(0, 1), clock_us=DAY)
    assert admission.watermark(DAY) == DAY - 10 * S
    admit(admission, at(40, 0), clock_us=DAY + 40 * S)
    settled = admission.watermark(DAY + 40 * S)
    assert settled == DAY + 30 * S
    result = admit(admission, at(29, 1), at(30, 1), clock_us=DAY + 41 * S, settled_us=settled)
    assert [(d.offset, d.reason) for d in result.dead] == [(0, "behind settled log")]
    assert admission.watermark() == settled, "a partition that returns holds the flow back, but never pulls it back"


def test_a_known_partition_that_never_sent_holds_the_flow_until_it_is_idle() -> None:
    admission = Admission(source(idle_after="30s"), range(2), live=True)
    admit(admission, at(0), clock_us=DAY)
    assert admission.watermark(DAY + 29 * S) is None
    admit(admission, at(30), clock_us=DAY + 30 * S)
    assert admission.watermark(DAY + 30 * S) == DAY + 30 * S


def test_a_partition_that_speaks_again_before_idle_after_goes_on_counting() -> None:
    admission = Admission(source(idle_after="30s"), range(2))
    admit(admission, at(0, 0), at(0, 1), at(29, 0), at(29, 1), at(58, 0))
    assert admission.watermark() == DAY + 29 * S
    admit(admission, at(59, 0))
    assert admission.watermark() == DAY + 59 * S


def test_what_is_refused_still_shows_that_its_partition_is_not_silent() -> None:
    admission = Admission(source(idle_after="30s"), range(2))
    admit(admission, at(0, 0), at(10, 1), at(29, 0), at(5, 1), at(58, 0))
    assert admission.watermark() == DAY + 10 * S


def test_when_all_are_silent_the_flow_is_where_the_foremost_was() -> None:
    admission = Admission(source(lateness="10s", idle_after="30s"), range(3), live=True)
    admit(admission, at(0, 0), at(20, 1), clock_us=DAY + 20 * S)
    assert admission.watermark(DAY + 49 * S) is None
    assert admission.watermark(DAY + 50 * S) == DAY + 10 * S


def test_a_snapshot_keeps_an_id_that_stands_exactly_at_the_watermark() -> None:
    clicks = source(lateness="10s", dedup="id")
    admission = Admission(clicks)
    admit(admission, at(0, id="a"), at(10))
    restored = Admission(clicks)
    restored.load([admission.save().data])
    assert admit(restored, at(10, id="a")).duplicates == 1


def test_partitions_without_idle_after_are_waited_for() -> None:
    admission = Admission(source(), range(2))
    admit(admission, at(1_000_000, 0))
    assert admission.watermark() is None


def test_a_snapshot_of_another_format_or_dedup_column_is_refused() -> None:
    taken = Admission(source(dedup="id")).save().data
    with pytest.raises(SnapshotError, match=r"taken with dedup='id' and the source now has dedup=None"):
        Admission(source()).load([taken])
    with pytest.raises(SnapshotError, match="holds nothing of source"):
        Admission(source()).load([])


def test_a_delta_has_the_ids_that_came_since_and_stands_for_no_more() -> None:
    admission = Admission(source(lateness="1h", dedup="id"))
    admit(admission, *(at(i, id=f"a{i}") for i in range(2000)))
    first = admission.save()
    admit(admission, at(2000, id="b"))
    second = admission.save()
    admit(admission, at(2001, id="c"))
    third = admission.save()
    assert (first.delta, second.delta, third.delta) == (False, True, True)
    assert len(second.data) < len(first.data) / 10
    restored = Admission(source(lateness="1h", dedup="id"))
    restored.load([first.data, second.data, third.data])
    assert restored._seen == admission._seen
    with pytest.raises(SnapshotError, match=r"part 2 of 2 is delta 2, which does not continue the part before it"):
        restored.load([first.data, third.data])


def test_a_partition_that_positions_cannot_tell_apart_is_an_error() -> None:
    with pytest.raises(DataError, match="partition 32768 is outside 0 to 32767"):
        admit(Admission(source()), at(0, 32_768))
