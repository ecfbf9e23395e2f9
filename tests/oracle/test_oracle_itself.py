"""The oracle judged by hand: small timelines whose answers are worked out on paper, before it judges the engine."""

import math
import random

import pytest

from tests.oracle.described import Clock, Derived, Feature, Sent, Stream, View, Where, Window, happened
from tests.oracle.judging import intervals
from tests.oracle.naive import Oracle, Taken, covered, judge, running_session, turning_points

M = 60_000_000


def amounts(*pairs: tuple[int, float | None]) -> list[Sent]:
    return [happened(time, offset=i, amount=amount) for i, (time, amount) in enumerate(pairs)]


def ask(feature: Feature, script: list, t: int) -> object:
    return Oracle(View((feature,)), script).value(feature, ("a",), t)


def log(oracle: Oracle) -> list:
    """(instant, newest event, values) of the rows of entity "a"."""
    assert all(oracle.instants(("a",)).values())
    return [(t, oracle.newest(("a",), t), oracle.values(("a",), t)) for t in oracle.instants(("a",))]


HOUR = Window("sliding", 60 * M, M)
BURST = amounts((M, 100.0), (181 * M, 1.0), (182 * M, 2.0), (183 * M, 3.0))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sum", 6.0), ("count", 3), ("mean", 2.0), ("max", 3.0), ("min", 1.0), ("std", 1.0), ("var", 1.0)],
)
def test_an_hour_after_a_quiet_one(kind: str, expected: float) -> None:
    column = None if kind == "count" else "amount"
    assert ask(Feature("f", kind, HOUR, column), BURST, 185 * M) == expected


@pytest.mark.parametrize(
    ("window", "t", "times"),
    [
        # events at        1 5 6 10 11 15 20
        (Window("sliding", 10, 5), 20, [11, 15, 20]),  # (10, 20]
        (Window("sliding", 10, 5), 19, [6, 10, 11, 15]),  # floor(9 / 5) * 5 = 5: (5, 19]
        (Window("sliding", 10, 1), 19, [10, 11, 15]),  # (9, 19]
        (Window("hopping", 10, 5), 19, [6, 10, 11, 15]),  # b = 15: (5, 15]
        (Window("hopping", 10, 5), 20, [11, 15, 20]),  # b = 20: (10, 20]
        (Window("tumbling", 10), 19, [1, 5, 6, 10]),  # b = 10: (0, 10]
        (Window("current", 10), 19, [11, 15]),  # (10, 19]
        (Window("current", 10), 20, []),  # (20, 20]
        (Window("session", 5), 20, [20]),  # 15 is 5 before 20: not less than the gap
        (Window("session", 5), 19, [1, 5, 6, 10, 11, 15]),  # 1-5-6-10-11-15 are 4 apart at most
        (Window("session", 4), 12, [10, 11]),
        (Window("session", 4), 14, [10, 11]),
        (Window("session", 4), 15, [15]),
        (Window("session", 5), 25, []),  # 20 is not in (20, 25]
        (Window("last", n=2), 14, [10, 11]),
        (Window("last", n=9), 14, [1, 5, 6, 10, 11]),
        (Window("lifetime"), 10, [1, 5, 6, 10]),
    ],
)
def test_windows_cover_what_the_contract_says(window: Window, t: int, times: list[int]) -> None:
    events = [happened(x) for x in (1, 5, 6, 10, 11, 15, 20)]
    assert [e.time for e in covered(window, events, t)] == times


def test_tiles_before_the_epoch_are_open_at_their_start() -> None:
    events = [happened(x) for x in (-10, -9, -5, 0)]
    assert [e.time for e in covered(Window("sliding", 5, 5), events, -1)] == [-9, -5]  # (-10, -1]
    assert [e.time for e in covered(Window("tumbling", 5), events, -1)] == [-9, -5]  # (-10, -5]
    assert [e.time for e in covered(Window("current", 5), events, 0)] == []


