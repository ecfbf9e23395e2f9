"""Every aggregation over every window: one view per window, one fixed stream with everything in it."""

from __future__ import annotations

import random

import pytest

from tests.oracle.described import Clock, Derived, Feature, Sent, Stream, View, Window
from tests.oracle.operator import check as check_operator
from tests.oracle.replayed import check as check_replay
from tests.oracle.strategies import AMOUNTS, CITIES, CONDITIONS, COUNTS, JANUARY, KINDS, MINUTE, TAKES

M = MINUTE
PARAMS = {
    "first_n": {"n": 2},
    "last_n": {"n": 3},
    "quantile": {"q": 0.5, "error": 0.01},
    "top_k": {"k": 2},
    "decayed_sum": {"half_life": 4 * M},
    "decayed_mean": {"half_life": 2 * M},
}
WINDOWS = {
    "sliding": Window("sliding", 10 * M, 2 * M),
    "exact": Window("sliding", 7 * M, 1),
    "hopping": Window("hopping", 6 * M, 3 * M),
    "tumbling": Window("tumbling", 5 * M),
    "current": Window("current", 5 * M),
    "session": Window("session", 2 * M),
    "last": Window("last", n=4),
    "lifetime": Window("lifetime"),
    "sliding then": Window("sliding", 10 * M, 2 * M, ending=4 * M),
    "exact then": Window("sliding", 7 * M, 1, ending=3 * M),
    "hopping then": Window("hopping", 6 * M, 3 * M, ending=2 * M),
    "tumbling then": Window("tumbling", 5 * M, ending=5 * M),
    "current then": Window("current", 5 * M, ending=M),
    "session then": Window("session", 2 * M, ending=M),
    "last then": Window("last", n=4, ending=3 * M),
    "lifetime then": Window("lifetime", ending=2 * M),
}


def everything(window: Window, seed: int) -> tuple[Feature | Derived, ...]:
    rng = random.Random(seed)
    out: list[Feature | Derived] = []
    for kind in KINDS:
        for column in TAKES[kind]:
            where = rng.choice((None, *CONDITIONS))
            name = f"{kind}_{column}"
            out.append(Feature(name, kind, window, column, where, params=PARAMS.get(kind, {})))
    out += [
        Feature("total_by", "sum", window, "amount", by="city", top=2),
        Feature("count_by", "count", window, by="paid"),
        Feature("spread_by", "std", window, "amount", by="units", top=3),
        Derived("share", "/", "sum_paid", "count_None", default=-1.0),
        Derived("glow", "-", "decayed_sum_amount", "mean_amount"),
    ]
    return tuple(out)


def stream(seed: int, n: int = 40) -> list[Sent | Clock]:
    rng = random.Random(seed)
    now, out, offsets = JANUARY, [], [0, 0]
    pool = AMOUNTS[rng.choice(list(AMOUNTS))]
    for _ in range(n):
        now += rng.choice((0, 0, 1, 1, 2, 5)) * M + rng.choice((0, 0, -1, 1))
        columns = {
            "who": rng.choice("aab"),
            "where_from": 1,
            "id": rng.choice((None, "p", "q", "r")),
            "amount": rng.choice(pool),
            "units": rng.choice(COUNTS),
            "city": rng.choice(CITIES),
            "paid": rng.choice((None, True, False)),
        }
        partition = rng.choice((0, 0, 1))
        out.append(Sent(now - rng.choice((0, 0, 0, 1, 3, 9)) * M, columns, partition, offsets[partition]))
        offsets[partition] += 1
        if rng.random() < 0.1:
            out.append(Clock(now + rng.choice((0, 1, 3)) * M))
    return out


@pytest.mark.parametrize("name", WINDOWS)
def test_operator(name: str) -> None:
    seed = list(WINDOWS).index(name)
    view = View(
        everything(WINDOWS[name], seed), stream=Stream(lateness=3 * M, late="count" if seed % 2 else "dead_letter")
    )
    script = stream(seed)
    asked = [JANUARY + minutes * M for minutes in (50, 60, 61, 75, 200)]
    check_operator(view, script, [7, 19, 30], frozenset({2}), asked)


@pytest.mark.parametrize("name", WINDOWS)
def test_replay(name: str) -> None:
    seed = 100 + list(WINDOWS).index(name)
    view = View(everything(WINDOWS[name], seed), stream=Stream(lateness=3 * M, dedup="id", max_ahead=10 * M))
    asked = [JANUARY + minutes * M for minutes in (50, 60, 61, 75, 200)]
    check_replay(view, stream(seed), [5, 11, 23], frozenset({1, 3}), asked)
