"""Windows over Python objects, asked directly: what no oracle of small windows reaches."""

from __future__ import annotations

import random

import pytest

from headrace.features import LastN, Sliding
from headrace.features.frequencies import TopK
from headrace.flows.objects import FEW, ObjectFeature, ObjectWindow


@pytest.mark.parametrize("n", [FEW, FEW + 1, 100])
@pytest.mark.parametrize("ending", ["0s", "7us"])
def test_the_n_newest_events_of_many(n: int, ending: str) -> None:
    rng = random.Random(n)
    agg = TopK(3)
    over = LastN(n) if ending == "0s" else LastN(n, ending=ending)
    window = ObjectWindow(agg, over)
    taken: list[tuple[int, int, int | None]] = []
    now = 0
    for position in range(4 * n):
        now += rng.randrange(3)
        event = (now - rng.randrange(5), position, rng.choice((None, 1, 2, 3, 4)))
        taken.append(event)
        window.add(*event, event[0])
        if position % 7 == 0:
            saved = window.save()
            window = ObjectWindow(agg, over)
            window.load(saved)
        asked = now - over.ending_us
        expected = agg.init()
        for te, place, value in sorted(e for e in taken if e[0] <= asked)[-n:]:
            if value is not None:
                expected = agg.update(expected, value, te, place)
        assert agg.finish(window.at(now, now - 5), now) == agg.finish(expected, now)


def test_what_waits_and_what_was_said_last_survive_a_restart() -> None:
    agg = TopK(2)
    over = Sliding("10us", exact=True, ending="5us")
    feature = ObjectFeature(agg, over, None, False)
    feature.add(0, 1, 0, "oslo", 1)
    feature.add(0, 2, 1, "rome", 2)
    assert feature.value(0, 6, 6) == {"oslo": 1}
    assert feature.changed(0, {"oslo": 1})
    again = ObjectFeature(agg, over, None, False)
    again.load(*feature.save([0]))
    assert not again.changed(0, {"oslo": 1})
    assert again.value(0, 7, 7) == {"oslo": 1, "rome": 1}
    assert again.changed(0, {"rome": 1, "oslo": 1}), "the order of a map means something"
    assert again.value(0, 17, 17) is None
