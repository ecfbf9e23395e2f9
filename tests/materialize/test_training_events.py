"""Training sets recomputed from raw events: equal to the log's and to the oracle's, corrected and as known then."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.definitions import Happening, definition_of, judging
from tests.oracle.described import Sent, View
from tests.oracle.judging import wrong_features
from tests.oracle.naive import Key, Oracle, judge
from tests.oracle.operator import rows_of
from tests.oracle.ran import source_of, table_of, writable
from tests.oracle.strategies import cases, questions
from tests.oracle.test_stateful_features import cases as learning_cases

import headrace
from headrace import FrameSource, OfflineLog
from headrace.flows.backfill import backfill

EXAMPLES = max(10, settings.default.max_examples // 2)
HOUR = 3_600_000_000


class Arriving(Happening):
    """An event that says when it arrived."""

    arrived: datetime | None


Question = tuple[Key, int]


def spine_of(view: View, asked: Sequence[Question]) -> pa.Table:
    types = {"who": pa.string(), "where_from": pa.int64()}
    columns: dict[str, Any] = {
        name: pa.array([key[i] for key, _ in asked], type=types[name]) for i, name in enumerate(view.keys)
    }
    return pa.table(columns | {"t": pa.array([t for _, t in asked], pa.int64()).cast(pa.timestamp("us", tz="UTC"))})


def asked_of(data: st.DataObject, unit: int, view: View, events: list[Sent]) -> list[Question]:
    """Questions about some of the entities, and about one that nobody has seen."""
    keys = sorted({tuple(event.columns[name] for name in view.keys) for event in events})
    keys.append(("nobody", 1)[: len(view.keys)])
    times = data.draw(questions(unit, list(events), most=10))
    return [(data.draw(st.sampled_from(keys)), t) for t in times]


def check_row(oracle: Oracle, key: Key, t: int, row: dict[str, Any], ending: str = "") -> None:
    """One row of a training set, values and statuses, as the oracle reads at `t`."""
    expected = oracle.read(key, t)
    seen = not {"NOT_FOUND", "OUTSIDE_MAX_AGE"} & set(expected.statuses.values())
    got = {name: row[name + ending] for name in expected.values}
    wrong = wrong_features(oracle, key, t, got, seen=seen)
    assert not wrong, f"{key} at {t}{ending}: (got, expected) {wrong}"
    statuses = {name: row[f"{name}{ending}__status"] for name in expected.statuses}
    assert statuses == expected.statuses, f"{key} at {t}{ending}"


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_from_events_as_from_the_log(data: st.DataObject) -> None:
    """Also of a thinned log, where serving knows more than the log, and with late events repaired."""
    unit, view, script = data.draw(st.one_of(cases(), cases(), learning_cases(24)))
    events = writable([step for step in script if isinstance(step, Sent)], "parquet")
    asked = asked_of(data, unit, view, events)
    repair = data.draw(st.booleans())
    judged = judge(view.stream, events)
    if repair:
        for_ever = replace(view.stream, lateness=2**60, late="dead_letter")
        judged = replace(judge(for_ever, events), watermark=judged.watermark, clock=judged.clock)
    oracle = Oracle(view, events, judged)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        definition = definition_of(view, source=source_of("parquet", events, root, view.stream))
        spine = spine_of(view, asked)
        options: dict[str, Any] = {"time": "t", "statuses": True}
        found = headrace.training_set(spine, definition, repair=repair, folder=root, **options)
        assert [each.name for each in root.iterdir()] == ["events.parquet"]
        assert found.select(spine.column_names).equals(spine)
        for row, (key, t) in zip(rows_of(found), asked, strict=True):
            check_row(oracle, key, t, row)
        if view.log_every is None and judged.taken:
            backfill([definition], root / "data", repair=repair)
            log = OfflineLog(root / "data" / "log")
            logged = headrace.training_set(spine, definition, log=log, **options)
            assert logged.schema.equals(found.schema)
            for row, (key, t) in zip(rows_of(logged), asked, strict=True):
                check_row(oracle, key, t, row)


def known_oracle(view: View, events: list[Sent], arrivals: list[int], t: int) -> Oracle:
    """Fed with just the events that had arrived by `t`, in order of arrival, judged by a clock on the wall."""
    stream = view.stream
    ahead = HOUR if stream.max_ahead is None else stream.max_ahead
    arrived = sorted((each for each in zip(arrivals, events, strict=True) if each[0] <= t), key=lambda each: each[0])
    taken = [event for arrival, event in arrived if event.time <= arrival + ahead]
    return Oracle(replace(view, stream=replace(stream, max_ahead=None)), taken)


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_as_known_then(data: st.DataObject) -> None:
    """What a live flow would have served: in any order of the file, arrivals before the event too."""
    unit, view, script = data.draw(st.one_of(cases(), cases(), learning_cases(24)))
    events = writable([step for step in script if isinstance(step, Sent)], "arrow")
    delays = st.sampled_from((0, 0, 1, 2, 5, 20, -1)).map(lambda n: n * unit)
    arrivals = [event.time + data.draw(delays) for event in events]
    if data.draw(st.booleans()):  # as a log of what arrived has it
        order = sorted(range(len(events)), key=lambda i: arrivals[i])
        events = [replace(events[i], offset=n) for n, i in enumerate(order)]
        arrivals = [arrivals[i] for i in order]
    asked = asked_of(data, unit, view, events)
    corrected = Oracle(view, events)
    table = table_of(events).append_column("arrived", pa.array(arrivals, pa.int64()).cast(pa.timestamp("us", tz="UTC")))
    definition = definition_of(view)
    found = headrace.training_set(
        spine_of(view, asked),
        definition,
        events=FrameSource(table, Arriving, **judging(view.stream)),
        arrival="arrived",
        as_known="beside",
        time="t",
        statuses=True,
    )
    for row, (key, t) in zip(rows_of(found), asked, strict=True):
        check_row(corrected, key, t, row)
        known = known_oracle(view, events, arrivals, t)
        at = max([t, *(each.since for each in known.taken(key))])
        check_row(known, key, at, row, "__known")
