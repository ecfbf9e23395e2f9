"""Objects that learn in a step: against a plain loop with an object for each key, in any order, restarted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import anomaly, drift, linear_model, preprocessing
from tests.flows.graph.driving import FAR_US, READING, Given, Reading, in_order, keyed, moment, rows, streams

from headrace.features import Event, EventTime, IterableSource
from headrace.features.errors import DefinitionError
from headrace.features.streams import Flow, Stream
from headrace.flows.graph.stateful import Ordered

BEGINNING = 0


class Score(Event):
    who: str
    x: int | None
    score: float | None
    at: EventTime


class Drift(Event):
    who: str
    last: EventTime


class Drifts(Event):
    drifts: int | None
    at: EventTime


class Own:
    """Learns numbers; refuses 3."""

    def __init__(self) -> None:
        self.total = 0.0

    def learn(self, x: float) -> None:
        if x == 3:
            raise ValueError("not three")
        self.total += x

    def value(self) -> float:
        return self.total


def trees() -> Any:
    return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(n_trees=3, height=3, window_size=4, seed=7)


def driven(stream: Stream, events: list[Given], cuts: list[bool]) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Rows and letters, restarted after events where `cuts` says so; all settle at the end."""
    step = Ordered(stream.step)
    chain: list[bytes] = []
    found: list[tuple[Any, ...]] = []
    dead: list[str] = []

    def told(made: Any) -> None:
        columns = [made.batch.values(name).tolist() for name in stream.schema.names]
        valid = [made.batch.valid(name).tolist() for name in stream.schema.names]
        for values, there in zip(zip(*columns, strict=True), zip(*valid, strict=True), strict=True):
            found.append(tuple(v if t else None for v, t in zip(values, there, strict=True)))
        dead.extend(each.detail for each in made.dead)

    for i, event in enumerate(events):
        step.take(rows([event]))
        # Half of what is settled when the rest has come: the newest instants may still get rows.
        later = min((each.us for each in events[i + 1 :]), default=FAR_US)
        told(step.advance(later - 1))
        if cuts[i % len(cuts)]:
            part, step = step.save(), Ordered(stream.step)
            chain = [*(chain if part.delta else []), part.data]
            step.load(chain, start=False)
    return found, dead


@given(streams(), st.lists(st.booleans(), min_size=1, max_size=5))
def test_scores_are_those_of_a_plain_loop(events: list[Given], cuts: list[bool]) -> None:
    stream = keyed().learn(trees(), x=[Reading.x], into="score", gives=Score)
    expected, models = [], {}
    for each in in_order(events):
        told = None
        if each.x is not None:
            model = models.setdefault(each.who, trees())
            told = model.score_one({"x": each.x})
            model.learn_one({"x": each.x})
        expected.append((each.who, each.x, told, each.us))
    found, dead = driven(stream, events, cuts)
    assert found == expected
    assert not dead


@given(streams(), st.lists(st.booleans(), min_size=1, max_size=5))
def test_an_own_object_that_raises_gives_a_letter_and_goes_on(events: list[Given], cuts: list[bool]) -> None:
    stream = keyed().learn(Own, x=Reading.x, into="score", gives=Score, name="sums")
    expected, totals, refused = [], {}, 0
    for each in in_order(events):
        told = None
        if each.x == 3:
            refused += 1
            continue
        if each.x is not None:
            told = totals[each.who] = totals.get(each.who, 0.0) + each.x
        expected.append((each.who, each.x, told, each.us))
    found, dead = driven(stream, events, cuts)
    assert found == expected
    assert len(dead) == refused
    for message in dead:
        assert "step 'sums'" in message
        assert "Object Own: its learn failed for x=3 with ValueError: not three" in message


def test_a_drift_detector_counts_across_restarts() -> None:
    stream = keyed().learn(drift.PageHinkley(min_instances=5), x=Reading.x, into="drifts", gives=Drifts)
    events = [Given(i, "a", 0 if i < 30 else 100, i) for i in range(60)]
    detector, drifts, expected = drift.PageHinkley(min_instances=5), 0, []
    for each in events:
        detector.update(each.x)
        drifts += detector.drift_detected
        expected.append((drifts, each.us))
    assert drifts
    assert driven(stream, events, [True])[0] == expected


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"into": "nothing"}, "into='nothing' is no column of Score. Its columns: who, x, score, at."),
        ({"into": "x"}, "Score.x is int64, and HalfSpaceTrees tells float64"),
        ({"into": "drifts", "gives": Drifts}, "Drifts.drifts is int64"),
        ({"gives": dict}, "gives= takes the event class"),
        ({"x": Score.score}, "is no column of Reading, whose rows it takes"),
        ({"model": anomaly.HalfSpaceTrees()}, "without a seed"),
        ({"model": linear_model.LinearRegression()}, "learns from a label too"),
    ],
)
def test_what_cannot_be_learned_is_refused(told: dict[str, Any], message: str) -> None:
    asked = {"model": anomaly.HalfSpaceTrees(seed=7), "x": Reading.x, "into": "score", "gives": Score} | told
    with pytest.raises(DefinitionError, match=message.replace("(", r"\(").replace(".", r"\.")):
        keyed().learn(asked.pop("model"), **asked)


def test_columns_that_the_rows_do_not_have_are_refused() -> None:
    class More(Event):
        who: str
        score: float | None
        city: str
        at: EventTime

    with pytest.raises(DefinitionError, match="city"):
        keyed().learn(anomaly.HalfSpaceTrees(seed=7), x=Reading.x, into="score", gives=More)
    assert READING.names == ("who", "x", "at")


def test_a_run_scores_as_the_loop(tmp_path: Any) -> None:
    from headrace import run

    given_rows = [{"who": "a", "x": i % 7, "at": moment(i)} for i in range(40)]
    flow = Flow("scores")
    found: list[float] = []
    scored = flow.read(IterableSource(given_rows, Reading, name="readings")).key_by("who")
    scored.learn(trees(), x=[Reading.x], into="score", gives=Score).inspect(lambda row: found.append(row.score))
    run([flow], tmp_path)
    model, expected = trees(), []
    for each in given_rows:
        expected.append(model.score_one({"x": each["x"]}))
        model.learn_one({"x": each["x"]})
    assert found == expected
