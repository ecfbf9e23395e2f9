"""Streams long enough that every array of the engine has to grow, and that queues are deep."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.oracle.described import Feature, Sent, Stream, View, Window, happened
from tests.oracle.judging import check_log, check_reading, settled_before
from tests.oracle.naive import Oracle, judge
from tests.oracle.operator import Operator, check
from tests.oracle.strategies import JANUARY, MINUTE

VIEW = View(
    (
        Feature("rows", "count", Window("sliding", 60 * MINUTE, MINUTE)),
        Feature("total", "sum", Window("sliding", 60 * MINUTE, MINUTE), "amount"),
        Feature("least", "min", Window("sliding", 30 * MINUTE, MINUTE), "amount"),
        Feature("exactly", "max", Window("sliding", 45 * MINUTE, 1), "units"),
        Feature("then", "mean", Window("sliding", 20 * MINUTE, MINUTE, ending=15 * MINUTE), "amount"),
        Feature("done", "sum", Window("hopping", 30 * MINUTE, 10 * MINUTE), "units"),
        Feature("newest", "last", Window("last", n=50), "amount"),
        Feature("visit", "std", Window("session", 3 * MINUTE), "amount"),
        Feature("cities", "top_k", Window("sliding", 60 * MINUTE, MINUTE), "city", params={"k": 2}),
    ),
    stream=Stream(lateness=5 * MINUTE),
)


def stream(seed: int, crowd: int, events: int, hot: int) -> list[Sent]:
    """Events of `crowd` entities within three hours, and `hot` more of one entity; up to four minutes out of order."""
    rng = random.Random(seed)
    who = [f"e{rng.randrange(crowd)}" for _ in range(events)] + ["hot"] * hot
    times = sorted(rng.randrange(180) * MINUTE + rng.choice((0, 1, 30_000_000)) for _ in who)
    rng.shuffle(who)
    made = [
        happened(
            JANUARY + time,
            who=name,
            amount=round(rng.lognormvariate(2, 1), 2),
            units=rng.randrange(9),
            city=rng.choice(("oslo", "rome", "ürümqi")),
        )
        for time, name in zip(times, who, strict=True)
    ]
    made.sort(key=lambda e: e.time + rng.randrange(4 * MINUTE))
    return [replace(event, offset=i) for i, event in enumerate(made)]


@pytest.mark.parametrize(
    ("crowd", "events", "hot", "batch"),
    [(1500, 3000, 0, 3000), (200, 1500, 0, 97), (3, 60, 250, 310), (3, 60, 250, 11)],
    ids=["many entities at once", "batches", "one deep queue at once", "one deep queue in batches"],
)
def test_long_streams(crowd: int, events: int, hot: int, batch: int) -> None:
    script = stream(crowd, crowd, events, hot)
    oracle = Oracle(VIEW, script)
    assert not oracle.judged.dead
    operator = Operator(VIEW)
    for start in range(0, len(script), batch):
        if start // batch % 5 == 3:
            operator.restart()
        judged = judge(VIEW.stream, script[: start + batch])
        operator.send(judged.taken[start:], judged.clock, judged.watermark)
    check_log(oracle, operator.log, settled_before(oracle))
    check_log(oracle, operator.log + operator.tail(), None)
    for minutes in (181, 200, 236, 400):
        t = JANUARY + minutes * MINUTE
        operator.advance(t)
        for key in oracle.entities[:40]:
            check_reading(oracle, key, t, operator.read(key, t))


def test_deviations_of_integers_that_no_float_tells_apart_are_alike_with_buckets_and_without() -> None:
    window = Window("sliding", 10, 1)
    view = View((Feature("plain", "std", window, "more"), Feature("grouped", "std", window, "more", by="paid")))
    script = [happened(t, offset=t, units=2**53 + t, paid=True, amount=1.0) for t in (0, 1)]
    check(view, script, [], frozenset({1}), [5, 20])
