"""`headrace.testing.replay` against the oracle: verdicts on events, online rows, the log and training sets."""

from __future__ import annotations

from hypothesis import given, note
from hypothesis import strategies as st

from tests.oracle.described import Clock, Sent, View
from tests.oracle.judging import check_log, check_reading, settled_before, wrong_features
from tests.oracle.naive import FAR, Oracle
from tests.oracle.operator import cut
from tests.oracle.replayed import Replayed
from tests.oracle.strategies import cases, questions

CUTS = st.lists(st.integers(0, 40), max_size=6)


def check(view: View, script: list[Sent | Clock], cuts: list[int], restarts: frozenset[int], asked: list[int]) -> None:
    note(f"{view}\n{script}")
    with Replayed(view) as replayed:
        done: list[Sent | Clock] = []
        for number, steps in enumerate(cut(script, cuts)):
            if number in restarts:
                replayed.t.restart()
            replayed.take(steps)
            done += steps
            oracle = Oracle(view, done)
            if oracle.judged.clock > -FAR:
                for key in oracle.entities:
                    check_reading(oracle, key, oracle.judged.clock, replayed.read(key, oracle.judged.clock))
        oracle = Oracle(view, script)
        dead = [(letter.partition, letter.offset, letter.reason) for letter in replayed.t.dead]
        assert dead == [(event.partition, event.offset, reason) for event, reason in oracle.judged.dead]
        assert replayed.t.duplicates == oracle.judged.duplicates
        if oracle.judged.taken:
            check_log(oracle, replayed.log(), settled_before(oracle))
            check_log(oracle, replayed.log(tail=True), None)
        for t in asked:
            if t >= oracle.judged.clock:
                replayed.take([Clock(t)])
                for key in oracle.entities:
                    check_reading(oracle, key, t, replayed.read(key, t))


@given(st.data())
def test_replay(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases())
    restarts = data.draw(st.frozensets(st.integers(0, 6), max_size=2))
    check(view, script, data.draw(CUTS), restarts, data.draw(questions(unit, script)))


@given(st.data())
def test_training_sets(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases(thinned=False))
    asked = data.draw(questions(unit, script, most=12))
    oracle = Oracle(view, script)
    keys = [*oracle.entities, ("nobody", 1)[: len(view.keys)]]
    spine = [(data.draw(st.sampled_from(keys)), t) for t in asked]
    note(f"{view}\n{script}\n{spine}")
    with Replayed(view) as replayed:
        replayed.take(script)
        rows = replayed.training_set(spine)
        assert len(rows) == len(spine)
        for (key, t), row in zip(spine, rows, strict=True):
            expected = oracle.read(key, t)
            seen = not {"NOT_FOUND", "OUTSIDE_MAX_AGE"} & set(expected.statuses.values())
            wrong = wrong_features(oracle, key, t, row, seen=seen)
            assert not wrong, f"{key} at {t}: (got, expected) {wrong}"
