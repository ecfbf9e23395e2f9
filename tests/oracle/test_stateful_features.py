"""Features of objects that learn, against one new object that sees all events up to the instant asked, in order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.described import Feature, Sent, Stream, View, Window
from tests.oracle.naive import judge
from tests.oracle.operator import Operator, check
from tests.oracle.strategies import UNITS, cuts, features, questions, scripts, stateful, streams

EXAMPLES = max(10, settings.default.max_examples // 3)


@st.composite
def cases(draw: st.DrawFn, most: int) -> tuple[int, View, list[Sent]]:
    """(unit, view, script): one or two such features, and perhaps another beside them."""
    unit = draw(st.sampled_from(UNITS))
    stream = draw(streams(unit))
    chosen = [draw(stateful(f"s{at}", unit, stream)) for at in range(draw(st.integers(1, 2)))]
    if draw(st.booleans()):
        chosen.append(draw(features("beside", unit)))
    view = View(
        tuple(chosen),
        ttl=draw(st.sampled_from((None, None, 4 * unit))),
        log_every=draw(st.sampled_from((None, None, None, 3 * unit))),
        stream=stream,
    )
    return unit, view, draw(scripts(unit, stream, most))


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_one_object_that_sees_the_events_in_order(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases(24))
    check(view, script, data.draw(cuts), frozenset(), data.draw(questions(unit, script)))


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_restarts_and_crashes(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases(16))
    restarts, crashes = (data.draw(st.frozensets(st.integers(0, 6))) for _ in range(2))
    check(view, script, data.draw(cuts), restarts, data.draw(questions(unit, script)), crashes)


def test_an_event_out_of_order_is_learned_in_its_place() -> None:
    """
    arrival   1   4   2   5      lateness 3
    learned   1   2   4   5      online at once, in the log when it has settled
    """
    view = View((Feature("told", "stateful", Window("lifetime"), "amount"),), stream=Stream(lateness=3))
    blank = {"where_from": 1, "id": None, "units": None, "city": None, "paid": None}
    sent = [Sent(at, {"who": "a", "amount": float(at), **blank}, 0, number) for number, at in enumerate((1, 4, 2, 5))]
    operator = Operator(view)
    told = []
    for number in range(len(sent)):
        judged = judge(view.stream, sent[: number + 1])
        operator.send(judged.taken[number:], judged.clock, judged.watermark)
        (row,) = operator.online.values()
        told.append(row["told"])
    # 1; 1/2+4; (1/2+2)/2+4+2; and 5 more to half of that
    assert told == [1.0, 4.5, 7.25, 8.625]
    assert [row["told"] for row in operator.log + operator.tail()] == [1.0, 2.5, 7.25, 8.625]


def test_a_view_of_many_entities_forgets_objects_of_sessions() -> None:
    view = View((Feature("told", "stateful", Window("session", 5), "amount"),))
    operator = Operator(view)
    blank = {"where_from": 1, "id": None, "units": None, "city": None, "paid": None, "amount": 1.0}
    sent = [Sent(at, {"who": f"{at}", **blank}, 0, at) for at in range(4000)]
    for at in range(0, len(sent), 100):
        judged = judge(view.stream, sent[: at + 100])
        operator.send(judged.taken[at:], judged.clock, judged.watermark)
        operator.advance(judged.clock)
    assert operator.shard.entities < 10
    assert len(operator.shard.save(full=True).data) < 400_000
