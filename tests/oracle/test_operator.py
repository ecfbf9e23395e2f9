"""The shard operator against the oracle: any view, any stream, any batches, restarts anywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.operator import check
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
