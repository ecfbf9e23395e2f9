"""Delays: what is said of every choice of lateness is what admission does with it."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import Event, EventTime, IterableSource
from headrace.features.time import SECOND
from headrace.flows.admission import Admission
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.deadletter import AHEAD, LATE
from headrace.flows.delays import CHOICES_US, Delays, delays_of


class Reading(Event):
    sensor: str
    at: EventTime


START = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * SECOND


def source(lateness: str = "10s", **rules: object) -> IterableSource:
    return IterableSource([], Reading, name="readings", lateness=lateness, **rules)  # type: ignore[arg-type]


def batch(events: list[tuple[int, int]], offset: int = 0) -> EventBatch:
    """(partition, time in ms after the start) of each event, as it arrives."""
    time = np.array([START + ms * 1_000 for _, ms in events], dtype=np.int64)
    partition = np.array([number for number, _ in events], dtype=np.int32)
    names = BatchColumn("string", arrow=pa.array(["s"] * len(events), pa.string()))
    columns = {"sensor": names, "at": BatchColumn("timestamp", values=time)}
    return EventBatch.of(columns, time, partition, np.arange(offset, offset + len(events)))


EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200_000)), max_size=60)
WHICH = st.sampled_from([choice for choice in CHOICES_US if choice <= 300 * SECOND] + [45 * SECOND])


@given(events=EVENTS, which=WHICH, cut=st.integers(0, 60), ahead=st.sampled_from([None, "30s"]))
def test_each_choice_is_what_admission_does_with_it(
    events: list[tuple[int, int]], which: int, cut: int, ahead: str | None
) -> None:
    delays = Delays(source(max_ahead=ahead), also=[45 * SECOND])
    for part, first in ((events[:cut], 0), (events[cut:], cut)):
        delays.add(batch(part, first))
    advice = delays.advice()
    judge = Admission(source(f"{which}us" if which else "0s", max_ahead=ahead), range(4))
    dead = judge.admit(batch(events)).dead
    late = sum(letter.reason == LATE for letter in dead)
    assert {letter.reason for letter in dead} <= {LATE, AHEAD}
    assert advice.choice(which).late == late
    assert advice.ahead == len(dead) - late
    assert advice.events == len(events) - advice.ahead
    assert advice.choice(which).share == (late / advice.events if advice.events else 0.0)


def test_the_least_choice_that_keeps_to_the_target_is_recommended() -> None:
    """100 events a second apart; behind them one that is 4 s, one 25 s and one 3 days old.

    newest 99 s:  |0 ... 99|  95 s (4 s)  74 s (25 s)  -3 d
    """
    times = [each * 1_000 for each in range(100)] + [95_000, 74_000, 99_000 - 3 * 86_400_000]
    delays = delays_of(source(), [(batch([(0, ms) for ms in times]), 2)], also=[45 * SECOND])
    for target, expected in ((0.5, 0), (0.02, 5), (0.01, 30), (0.0, 3 * 86_400)):
        assert delays.advice(target).recommended_us == expected * SECOND
    advice = delays.advice()
    assert (advice.events, advice.in_order, advice.broken, advice.partitions) == (103, 100, 2, 1)
    assert advice.longest_us == 3 * 86_400 * SECOND
    assert advice.first_us == START + times[-1] * 1_000
    assert advice.last_us == START + 99 * SECOND
    assert advice.current_us == 10 * SECOND
    assert advice.choice(10 * SECOND).late == 2
    assert advice.choice(45 * SECOND).late == 1
    # 103 events in three days: one in 42 minutes, 34 in a day.
    assert [advice.choice(each * 3_600 * SECOND).held for each in (0, 1, 24)] == [0, 1, 34]
    with pytest.raises(KeyError, match="7s"):
        advice.choice(7 * SECOND)


def test_older_than_every_choice_and_none_at_all() -> None:
    two = delays_of(source(), [(batch([(0, 0), (0, -400 * 86_400_000 - 1)]), 0)]).advice(0.0)
    assert two.recommended_us == 401 * 86_400 * SECOND
    none = Delays(source()).advice()
    assert (none.events, none.recommended_us, none.first_us) == (0, None, None)
    assert none.choice(0).share == 0.0
    one = delays_of(source(), [(batch([(0, 5)]), 0)]).advice()
    assert (one.recommended_us, one.choice(SECOND).held) == (0, 1)


def test_a_partition_is_late_against_itself_only() -> None:
    """Partition 1 is an hour behind partition 0 and in order: nothing of it is late."""
    events = [(number, second * 1_000 - number * 3_600_000) for second in range(50) for number in (0, 1)]
    advice = delays_of(source(), [(batch(events[:31]), 0), (batch(events[31:], 31), 0)]).advice()
    assert (advice.in_order, advice.longest_us, advice.partitions) == (100, 0, 2)


def test_repeated_ids_count_once() -> None:
    delays = Delays(IterableSource([], Reading, name="readings", lateness="10s", dedup="sensor"))
    rows = EventBatch.of(
        {
            "sensor": BatchColumn("string", arrow=pa.array(["a", "b", "a"])),
            "at": BatchColumn("timestamp", values=np.array([START, START + 9, START], dtype=np.int64)),
        },
        np.array([START, START + 9, START], dtype=np.int64),
        0,
        np.arange(3),
    )
    delays.add(rows)
    assert (delays.advice().events, delays.advice().repeated) == (2, 1)