def test_aggregations_by_hand() -> None:
    script = [
        happened(1, offset=0, amount=2.0, city="x", units=7),
        happened(2, offset=1, amount=None, city="y", units=7),
        happened(2, offset=2, amount=math.nan, city="x", units=2**62),
        happened(3, offset=3, amount=4.0, city="y", units=2**62),
        happened(3, offset=4, amount=9.0, city="x", units=None),
    ]

    def value(kind: str, column: str | None = "amount", **more: object) -> object:
        by = more.pop("by", None)
        return ask(Feature("f", kind, Window("lifetime"), column, by=by, params=more), script, 3)

    assert value("count", None) == 5
    assert value("sum") == 15.0
    assert value("mean") == 5.0
    assert value("var") == 13.0
    assert (value("first"), value("last")) == (2.0, 9.0)
    assert value("first_n", n=2) == [2.0, 4.0]
    assert value("last_n", n=2) == [4.0, 9.0]
    assert value("sum", "units") is None  # beyond int64
    assert value("mean", "units") == (2**63 + 14) / 4
    assert value("distinct", "units") == 2
    assert value("distinct", "units", limit=1) == 1
    assert value("quantile", q=0.5) == 4.0
    assert [value("quantile", q=q) for q in (0.0, 0.33, 0.34, 1.0)] == [2.0, 2.0, 4.0, 9.0]
    assert value("top_k", "city", k=1) == {"x": 3}
    assert value("sum", by="city") == {"x": 11.0, "y": 4.0}
    assert value("decayed_sum", half_life=1) == 0.25 * 2.0 + 4.0 + 9.0
    assert value("decayed_mean", half_life=1) == 13.5 / 2.25
    assert value("custom") == [2.0, 9.0, 3.0]


def test_sums_that_would_cancel() -> None:
    values = [1e15 + 0.5, 1e15 + 1.5, 1e15 + 2.5]
    script = amounts(*((i, v) for i, v in enumerate(values)))
    assert ask(Feature("f", "var", Window("lifetime"), "amount"), script, 9) == 1.0
    assert ask(Feature("f", "sum", Window("lifetime"), "amount"), amounts((1, 1e300), (2, 1.0), (3, -1e300)), 9) == 1.0


def test_nothing_in_the_window() -> None:
    script = amounts((1, 5.0))
    gone = {kind: ask(Feature("f", kind, Window("sliding", 5, 1), "amount"), script, 6) for kind in ("sum", "max")}
    assert gone == {"sum": 0, "max": None}
    assert ask(Feature("f", "max", Window("sliding", 5, 1), "amount", default=-1.0), script, 6) == -1.0


def test_a_late_event_is_refused_by_its_own_partition() -> None:
    # partition 0: 100, 90 (on the edge), 89 (late); partition 1 starts behind the watermark 90, then inside it
    script = [happened(100), happened(90), happened(89), happened(85, 1), happened(95, 1), happened(88, 1)]
    judged = judge(Stream(lateness=10), script)
    assert [one.event.time for one in judged.taken] == [100, 90, 95]
    assert [(e.time, reason) for e, reason in judged.dead] == [
        (89, "late"),
        (85, "behind settled log"),
        (88, "behind settled log"),
    ]
    assert judged.watermark == 90


def test_an_event_ahead_moves_nothing_and_a_duplicate_neither() -> None:
    script = [
        happened(100, id="p"),
        happened(151, id="q"),  # 51 ahead of the newest event
        Clock(101),
        happened(151, id="q"),
        happened(145, id="q"),  # the id was taken
        happened(151, id="p"),  # the id was taken too long ago
        happened(99),
    ]
    judged = judge(Stream(lateness=10, max_ahead=50, dedup="id"), script)
    assert [one.event.time for one in judged.taken] == [100, 151, 151]
    assert judged.duplicates == 1
    assert [reason for _, reason in judged.dead] == ["ahead", "late"]


def test_a_late_event_that_counts_enters_from_the_watermark_on() -> None:
    feature = Feature("n", "count", Window("sliding", 100, 1))
    oracle = Oracle(
        View((feature,), stream=Stream(lateness=10, late="count")),
        [happened(50), happened(100), happened(20, offset=9)],
    )
    assert [oracle.value(feature, ("a",), t) for t in (50, 89, 90, 100, 119, 120, 150)] == [1, 1, 2, 3, 3, 2, 1]
    assert [(t, newest, v["n"]) for t, newest, v in log(oracle)] == [
        (50, 50, 1),
        (90, 90, 2),
        (100, 100, 3),
        (120, 100, 2),
        (150, 100, 1),
        (200, 100, 0),
    ]


