"""What a value must not depend on (C3): batches, arrival order within the lateness, restarts, others in the shard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.flows.pipeline import SourceFlow
from tests.oracle.definitions import definition_of
from tests.oracle.described import Clock, Feature, Sent, View, Window, happened
from tests.oracle.judging import check_log, check_reading, settled_before
from tests.oracle.naive import FAR, Oracle, Taken, judge
from tests.oracle.operator import Operator, batch_of, cut, rows_of
from tests.oracle.strategies import MINUTE, cases, cuts, questions, shuffles, views


def events_of(script: list[Sent | Clock]) -> list[Sent]:
    return [step for step in script if isinstance(step, Sent)]


def settled(view: View, script: list[Sent], at: list[int], restarts: frozenset[int]) -> Operator:
    """The operator after the script in batches."""
    operator = Operator(view)
    taken = judge(view.stream, script).taken
    done = 0
    for number, some in enumerate(cut(script, at)):
        if number in restarts:
            operator.restart()
        done += len(some)
        judged = judge(view.stream, script[:done])
        if judged.clock > -FAR:
            seen = len(judge(view.stream, script[: done - len(some)]).taken)
            operator.send(taken[seen : len(judged.taken)], judged.clock, judged.watermark)
    return operator


@given(st.data())
def test_the_log_is_the_same_bit_for_bit_however_the_stream_is_cut(data: st.DataObject) -> None:
    _, view, script = data.draw(cases())
    events = events_of(script)
    whole = settled(view, events, [], frozenset())
    parts = settled(view, events, data.draw(cuts), data.draw(st.frozensets(st.integers(0, 8), max_size=3)))
    assert repr(parts.log + parts.tail()) == repr(whole.log + whole.tail())


@given(st.data())
def test_arrival_order_within_the_lateness_changes_nothing(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases())
    events = sorted(events_of(script), key=lambda e: (e.time, e.partition, e.offset))
    arrival = data.draw(shuffles(events, view.stream.lateness))
    operator = Operator(view)
    newest = -FAR
    for some in cut(arrival, data.draw(cuts)):
        newest = max(newest, *(e.time for e in some))
        operator.send([Taken(e, e.time) for e in some], newest, newest - view.stream.lateness)
    plain = View(view.features, view.keys, view.ttl, view.log_every)
    oracle = Oracle(plain, events)
    if events:
        check_log(oracle, operator.log + operator.tail(), None)
    for t in data.draw(questions(unit, list(events))):
        if t >= newest:
            operator.advance(t)
            for key in oracle.entities:
                check_reading(oracle, key, t, operator.read(key, t))


@given(st.data())
def test_an_entity_is_alone_in_its_shard(data: st.DataObject) -> None:
    """Other entities, their clocks and their releases change nothing in its log."""
    _, view, script = data.draw(cases())
    events = events_of(script)
    everyone = settled(view, events, data.draw(cuts), frozenset())
    oracle = Oracle(view, events)
    for key in oracle.entities:
        taken = [one for one in judge(view.stream, events).taken if oracle.key(one.event) == key]
        alone = Operator(view)
        alone.send(taken, oracle.judged.clock, oracle.judged.watermark)
        mine = [row for row in everyone.log + everyone.tail() if everyone.key(row) == key]
        assert repr(mine) == repr(alone.log + alone.tail())


def test_entities_whose_windows_have_emptied_leave_memory() -> None:
    """
    minute     0        1        2        3  ...  61            63
    e0..e99    * * * *  |        |        |       tiles gone
    late comer          |        |                *             *
    watermark  0        |        |                61            63: all but the late comer are empty
    """
    view = View((Feature("n", "count", Window("sliding", 60 * MINUTE, MINUTE)),))
    operator = Operator(view)
    crowd = [Taken(happened(i + 1, offset=i, who=f"e{i}"), i + 1) for i in range(100)]
    operator.send(crowd, 100, 100)
    assert operator.shard.entities == 100
    for minute in (61, 63):
        t = minute * MINUTE
        operator.send([Taken(happened(t, offset=minute, who="late comer"), t)], t, t)
    assert operator.shard.entities == 1
    assert operator.read(("e7",), 63 * MINUTE).values == {"n": 0}
    assert [row["n"] for row in operator.log if row["who"] == "e7"] == [1, 0]


def test_entities_that_come_once_do_not_pile_up() -> None:
    """Each of 60 rounds brings 200 entities that no later round sees again; state stays that of a few rounds."""
    last = Window("sliding", 10, 1)
    view = View((Feature("total", "sum", last, "amount"), Feature("few", "distinct", last, "city")))
    operator = Operator(view)
    most = size = early = 0
    for round_ in range(60):
        t = 100 * (round_ + 1)
        who = [f"{round_}-{i}" for i in range(200)]
        some = [Taken(happened(t, 0, i, who=name, amount=1.0, city="x"), t) for i, name in enumerate(who)]
        operator.shard.process(batch_of(some), t)
        operator.shard.settle(t)
        most, size = max(most, operator.shard.entities), max(size, operator.shard.nbytes)
        if round_ == 9:
            early = size
    assert most <= 5 * 200
    assert size <= 2 * early


@given(st.data())
def test_views_of_one_source_do_not_disturb_each_other(data: st.DataObject) -> None:
    unit, first, script = data.draw(cases())
    second = replace(data.draw(views(unit)), stream=first.stream)
    events = events_of(script)
    oracles = {"first": Oracle(first, events), "second": Oracle(second, events)}
    flow = SourceFlow(definition_of(first).source, [definition_of(o.view, name) for name, o in oracles.items()])
    logs: dict[str, list[dict[str, Any]]] = {name: [] for name in oracles}
    for some in cut(events, data.draw(cuts)):
        output = flow.push(batch_of([Taken(e, e.time) for e in some]))
        for name, table in output.log.items():
            logs[name] += rows_of(table)
    tails = flow.tail()
    for name, oracle in oracles.items():
        if oracle.judged.taken:
            check_log(oracle, logs[name], settled_before(oracle))
            check_log(oracle, logs[name] + rows_of(tails[name]), None)
