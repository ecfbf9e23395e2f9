"""The shard operator against the oracle: any view, any stream, any batches, restarts anywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.described import Feature, Sent, View, Window
from tests.oracle.naive import judge
from tests.oracle.operator import Operator, check
from tests.oracle.strategies import COMPILED, cases, cuts, questions


@given(st.data())
def test_compiled_aggregations(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases(COMPILED))
    check(view, script, data.draw(cuts), frozenset(), data.draw(questions(unit, script)))


@given(st.data())
def test_every_aggregation(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases())
    check(view, script, data.draw(cuts), frozenset(), data.draw(questions(unit, script)))


@given(st.data())
def test_restarts_anywhere(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases(most=16))
    restarts = data.draw(st.frozensets(st.integers(0, 6), min_size=1))
    check(view, script, data.draw(cuts), restarts, data.draw(questions(unit, script)))


@given(st.data())
def test_crashes_anywhere(data: st.DataObject) -> None:
    """What was written online between the last checkpoint and the crash stays there, and must not stay wrong."""
    unit, view, script = data.draw(cases(most=16))
    crashes = data.draw(st.frozensets(st.integers(0, 6), min_size=1))
    check(view, script, data.draw(cuts), frozenset(), data.draw(questions(unit, script)), crashes)


def test_a_value_that_came_after_the_checkpoint_and_went_before_the_restart() -> None:
    """
    12:01 event   12:04 checkpoint   12:06 in the window | crash |   12:11 out of it again, as at the checkpoint
    """
    view = View((Feature("highest", "max", Window("tumbling", 5), "amount"),))
    sent = Sent(
        1, {"who": "a", "where_from": 1, "id": None, "amount": 7.0, "units": 1, "city": "x", "paid": True}, 0, 0
    )
    taken = judge(view.stream, [sent]).taken
    operator = Operator(view)
    operator.send(taken, 4, 1)
    operator.checkpoint()
    operator.advance(6)
    (key,) = operator.online
    assert operator.online[key]["highest"] == 7.0
    operator.crash()
    operator.advance(11)
    assert operator.online[key]["highest"] is None
