"""The shard operator against the oracle: any view, any stream, any batches, restarts anywhere."""

from __future__ import annotations

from hypothesis import given, note
from hypothesis import strategies as st

from tests.oracle.described import Clock, Sent, View
from tests.oracle.judging import check_log, check_reading, settled_before
from tests.oracle.naive import FAR, Oracle, judge
from tests.oracle.operator import Operator, cut
from tests.oracle.strategies import COMPILED, cases, questions

CUTS = st.lists(st.integers(0, 40), max_size=6)


def drive(view: View, script: list[Sent | Clock], cuts: list[int], restarts: frozenset[int]) -> Operator:
    """Run the script in batches, settling after each, restarting before the batches named; check every online row."""
    operator = Operator(view)
    done: list[Sent | Clock] = []
    for number, steps in enumerate(cut(script, cuts)):
        if number in restarts:
            operator.restart()
        already = len(judge(view.stream, done).taken)
        done += steps
        judged = judge(view.stream, done)
        if judged.clock == -FAR:
            continue
        operator.send(judged.taken[already:], judged.clock, judged.watermark)
        oracle = Oracle(view, done)
        for key in oracle.entities:
            check_reading(oracle, key, judged.clock, operator.read(key, judged.clock))
    return operator


def check(view: View, script: list[Sent | Clock], cuts: list[int], restarts: frozenset[int], asked: list[int]) -> None:
    note(f"{view}\n{script}")
    operator = drive(view, script, cuts, restarts)
    oracle = Oracle(view, script)
    check_log(oracle, operator.log, settled_before(oracle))
    check_log(oracle, operator.log + operator.tail(), None)
    for t in asked:
        if t < oracle.judged.clock:
            continue
        operator.advance(t)
        for key in oracle.entities:
            check_reading(oracle, key, t, operator.read(key, t))


@given(st.data())
def test_compiled_aggregations(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases(COMPILED))
    check(view, script, data.draw(CUTS), frozenset(), data.draw(questions(unit, script)))


@given(st.data())
def test_every_aggregation(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases())
    check(view, script, data.draw(CUTS), frozenset(), data.draw(questions(unit, script)))


@given(st.data())
def test_restarts_anywhere(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases(most=16))
    restarts = data.draw(st.frozensets(st.integers(0, 6), min_size=1))
    check(view, script, data.draw(CUTS), restarts, data.draw(questions(unit, script)))
