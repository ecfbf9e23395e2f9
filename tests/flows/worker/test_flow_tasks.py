"""Random flows over pretend topics: what steps give depends on nothing but the events, whichever tasks die when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.flows.graph.test_random_graphs import START, Reading, Sent, drawn
from tests.flows.worker.pretend import ROWS, PretendFlow, Recorded

from headrace.features.errors import DefinitionError
from headrace.features.events import schema_of
from headrace.features.streams import Flow
from headrace.flows.batch import EventBatch
from headrace.flows.decode import decode_rows

READING = schema_of(Reading)


@pytest.fixture(autouse=True)
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ROWS, Recorded)


def events(rows: Sequence[tuple[str | None, int, int]], partition: int) -> list[EventBatch]:
    """One by one."""
    made = []
    for offset, (key, n, second) in enumerate(rows):
        row = {"key": key, "n": n, "at": START + timedelta(seconds=second)}
        batch, dead = decode_rows(READING, [row], partition, np.array([offset], dtype=np.int64))
        assert not dead
        made.append(batch)
    return made


def spread(data: st.DataObject, sources: Sequence[Sent]) -> dict[str, list[list[EventBatch]]]:
    """By source, the events of each of its partitions."""
    found: dict[str, list[list[EventBatch]]] = {}
    for source in sources:
        parts: list[list[Any]] = [[] for _ in range(data.draw(st.integers(1, 3)))]
        for row in source.rows:
            data.draw(st.sampled_from(parts)).append(row)
        found[source.name] = [events(rows, n) for n, rows in enumerate(parts)]
    return found


def over_topics(flow: Flow, read: dict[str, list[list[EventBatch]]], topic_partitions: int) -> PretendFlow:
    try:
        return PretendFlow(flow, read, topic_partitions)
    except DefinitionError:  # such flows are refused over topics
        assume(False)
        raise


def play(flow: PretendFlow, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 40))):
        task = data.draw(st.sampled_from(flow.tasks))
        what = data.draw(st.sampled_from(["step", "step", "step", "checkpoint", "die", "say"]))
        if what == "step" and task.left:
            task.step(data.draw(st.integers(1, 5)))
        elif what == "checkpoint":
            task.checkpoint()
        elif what == "die":
            task.die()
        elif what == "say":
            task.say()
    flow.to_the_end()


def given_by(flow: PretendFlow) -> dict[str, Counter[Any]]:
    return {step: Counter(rows) for step, rows in flow.rows.items()}


def letters(flow: PretendFlow) -> Counter[tuple[str, str]]:
    return Counter((letter.reason, letter.detail) for letter in flow.dead)


@given(st.data())
def test_deaths_and_batches_change_nothing(data: st.DataObject) -> None:
    graph, sources = drawn(data)
    read, partitions = spread(data, sources), data.draw(st.integers(1, 2))
    calm, harried = (over_topics(graph.flow, read, partitions) for _ in range(2))
    assume(calm.plan.cut.stages)
    calm.to_the_end()
    play(harried, data)
    assert given_by(harried) == given_by(calm)
    assert letters(harried) == letters(calm)


@given(st.data())
def test_a_flow_over_topics_gives_what_list_programs_give(data: st.DataObject) -> None:
    graph, sources = drawn(data)
    # All events are in the first of several partitions, so that ties are those of the list program; and each source
    # comes to the same end, up to which windows close.
    assume(all(max((second for *_, second in each.rows), default=-1) == graph.end for each in sources))
    read = {each.name: [events(each.rows, 0), [], []] for each in sources}
    flow = over_topics(graph.flow, read, 1)
    play(flow, data)
    places = Counter(
        step.name for stage in [*flow.plan.cut.beside.values(), *flow.plan.cut.stages] for step in stage.steps
    )
    mixed: set[str] = set()  # steps behind streams that are merged in two places: ties have other places there
    for step in graph.flow.steps:
        above = [each for each in (step.parent, step.other) if each is not None]
        if any(places[each.name] > 1 or each.name in mixed for each in above):
            mixed.add(step.name)
            continue
        expected = Counter((row.key, row.n, START + timedelta(seconds=row.time)) for row in graph.steps[step.name][1])
        found = Counter((key, n, at.astimezone(UTC)) for key, n, at, *_ in flow.rows[step.name])
        assert found == expected, step.name
