"""`headrace.testing.replay` against the oracle: verdicts on events, online rows, the log and training sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.judging import wrong_features
from tests.oracle.naive import Oracle
from tests.oracle.replayed import Replayed, check
from tests.oracle.strategies import cases, cuts, questions


@given(st.data())
def test_replay(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases())
    restarts = data.draw(st.frozensets(st.integers(0, 6), max_size=2))
    check(view, script, data.draw(cuts), restarts, data.draw(questions(unit, script)))


@given(st.data())
def test_training_sets(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases(thinned=False))
    asked = data.draw(questions(unit, script, most=12))
    oracle = Oracle(view, script)
    keys = [*oracle.entities, ("nobody", 1)[: len(view.keys)]]
    spine = [(data.draw(st.sampled_from(keys)), t) for t in asked]
    with Replayed(view) as replayed:
        replayed.take(script)
        rows = replayed.training_set(spine)
        assert len(rows) == len(spine)
        for (key, t), row in zip(spine, rows, strict=True):
            expected = oracle.read(key, t)
            seen = not {"NOT_FOUND", "OUTSIDE_MAX_AGE"} & set(expected.statuses.values())
            wrong = wrong_features(oracle, key, t, row, seen=seen)
            assert not wrong, f"{key} at {t}: (got, expected) {wrong}"
