"""From a file, frame or iterable through the embedded runner to its store and log: equal to the oracle at every end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace
from tests.oracle.definitions import definition_of
from tests.oracle.described import Sent
from tests.oracle.judging import check_log, check_reading, settled_before, wrong_features
from tests.oracle.naive import Key, Oracle, Reading
from tests.oracle.operator import rows_of
from tests.oracle.ran import FORMS, source_of, writable
from tests.oracle.replayed import instant
from tests.oracle.strategies import cases, questions


def served(client: headrace.Client, view: Any, keys: tuple[str, ...], key: Key) -> tuple[int, Reading]:
    """What the lookup client says, and of which instant."""
    got = client.get(view, dict(zip(keys, key, strict=True)))
    newest = None if got.newest_event is None else _us(got.newest_event)
    return _us(got.at), Reading(got.to_dict(), {name: str(status) for name, status in got.status.items()}, newest)


def _us(moment: Any) -> int:
    return (moment - instant(0)) // (instant(1) - instant(0))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=max(5, settings.default.max_examples // 5))
@given(st.data())
def test_runs(form: str, data: st.DataObject) -> None:
    """Run the first part of the stream, then all of it on the same folder; read store, log and a training set."""
    unit, view, script = data.draw(cases())
    events = writable([step for step in script if isinstance(step, Sent)], form)
    first = data.draw(st.integers(0, len(events)))
    oracle = Oracle(view, events)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for some in (events[:first], events):
            definition = definition_of(view, source=source_of(form, some, root, view.stream))
            headrace.run([definition], root / "data", batch_size=data.draw(st.integers(1, 9)))
        with headrace.EmbeddedStore(root / "data" / "online", read_only=True) as store:
            client = headrace.Client(store)
            for key in oracle.entities:
                t, reading = served(client, definition, view.keys, key)
                assert t == oracle.judged.clock
                check_reading(oracle, key, t, reading)
        if not oracle.judged.taken:
            return
        log = headrace.OfflineLog(root / "data" / "log")
        check_log(oracle, rows_of(log.scan(definition, tail=False)), settled_before(oracle))
        check_log(oracle, rows_of(log.scan(definition)), None)
        if view.log_every is None:
            times = data.draw(questions(unit, list(events)))
            keys = [*oracle.entities, ("nobody", 1)[: len(view.keys)]]
            asked = [(key, t) for key in keys for t in times]
            spine = [dict(zip(view.keys, key, strict=True)) | {"t": instant(t)} for key, t in asked]
            got = rows_of(headrace.training_set(spine, definition, log=log, time="t", statuses=True))
            for row, (key, t) in zip(got, asked, strict=True):
                expected = oracle.read(key, t)
                seen = not {"NOT_FOUND", "OUTSIDE_MAX_AGE"} & set(expected.statuses.values())
                assert not wrong_features(oracle, key, t, row, seen=seen)
                assert {name: row[f"{name}__status"] for name in expected.statuses} == expected.statuses
