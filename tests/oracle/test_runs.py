"""From a file, frame or iterable through the embedded runner to its store and log: equal to the oracle at every end."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace
from headrace.flows.backfill import backfill, portions
from headrace.materialize.verifying import check_log as compare_logs
from headrace.stores.offline import OfflineLog
from tests.oracle.definitions import definition_of
from tests.oracle.described import Sent
from tests.oracle.folders import Stopped, check_folder, stopping
from tests.oracle.naive import Oracle, judge
from tests.oracle.ran import FORMS, source_of, writable
from tests.oracle.strategies import cases, questions


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=max(5, settings.default.max_examples // 5))
@given(st.data())
def test_runs(form: str, data: st.DataObject) -> None:
    """Run the first part of the stream, then all of it on the same folder; read store, log and a training set."""
    unit, view, script = data.draw(cases())
    events = writable([step for step in script if isinstance(step, Sent)], form)
    first = data.draw(st.integers(0, len(events)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for some in (events[:first], events):
            definition = definition_of(view, source=source_of(form, some, root, view.stream))
            headrace.run([definition], root / "data", batch_size=data.draw(st.integers(1, 9)))
        check_folder(root / "data", Oracle(view, events), definition, data.draw(questions(unit, list(events))))


@pytest.mark.parametrize("form", ["parquet", "rows"])
@settings(max_examples=max(5, settings.default.max_examples // 5))
@given(st.data())
def test_backfills(form: str, data: st.DataObject) -> None:
    """Backfill the first part of the stream, perhaps interrupted and taken up again, then run all of it on the same
    folder: the seam may lie anywhere."""
    unit, view, script = data.draw(cases())
    events = writable([step for step in script if isinstance(step, Sent)], form)
    first = data.draw(st.integers(0, len(events)))
    times = data.draw(questions(unit, list(events)))
    size = data.draw(st.integers(1, 9))
    stops = data.draw(st.lists(st.integers(0, 80), max_size=2))
    portion = data.draw(st.sampled_from((1, 3, portions.PORTION)))
    with tempfile.TemporaryDirectory() as folder, patch.object(portions, "PORTION", portion):
        root = Path(folder)
        definition = definition_of(view, source=source_of(form, events[:first], root, view.stream))
        for stop in stops:
            with suppress(Stopped):
                backfill([definition], root / "data", batch_size=size, progress=stopping(stop))
                break
        else:
            backfill([definition], root / "data", batch_size=size)
        check_folder(root / "data", Oracle(view, events[:first]), definition, times)
        definition = definition_of(view, source=source_of(form, events, root, view.stream))
        headrace.run([definition], root / "data", batch_size=size)
        check_folder(root / "data", Oracle(view, events), definition, times)
        if OfflineLog(root / "data" / "log").views():
            backfill([definition], root / "anew")
            logs = [OfflineLog(root / each / "log") for each in ("data", "anew")]
            verified = compare_logs(definition, *logs)
            assert not verified.differences, verified
            assert verified.rows == logs[0].scan(definition, tail=False).num_rows


@settings(max_examples=max(5, settings.default.max_examples // 5))
@given(st.data())
def test_repairs(data: st.DataObject) -> None:
    """A backfill that repairs takes late events at their own time; its log has settled as far as any."""
    unit, view, script = data.draw(cases())
    events = writable([step for step in script if isinstance(step, Sent)], "parquet")
    for_ever = replace(view.stream, lateness=2**60, late="dead_letter")
    there = judge(view.stream, events)
    judged = replace(judge(for_ever, events), watermark=there.watermark, clock=there.clock)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        definition = definition_of(view, source=source_of("parquet", events, root, view.stream))
        summary = backfill([definition], root / "data", repair=True)
        assert summary.taken == len(judged.taken)
        assert sum(summary.dead.values()) == len(judged.dead)
        times = data.draw(questions(unit, list(events)))
        check_folder(root / "data", Oracle(view, events, judged), definition, times)