def test_rows_of_the_log_are_events_and_changes() -> None:
    view = View(
        (Feature("n", "count", Window("sliding", 10, 5)), Feature("top", "max", Window("tumbling", 10), "amount"))
    )
    oracle = Oracle(view, amounts((3, 1.0), (8, 1.0)))
    assert log(oracle) == [
        (3, 3, {"n": 1, "top": None}),
        (8, 8, {"n": 2, "top": None}),
        (10, 8, {"n": 2, "top": 1.0}),
        (15, 8, {"n": 1, "top": 1.0}),  # tile (0, 5] leaves
        (20, 8, {"n": 0, "top": None}),  # tile (5, 10] leaves, the next tumbling window was empty
    ]


def test_a_thinned_log_keeps_the_last_row_of_each_interval() -> None:
    view = View((Feature("n", "count", Window("lifetime")),), log_every=10)
    oracle = Oracle(view, amounts((1, 1.0), (10, 1.0), (11, 1.0), (31, 1.0)))
    assert intervals(oracle, ("a",)) == [([10], True), ([11], True), ([31], True)]


def test_an_event_no_feature_takes_leaves_no_trace() -> None:
    paid = Where("==", ("paid", True))
    view = View((Feature("n", "count", Window("lifetime"), where=paid),))
    oracle = Oracle(
        view, [happened(1, paid=True), happened(2, paid=False), happened(3, paid=None), happened(4, who="b", paid=None)]
    )
    assert oracle.entities == [("a",)]
    assert [t for t, _, _ in log(oracle)] == [1]
    assert oracle.read(("b",), 9).statuses == {"n": "NOT_FOUND"}


def test_ttl_ending_and_derived() -> None:
    late = Feature("before", "count", Window("sliding", 10, 1, ending=5))
    now = Feature("now", "count", Window("sliding", 10, 1))
    rate = Derived("rate", "/", "before", "now", default=-1.0)
    oracle = Oracle(View((late, now, rate), ttl=30), amounts((1, 1.0), (4, 1.0)))
    assert oracle.read(("a",), 6).values == {"before": 1, "now": 2, "rate": 0.5}
    assert oracle.read(("a",), 15).values == {"before": 2, "now": 0, "rate": -1.0}
    assert oracle.read(("a",), 33).statuses["now"] == "PRESENT"
    assert oracle.read(("a",), 34).statuses == dict.fromkeys(("before", "now", "rate"), "OUTSIDE_MAX_AGE")


@pytest.mark.parametrize("seed", range(20))
def test_a_session_built_event_by_event_is_the_chain(seed: int) -> None:
    rng = random.Random(seed)
    window = Window("session", rng.randint(1, 6), ending=rng.choice([0, 3]))
    events = sorted((happened(rng.randint(-20, 40), offset=i) for i in range(9)), key=lambda e: e.time)
    taken = [Taken(e, e.time) for e in events]
    for t in range(-30, 60):
        assert running_session(window, taken, t) == covered(window, events, t - window.ending)


def test_a_late_event_does_not_open_a_closed_session() -> None:
    """
    gap 10; 1 is followed by 5 (late, from 9 on): one session. 30 (late, from 45 on) finds that of 22 closed since 32,
    and is closed itself since 40.
    """
    window = Window("session", 10)
    taken = [Taken(happened(a, offset=a), b) for a, b in ((1, 1), (5, 9), (22, 22), (30, 45))]
    seen = [
        [e.time for e in running_session(window, [x for x in taken if x.since <= t], t)] for t in (8, 9, 14, 15, 31, 45)
    ]
    assert seen == [[1], [1, 5], [1, 5], [], [22], []]


@pytest.mark.parametrize("seed", range(30))
def test_turning_points_miss_no_change(seed: int) -> None:
    """Brute force: whatever window, its content changes at no instant that is not a turning point."""
    rng = random.Random(seed)
    hop = rng.randint(1, 6)
    kinds = ["sliding", "hopping", "tumbling", "current", "session", "last", "lifetime"]
    window = Window(rng.choice(kinds), hop * rng.randint(1, 4), hop, rng.randint(1, 3), rng.choice([0, 0, 3, 7]))
    events = sorted((happened(rng.randint(-20, 40), offset=i) for i in range(8)), key=lambda e: e.time)
    points = {p for e in events for p in turning_points(window, e.time, e.time)}
    for t in range(-30, 90):
        before, now = (covered(window, events, x - window.ending) for x in (t - 1, t))
        assert before == now or t in points, (window, t)
